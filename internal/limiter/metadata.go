package limiter

import (
	"maps"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// metadata returns the answer's dynamic metadata in the form that envoyproxy/ratelimit
// gives it: domain, descriptors, hitsAddend, and under metadata what the rules of
// the descriptors that passed bring, earlier ones first.
func (r *request) metadata() *structpb.Struct {
	fields := map[string]*structpb.Value{"domain": structpb.NewStringValue(r.domain)}
	descriptors := make([]*structpb.Value, 0, len(r.descriptors))
	for i := range r.descriptors {
		descriptors = append(descriptors, structpb.NewStructValue(r.describe(&r.descriptors[i])))
	}
	fields["descriptors"] = structpb.NewListValue(&structpb.ListValue{Values: descriptors})
	if r.hits != 0 {
		fields["hitsAddend"] = structpb.NewNumberValue(float64(r.hits))
	}
	passed := map[string]*structpb.Value{}
	for i := range r.descriptors {
		d := &r.descriptors[i]
		if !d.over && d.first < d.last && d.rule != nil {
			passed = merge(passed, d.rule.metadata.GetFields())
		}
	}
	if len(passed) > 0 {
		fields["metadata"] = structpb.NewStructValue(&structpb.Struct{Fields: passed})
	}
	return &structpb.Struct{Fields: fields}
}

func (r *request) describe(d *matched) *structpb.Struct {
	entries := make([]*structpb.Value, 0, d.count)
	for _, e := range r.entries[d.entries[0]:d.entries[1]] {
		entries = append(entries, structpb.NewStringValue(e.Key+"="+e.Value))
	}
	fields := map[string]*structpb.Value{"entries": structpb.NewListValue(&structpb.ListValue{Values: entries})}
	if d.hasLimit {
		fields["limit"] = structpb.NewStringValue(d.limit.message().String())
	}
	if d.hasHits {
		fields["hitsAddend"] = structpb.NewNumberValue(float64(d.asked.hits))
	}
	return &structpb.Struct{Fields: fields}
}

// message returns the override as a message of the protobuf library.
func (o override) message() *common.RateLimitDescriptor_RateLimitOverride {
	m := &common.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: o.requests, Unit: typev3.RateLimitUnit(o.unit)}
	if o.hasMultiplier {
		m.UnitMultiplier = wrapperspb.UInt32(o.multiplier)
	}
	return m
}

// merge returns a with what only b has; structs that both have are merged.
// Neither is changed, for they belong to the rules.
func merge(a, b map[string]*structpb.Value) map[string]*structpb.Value {
	out := maps.Clone(a)
	for k, v := range b {
		have, both := out[k]
		if !both {
			out[k] = v
			continue
		}
		if x, y := have.GetStructValue(), v.GetStructValue(); x != nil && y != nil {
			out[k] = structpb.NewStructValue(&structpb.Struct{Fields: merge(x.Fields, y.Fields)})
		}
	}
	return out
}
