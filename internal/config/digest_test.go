package config_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// TestDigestDiffersBetweenRules checks that different rules of the same number have different
// digests, and that the same rules from elsewhere have the same digest.
func TestDigestDiffersBetweenRules(t *testing.T) {
	const text = "domain: edge\ndescriptors:\n  - key: user\n    rate_limit: {unit: minute, requests_per_unit: 5}\n    descriptors: [{key: path, metadata: {a: 1}, rate_limit: {unlimited: true}}]\n"
	const other = "domain: shop\ndescriptors: [{key: user, rate_limit: {unit: minute, requests_per_unit: 5}}]\n"
	digest := func(texts ...string) string {
		t.Helper()
		sources := make([]rulefile.Source, len(texts))
		for i, text := range texts {
			sources[i] = rulefile.Source{Name: strings.Repeat("x", len(text)%7+1) + ".yaml", Data: []byte(text)}
			sources[i].Name = string(rune('a'+i)) + sources[i].Name
		}
		rules, err := rulefile.Parse(sources, rulefile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		d := rules.Digest()
		return string(d[:])
	}
	whole := digest(text, other)
	if digest(other, "# the same\n"+text) != whole {
		t.Error("order of domains, places and comments matter")
	}
	for _, c := range [][2]string{
		{"unit: minute", "unit: hour"}, {"requests_per_unit: 5", "requests_per_unit: 6"}, {"{a: 1}", "{a: 2}"}, {"key: user", "key: usr"},
		{"requests_per_unit: 5}", "requests_per_unit: 5, name: x}"}, {"requests_per_unit: 5}", "requests_per_unit: 5, algorithm: token_bucket}"},
		{"key: path,", "key: path, shadow_mode: true,"}, {"domain: edge", "domain: edge2"}, {"requests_per_unit: 5}", "requests_per_unit: 5, on_backend_error: allow}"},
	} {
		changed := strings.Replace(text, c[0], c[1], 1)
		if changed == text {
			t.Fatalf("%s is not there", c[0])
		}
		if digest(changed, other) == whole {
			t.Errorf("%s instead of %s makes no difference", c[1], c[0])
		}
	}
}

// TestDigestKnowsEachField checks all fields of domains, descriptors and limits that matter
// for decisions. A new field must be in the digest, or in the list of those that do not
// matter.
func TestDigestKnowsEachField(t *testing.T) {
	silent := map[string]bool{ // the origin of rules, not their meaning
		"Domain.Pos": true, "Domain.ConsumeGiven": true,
		"Descriptor.Pos": true, "Descriptor.Origin": true, "Descriptor.Overridden": true, "Descriptor.Written": true,
		"Limit.Pos": true, "Limit.AlgorithmGiven": true, "Limit.AdjustedBy": true,
	}
	build := func() (*config.Rules, map[string]reflect.Value) {
		limit := &config.Limit{Unlimited: true}
		node := &config.Descriptor{Key: "user", Limits: []*config.Limit{limit}}
		domain := &config.Domain{Name: "edge", Descriptors: []*config.Descriptor{node}}
		return &config.Rules{Domains: []*config.Domain{domain}}, map[string]reflect.Value{
			"Domain": reflect.ValueOf(domain).Elem(), "Descriptor": reflect.ValueOf(node).Elem(), "Limit": reflect.ValueOf(limit).Elem(),
		}
	}
	limit, err := algo.New(algo.Params{Limit: 1, Window: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	special := map[string]any{
		"Domain.Descriptors": []*config.Descriptor{}, "Domain.Limits": []*config.Descriptor{{Set: &sets.Rule{Name: "all"}}}, "Descriptor.Set": &sets.Rule{Name: "all"}, "Descriptor.Descriptors": []*config.Descriptor{{Key: "path"}},
		"Descriptor.Limits": []*config.Limit{}, "Descriptor.Metadata": map[string]any{"a": 1}, "Limit.Algo": limit,
	}
	before, structs := build()
	for kind, whole := range structs {
		for i := range whole.NumField() {
			name := kind + "." + whole.Type().Field(i).Name
			after, changed := build()
			field := changed[kind].Field(i)
			if value, is := special[name]; is {
				field.Set(reflect.ValueOf(value))
			} else {
				change(t, name, field)
			}
			if differ := before.Digest() != after.Digest(); differ == silent[name] {
				t.Errorf("%s: the digest changes with it: %v", name, differ)
			}
		}
	}
}

// change gives a field another value.
func change(t *testing.T, name string, field reflect.Value) {
	switch field.Kind() {
	case reflect.Bool:
		field.SetBool(!field.Bool())
	case reflect.String:
		field.SetString(field.String() + "x")
	case reflect.Uint8, reflect.Uint32:
		field.SetUint(field.Uint() + 1)
	case reflect.Int, reflect.Int32:
		field.SetInt(field.Int() + 1)
	case reflect.Float64:
		field.SetFloat(field.Float() + 0.5)
	case reflect.Slice:
		field.Set(reflect.Append(field, reflect.New(field.Type().Elem()).Elem()))
	case reflect.Struct:
		change(t, name, field.Field(0))
	case reflect.Pointer:
		field.Set(reflect.New(field.Type().Elem()))
	default:
		t.Fatalf("%s: a field of a kind that this test cannot change: list a value for it", name)
	}
}
