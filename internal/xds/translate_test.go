package xds

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	rls "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// checkAgainstYAML compares what comes of a resource with what comes of the YAML that
// says the same: rules, warnings and problems, but for their lines.
func checkAgainstYAML(t *testing.T, c *rls.RateLimitConfig) {
	t.Helper()
	resource, err := anypb.New(c)
	if err != nil {
		t.Fatal(err)
	}
	sources, err := toSources([]*anypb.Any{resource})
	if err != nil {
		t.Fatal(err)
	}
	got, gotErr := rulefile.Parse(sources, rulefile.Options{})
	text, err := yaml.Marshal(yamlDomain(c))
	if err != nil {
		t.Fatal(err)
	}
	want, wantErr := rulefile.Parse([]rulefile.Source{{Name: sources[0].Name, Data: text, Origin: config.FromXDS}}, rulefile.Options{})
	if got, want := problems(t, gotErr), problems(t, wantErr); !slices.Equal(got, want) {
		t.Fatalf("problems\n%s\nwant\n%s\nof\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), text)
	}
	if gotErr != nil {
		return
	}
	if got, want := texts(got.Warnings), texts(want.Warnings); !slices.Equal(got, want) {
		t.Fatalf("warnings\n%s\nwant\n%s\nof\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), text)
	}
	for _, rules := range []*config.Rules{got, want} {
		for _, domain := range rules.Domains {
			domain.Pos = config.Pos{}
			withoutPlaces(domain.Descriptors)
		}
	}
	if !reflect.DeepEqual(got.Domains, want.Domains) {
		t.Fatalf("rules\n%s\nwant\n%s\nof\n%s", got, want, text)
	}
}

func withoutPlaces(level []*config.Descriptor) {
	for _, d := range level {
		d.Pos = config.Pos{}
		for _, l := range d.Limits {
			l.Pos = config.Pos{}
		}
		withoutPlaces(d.Descriptors)
	}
}

func problems(t *testing.T, err error) []string {
	t.Helper()
	var bad *config.Invalid
	if err != nil && !errors.As(err, &bad) {
		t.Fatal(err)
	}
	if bad == nil {
		return nil
	}
	return texts(bad.Problems)
}

// texts returns problems without their places, of which only one way has lines, in an
// order of their own.
func texts(problems []config.Problem) (texts []string) {
	for _, p := range problems {
		what, _, _ := strings.Cut(p.What, " is already given at ")
		texts = append(texts, cmp.Or(p.Path, "-")+": "+what+"; "+p.Remedy)
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

func mustStruct(t testing.TB, fields map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// cases are resources with all that a message or the extension can say, right and wrong.
func cases(t testing.TB) map[string]*rls.RateLimitConfig {
	minute := func(n uint32) *rls.RateLimitPolicy {
		return &rls.RateLimitPolicy{Unit: rls.RateLimitUnit_MINUTE, RequestsPerUnit: n}
	}
	one := func(d *rls.RateLimitDescriptor) *rls.RateLimitConfig {
		return &rls.RateLimitConfig{Name: "edge", Domain: "edge", Descriptors: []*rls.RateLimitDescriptor{d}}
	}
	extended := func(policy *rls.RateLimitPolicy, fields map[string]any) *rls.RateLimitConfig {
		return one(&rls.RateLimitDescriptor{Key: "user", Value: "a*", RateLimit: policy, Metadata: mustStruct(t, map[string]any{Extension: fields, "owner": "me"})})
	}
	many := map[string]any{}
	for i := range 100 {
		many[fmt.Sprint("key", i)] = i
	}
	all := map[string]*rls.RateLimitConfig{
		"empty":          {},
		"no descriptors": {Name: "edge", Domain: "edge"},
		"modes":          one(&rls.RateLimitDescriptor{Key: "user", Value: "alice", ShadowMode: true, QuotaMode: true, DetailedMetric: true, RateLimit: minute(5)}),
		"modes alone":    one(&rls.RateLimitDescriptor{Key: "user", ShadowMode: true, QuotaMode: true, DetailedMetric: true}),
		"nested": one(&rls.RateLimitDescriptor{Key: "a", Descriptors: []*rls.RateLimitDescriptor{
			{Key: "b", RateLimit: minute(0), Descriptors: []*rls.RateLimitDescriptor{{Key: "c", Value: "*", RateLimit: minute(4294967295)}}}, {Key: "b", RateLimit: minute(1)}, {Key: ""},
		}}),
		"unlimited":           one(&rls.RateLimitDescriptor{Key: "a", RateLimit: &rls.RateLimitPolicy{Unlimited: true, Name: "n", Replaces: []*rls.RateLimitReplace{{Name: "n"}, {}, {Name: "other"}}}}),
		"unlimited with rate": one(&rls.RateLimitDescriptor{Key: "a", RateLimit: &rls.RateLimitPolicy{Unlimited: true, Unit: rls.RateLimitUnit_DAY, RequestsPerUnit: 5}}),
		"no unit":             one(&rls.RateLimitDescriptor{Key: "a", RateLimit: &rls.RateLimitPolicy{}}),
		"unknown unit":        one(&rls.RateLimitDescriptor{Key: "a", RateLimit: &rls.RateLimitPolicy{Unit: 99}}),
		"twice":               {Name: "edge", Domain: "edge", Descriptors: []*rls.RateLimitDescriptor{{Key: "a", RateLimit: minute(1)}, {Key: "a", RateLimit: minute(2)}, {Key: "a", Value: "b"}, {Key: " a"}}},
		"the same problem":    {Name: "edge", Domain: "edge", Descriptors: []*rls.RateLimitDescriptor{{Key: "a", RateLimit: &rls.RateLimitPolicy{}}, {Key: "b", RateLimit: &rls.RateLimitPolicy{}}}},
		"hybrid": extended(nil, map[string]any{"algorithm": "hybrid", "denied_hits": "count",
			"token_bucket": map[string]any{"capacity": 20, "refill_rate": "2/s"}, "sliding_window": map[string]any{"requests_per_unit": 100, "unit": "minute"}}),
		"window":          extended(minute(5), map[string]any{"window": "90s", "algorithm": "sliding_window", "strict": true, "sub_windows": 5}),
		"several limits":  extended(nil, map[string]any{"share_threshold": true, "value_to_metric": true, "rate_limits": []any{map[string]any{"unit": "second", "requests_per_unit": 10}, map[string]any{"unit": "day", "requests_per_unit": 1e6}}}),
		"both":            extended(minute(5), map[string]any{"rate_limits": []any{}}),
		"an empty policy": extended(&rls.RateLimitPolicy{Unlimited: true}, map[string]any{"rate_limits": []any{nil, "x", 1.5, true}}),
		"numbers":         extended(minute(5), map[string]any{"algorithm": "token_bucket", "burst": 1.5, "requests_per_unit": 1e300, "lease": 0.25}),
		"more numbers":    extended(minute(5), map[string]any{"burst": -1, "lease": 1e-9, "requests_per_unit": float64(1 << 53), "name": 5}),
		"no numbers":      extended(minute(5), map[string]any{"burst": "5", "lease": "0.5", "strict": "yes", "unlimited": "true", "requests_per_unit": nil}),
		"odd numbers":     extended(minute(5), map[string]any{"burst": math.Inf(1), "lease": math.NaN(), "requests_per_unit": math.Inf(-1)}),
		"unknown":         extended(minute(5), map[string]any{"algoritm": "x", "domain": "d", "": 1}),
		"many keys":       extended(minute(5), many),
		"metadata": one(&rls.RateLimitDescriptor{Key: "a", RateLimit: minute(1), Metadata: mustStruct(t, map[string]any{
			"list": []any{nil, true, "yes", "5", "~", "0x10", "2001-01-01", "!!binary aGk=", 5, 5.5, 1e300, math.Inf(1), map[string]any{"a.b": "\u0085\u2028\ufeff"}},
			"none": nil, "empty": map[string]any{}, "no list": []any{}, "many": many})}),
		"extension that is none": one(&rls.RateLimitDescriptor{Key: "a", RateLimit: minute(1), Metadata: mustStruct(t, map[string]any{Extension: "x"})}),
	}
	for _, s := range oddTexts {
		all["text "+s] = &rls.RateLimitConfig{Name: s, Domain: "edge" + s, Descriptors: []*rls.RateLimitDescriptor{
			{Key: "k" + s, Value: s, RateLimit: &rls.RateLimitPolicy{Name: s, Unit: rls.RateLimitUnit_MINUTE, RequestsPerUnit: 1}},
			{Key: s, RateLimit: &rls.RateLimitPolicy{Unlimited: true, Replaces: []*rls.RateLimitReplace{{Name: s}}}},
		}}
	}
	return all
}

// oddTexts are strings that YAML reads as something else, unless they are quoted.
var oddTexts = []string{"user", "", "a: b", "*", "&a", "- x", "'\"", "yes", "null", "~", "0x10", "2001-01-01", "!!binary aGk=", "a\nb", "\n", "\u0085", "\u2028", "\ufeff", "<<", "\x00", "\x7f", "\t", "---", " x "}

func TestSameAsYAML(t *testing.T) {
	for name, c := range cases(t) {
		t.Run(name, func(t *testing.T) { checkAgainstYAML(t, c) })
	}
	c := &rls.RateLimitConfig{}
	if err := proto.Unmarshal(manyRules(t, 1000).Value, c); err != nil {
		t.Fatal(err)
	}
	checkAgainstYAML(t, c)
}

// TestMergeKeyIsAKey holds that what YAML takes for a merge key is a key like others
// in a message.
func TestMergeKeyIsAKey(t *testing.T) {
	merge := map[string]any{"<<": map[string]any{"unit": "day", "requests_per_unit": 5}}
	parse := func(metadata map[string]any) (*config.Rules, error) {
		data, err := proto.Marshal(&rls.RateLimitConfig{Domain: "edge", Descriptors: []*rls.RateLimitDescriptor{
			{Key: "a", RateLimit: &rls.RateLimitPolicy{Unit: rls.RateLimitUnit_DAY, RequestsPerUnit: 1}, Metadata: mustStruct(t, metadata)}}})
		if err != nil {
			t.Fatal(err)
		}
		return rulefile.Parse([]rulefile.Source{{Name: "x", Data: data, Read: read}}, rulefile.Options{})
	}
	if _, err := parse(map[string]any{Extension: merge}); err == nil || !strings.Contains(err.Error(), `unknown key "<<"`) {
		t.Errorf("in the extension: error %v", err)
	}
	rules, err := parse(merge)
	if err != nil || rules.Domains[0].Descriptors[0].Metadata["<<"] == nil {
		t.Errorf("in metadata: rules %v, error %v", rules, err)
	}
}

// TestPlaces holds that a problem names its place, though there is no line.
func TestPlaces(t *testing.T) {
	resource, err := anypb.New(&rls.RateLimitConfig{Name: "res", Domain: "edge", Descriptors: []*rls.RateLimitDescriptor{
		{Key: "a"}, {Key: "b", Descriptors: []*rls.RateLimitDescriptor{{Key: "c"}, {Key: "d", RateLimit: &rls.RateLimitPolicy{}}, {Key: "c"}}}, {Key: "a"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	sources, err := toSources([]*anypb.Any{resource})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rulefile.Parse(sources, rulefile.Options{})
	const want = `xds:res: descriptors[1].descriptors[1].rate_limit.unit: the unit is missing; write second, minute, hour, day, week, month or year, or window: 90s
xds:res: descriptors[1].descriptors[2]: c is already given at xds:res: descriptors[1].descriptors[0]; remove one, or write both limits as rate_limits of one
xds:res: descriptors[2]: a is already given at xds:res: descriptors[0]; remove one, or write both limits as rate_limits of one`
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
}

// TestSameBytes holds that a resource that is sent again, its maps in another order, is
// no change.
func TestSameBytes(t *testing.T) {
	c := cases(t)["metadata"]
	var first []byte
	for range 20 {
		resource, err := anypb.New(c) // in an order of its own each time
		if err != nil {
			t.Fatal(err)
		}
		sources, err := toSources([]*anypb.Any{resource})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = sources[0].Data
		}
		if !slices.Equal(first, sources[0].Data) {
			t.Fatal("the bytes differ")
		}
	}
}

// What follows writes a resource in the grammar of rule files, as toSources once did.

// yamlText returns s to be written as it is: in the block style that yaml chooses for
// text with line ends, the first of them is lost.
func yamlText(s string) any {
	if !strings.Contains(s, "\n") {
		return s
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
}

func yamlDomain(c *rls.RateLimitConfig) map[string]any {
	return map[string]any{"domain": yamlText(c.Domain), "descriptors": yamlDescriptors(c.Descriptors)}
}

func yamlDescriptors(list []*rls.RateLimitDescriptor) []map[string]any {
	out := make([]map[string]any, len(list))
	for i, d := range list {
		out[i] = yamlDescriptor(d)
	}
	return out
}

func yamlDescriptor(d *rls.RateLimitDescriptor) map[string]any {
	out := map[string]any{"key": yamlText(d.Key)}
	if d.Value != "" {
		out["value"] = yamlText(d.Value)
	}
	set(out, "shadow_mode", d.ShadowMode)
	set(out, "detailed_metric", d.DetailedMetric)
	set(out, "quota_mode", d.QuotaMode)
	if d.RateLimit != nil {
		out["rate_limit"] = yamlLimit(d.RateLimit)
	}
	if len(d.Descriptors) > 0 {
		out["descriptors"] = yamlDescriptors(d.Descriptors)
	}
	metadata := maps.Clone(d.Metadata.GetFields())
	if extension := metadata[Extension].GetStructValue(); extension != nil {
		delete(metadata, Extension)
		yamlExtend(out, extension)
	}
	if len(metadata) > 0 {
		out["metadata"] = plain(structpb.NewStructValue(&structpb.Struct{Fields: metadata}))
	}
	return out
}

// extend adds the extension's fields. Those that the message has too replace it.
func yamlExtend(out map[string]any, extension *structpb.Struct) {
	limit, _ := out["rate_limit"].(map[string]any)
	for key, value := range extension.Fields {
		if slices.Contains(ofDescriptor, key) {
			out[key] = plain(value)
			continue
		}
		if limit == nil {
			limit = map[string]any{}
			out["rate_limit"] = limit
		}
		if key == "window" {
			delete(limit, "unit")
		}
		limit[key] = plain(value)
	}
	if _, several := out["rate_limits"]; several && len(limit) == 0 {
		delete(out, "rate_limit")
	}
}

func yamlLimit(p *rls.RateLimitPolicy) map[string]any {
	out := map[string]any{}
	if p.Name != "" {
		out["name"] = yamlText(p.Name)
	}
	if len(p.Replaces) > 0 {
		names := make([]map[string]any, len(p.Replaces))
		for i, r := range p.Replaces {
			names[i] = map[string]any{"name": yamlText(r.Name)}
		}
		out["replaces"] = names
	}
	if p.Unit != rls.RateLimitUnit_UNKNOWN {
		out["unit"] = strings.ToLower(p.Unit.String())
	}
	if p.Unlimited {
		out["unlimited"] = true
		set(out, "requests_per_unit", p.RequestsPerUnit)
	} else {
		out["requests_per_unit"] = p.RequestsPerUnit
	}
	return out
}

// set leaves out what the message does not tell from absent.
func set[T comparable](out map[string]any, key string, value T) {
	var none T
	if value != none {
		out[key] = value
	}
}

// plain returns a value as YAML writes it; whole numbers, which are doubles in
// the message, as integers.
func plain(v *structpb.Value) any {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		if n := kind.NumberValue; n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return int64(n)
		}
		return kind.NumberValue
	case *structpb.Value_StructValue:
		out := make(map[string]any, len(kind.StructValue.GetFields()))
		for key, value := range kind.StructValue.GetFields() {
			out[key] = plain(value)
		}
		return out
	case *structpb.Value_ListValue:
		out := make([]any, len(kind.ListValue.GetValues()))
		for i, value := range kind.ListValue.GetValues() {
			out[i] = plain(value)
		}
		return out
	}
	return v.AsInterface()
}
