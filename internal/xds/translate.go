package xds

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	rls "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
)

// Extension is the key of a descriptor's metadata under which a control plane
// writes what its messages have no field for: fields of the grammar, such as
// algorithm, burst or rate_limits.
const Extension = "distlimiter"

// ofDescriptor are the extension's fields that belong to the descriptor; all
// others belong to its rate_limit.
var ofDescriptor = []string{"rate_limits", "share_threshold", "value_to_metric"}

// toSources writes each resource in the grammar of rule files.
func toSources(resources []*anypb.Any) ([]config.Source, error) {
	var sources []config.Source
	var errs []error
	for i, any := range resources {
		var c rls.RateLimitConfig
		if err := any.UnmarshalTo(&c); err != nil {
			errs = append(errs, fmt.Errorf("resources[%d]: %w", i, err))
			continue
		}
		data, err := yaml.Marshal(domain(&c))
		if err != nil {
			errs = append(errs, fmt.Errorf("resources[%d] %q: %w", i, c.Name, err))
			continue
		}
		sources = append(sources, config.Source{Name: "xds:" + c.Name, Data: data, Origin: config.FromXDS})
	}
	return sources, errors.Join(errs...)
}

// text returns s to be written as it is: in the block style that yaml chooses for
// text with line ends, the first of them is lost.
func text(s string) any {
	if !strings.Contains(s, "\n") {
		return s
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
}

func domain(c *rls.RateLimitConfig) map[string]any {
	return map[string]any{"domain": text(c.Domain), "descriptors": descriptors(c.Descriptors)}
}

func descriptors(list []*rls.RateLimitDescriptor) []map[string]any {
	out := make([]map[string]any, len(list))
	for i, d := range list {
		out[i] = descriptor(d)
	}
	return out
}

func descriptor(d *rls.RateLimitDescriptor) map[string]any {
	out := map[string]any{"key": text(d.Key)}
	if d.Value != "" {
		out["value"] = text(d.Value)
	}
	set(out, "shadow_mode", d.ShadowMode)
	set(out, "detailed_metric", d.DetailedMetric)
	set(out, "quota_mode", d.QuotaMode)
	if d.RateLimit != nil {
		out["rate_limit"] = limit(d.RateLimit)
	}
	if len(d.Descriptors) > 0 {
		out["descriptors"] = descriptors(d.Descriptors)
	}
	metadata := maps.Clone(d.Metadata.GetFields())
	if extension := metadata[Extension].GetStructValue(); extension != nil {
		delete(metadata, Extension)
		extend(out, extension)
	}
	if len(metadata) > 0 {
		out["metadata"] = plain(structpb.NewStructValue(&structpb.Struct{Fields: metadata}))
	}
	return out
}

// extend adds the extension's fields. Those that the message has too replace it.
func extend(out map[string]any, extension *structpb.Struct) {
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

func limit(p *rls.RateLimitPolicy) map[string]any {
	out := map[string]any{}
	set(out, "name", p.Name)
	if len(p.Replaces) > 0 {
		names := make([]map[string]any, len(p.Replaces))
		for i, r := range p.Replaces {
			names[i] = map[string]any{"name": r.Name}
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
