package xds

import (
	"testing"

	rls "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/distlimiter/ratelimit/internal/config"
)

// FuzzResource takes the bytes of one resource as a control plane would send
// them. They are refused, or the rules are the message's: names pass through YAML
// as they are, whatever they hold.
func FuzzResource(f *testing.F) {
	extension, err := structpb.NewStruct(map[string]any{Extension: map[string]any{
		"algorithm": "token_bucket", "burst": 5, "window": "90s", "rate_limits": []any{map[string]any{"unit": "day", "requests_per_unit": 1e300}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{"user", "", "a: b", "*", "&a", "- x", "'\"", "yes", "null", "~", "0x10", "2001-01-01", "!!binary aGk=", "a\nb", "\u0085", "\u2028", "\ufeff", "<<"} {
		raw, err := proto.Marshal(&rls.RateLimitConfig{Name: text, Domain: "edge" + text, Descriptors: []*rls.RateLimitDescriptor{
			{Key: "k" + text, Value: text, Metadata: extension, RateLimit: &rls.RateLimitPolicy{Name: text, Unit: rls.RateLimitUnit_MINUTE, RequestsPerUnit: 4294967295}},
			{Key: text, RateLimit: &rls.RateLimitPolicy{Unlimited: true, Replaces: []*rls.RateLimitReplace{{Name: text}}}},
		}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	url := string((&rls.RateLimitConfig{}).ProtoReflect().Descriptor().FullName())
	f.Fuzz(func(t *testing.T, raw []byte) {
		sources, err := toSources([]*anypb.Any{{TypeUrl: "type.googleapis.com/" + url, Value: raw}})
		if err != nil {
			return
		}
		rules, err := config.Parse(sources, config.Options{})
		if err != nil {
			return
		}
		var sent rls.RateLimitConfig
		if err := proto.Unmarshal(raw, &sent); err != nil {
			t.Fatal(err)
		}
		if got := rules.Domains[0].Name; got != sent.Domain {
			t.Fatalf("the domain is %q, want %q", got, sent.Domain)
		}
		checkNames(t, rules.Domains[0].Descriptors, sent.Descriptors)
	})
}

func checkNames(t *testing.T, got []*config.Descriptor, sent []*rls.RateLimitDescriptor) {
	t.Helper()
	if len(got) != len(sent) {
		t.Fatalf("%d descriptors, want %d", len(got), len(sent))
	}
	for i, d := range sent {
		if got[i].Key != d.Key || got[i].Value != d.Value {
			t.Fatalf("descriptor %d is %q=%q, want %q=%q", i, got[i].Key, got[i].Value, d.Key, d.Value)
		}
		checkNames(t, got[i].Descriptors, d.Descriptors)
	}
}
