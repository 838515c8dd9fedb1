package xds

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	rls "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// Extension is the key of a descriptor's metadata under which a control plane writes
// fields of the grammar that its messages do not have, such as algorithm, burst or
// rate_limits.
const Extension = "distlimiter"

// ofDescriptor are the extension's fields that belong to the descriptor; all
// others belong to its rate_limit.
var ofDescriptor = []string{"rate_limits", "share_threshold", "value_to_metric"}

// toSources returns each resource as a source.
func toSources(resources []*anypb.Any) ([]rulefile.Source, error) {
	var sources []rulefile.Source
	var errs []error
	for i, any := range resources {
		var c rls.RateLimitConfig
		if err := any.UnmarshalTo(&c); err != nil {
			errs = append(errs, fmt.Errorf("resources[%d]: %w", i, err))
			continue
		}
		// The same message gives the same bytes, which are compared to detect changes.
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(&c)
		if err != nil {
			errs = append(errs, fmt.Errorf("resources[%d] %q: %w", i, c.Name, err))
			continue
		}
		sources = append(sources, rulefile.Source{Name: "xds:" + c.Name, Data: data, Read: read, Origin: config.FromXDS})
	}
	return sources, errors.Join(errs...)
}

// read returns the domain of a resource.
func read(data []byte) (rulefile.Message, error) {
	var c rls.RateLimitConfig
	if err := proto.Unmarshal(data, &c); err != nil {
		return rulefile.Message{}, err
	}
	return rulefile.Message{Domain: c.Domain, Descriptors: func(yield func(*rulefile.Mapping) bool) {
		for _, d := range c.Descriptors {
			if !yield(descriptor(d)) {
				return
			}
		}
	}}, nil
}

func descriptor(d *rls.RateLimitDescriptor) *rulefile.Mapping {
	out := &rulefile.Mapping{}
	out.Set("key", rulefile.Text(d.Key))
	setText(out, "value", d.Value)
	setBool(out, "shadow_mode", d.ShadowMode)
	setBool(out, "detailed_metric", d.DetailedMetric)
	setBool(out, "quota_mode", d.QuotaMode)
	var rateLimit *rulefile.Mapping
	if d.RateLimit != nil {
		rateLimit = limit(d.RateLimit)
	}
	metadata := d.Metadata.GetFields()
	if extension := metadata[Extension].GetStructValue(); extension != nil {
		metadata = maps.Clone(metadata)
		delete(metadata, Extension)
		rateLimit = extend(out, rateLimit, extension.Fields)
	}
	if rateLimit != nil {
		out.Set("rate_limit", rateLimit.Value())
	}
	if len(metadata) > 0 {
		out.Set("metadata", fields(metadata))
	}
	if len(d.Descriptors) > 0 {
		below := make([]rulefile.Value, len(d.Descriptors))
		for i, d := range d.Descriptors {
			below[i] = descriptor(d).Value()
		}
		out.Set("descriptors", rulefile.List(below))
	}
	return out
}

// extend adds the extension's fields to the descriptor and to its limit, and returns the
// limit; nil for none. They replace the same fields of the message.
func extend(out, limit *rulefile.Mapping, extension map[string]*structpb.Value) *rulefile.Mapping {
	if _, exists := extension["window"]; exists && limit != nil {
		limit.Delete("unit")
	}
	for _, key := range slices.Sorted(maps.Keys(extension)) {
		if slices.Contains(ofDescriptor, key) {
			out.Set(key, value(extension[key]))
			continue
		}
		if limit == nil {
			limit = &rulefile.Mapping{}
		}
		limit.Set(key, value(extension[key]))
	}
	if _, several := extension["rate_limits"]; several && limit != nil && limit.Len() == 0 {
		return nil
	}
	return limit
}

func limit(p *rls.RateLimitPolicy) *rulefile.Mapping {
	out := &rulefile.Mapping{}
	setText(out, "name", p.Name)
	if p.Unit != rls.RateLimitUnit_UNKNOWN {
		out.Set("unit", rulefile.Text(strings.ToLower(p.Unit.String())))
	}
	if !p.Unlimited || p.RequestsPerUnit != 0 {
		out.Set("requests_per_unit", rulefile.Int(int64(p.RequestsPerUnit)))
	}
	setBool(out, "unlimited", p.Unlimited)
	if len(p.Replaces) > 0 {
		names := make([]rulefile.Value, len(p.Replaces))
		for i, r := range p.Replaces {
			var name rulefile.Mapping
			name.Set("name", rulefile.Text(r.Name))
			names[i] = name.Value()
		}
		out.Set("replaces", rulefile.List(names))
	}
	return out
}

// setText and setBool leave out zero values, which the message does not distinguish from
// absent fields.
func setText(out *rulefile.Mapping, key, s string) {
	if s != "" {
		out.Set(key, rulefile.Text(s))
	}
}

func setBool(out *rulefile.Mapping, key string, b bool) {
	if b {
		out.Set(key, rulefile.Bool(true))
	}
}

// value returns a value in the grammar. Whole numbers, which are doubles in the message,
// become integers.
func value(v *structpb.Value) rulefile.Value {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return rulefile.Text(kind.StringValue)
	case *structpb.Value_BoolValue:
		return rulefile.Bool(kind.BoolValue)
	case *structpb.Value_NumberValue:
		if n := kind.NumberValue; n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return rulefile.Int(int64(n))
		}
		return rulefile.Float(kind.NumberValue)
	case *structpb.Value_StructValue:
		return fields(kind.StructValue.GetFields())
	case *structpb.Value_ListValue:
		list := make([]rulefile.Value, len(kind.ListValue.GetValues()))
		for i, element := range kind.ListValue.GetValues() {
			list[i] = value(element)
		}
		return rulefile.List(list)
	}
	return rulefile.Null()
}

func fields(of map[string]*structpb.Value) rulefile.Value {
	var out rulefile.Mapping
	for _, key := range slices.Sorted(maps.Keys(of)) {
		out.Set(key, value(of[key]))
	}
	return out.Value()
}
