package xds

import (
	"strings"
	"testing"

	rls "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// FuzzResource takes the bytes of one resource as a control plane would send
// them. They are refused, or the rules are the message's, and those of YAML that says
// the same: names pass as they are, whatever they hold.
func FuzzResource(f *testing.F) {
	for _, c := range cases(f) {
		raw, err := proto.Marshal(c)
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
		rules, err := rulefile.Parse(sources, rulefile.Options{})
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
		// YAML loses some line ends, and takes << for more than a key.
		if text := prototext.Format(&sent); !strings.Contains(text, `\n`) && !strings.Contains(text, "<<") {
			checkAgainstYAML(t, &sent)
		}
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
