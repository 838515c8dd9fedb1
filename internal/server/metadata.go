package server

import (
	"maps"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// metadata returns the answer's dynamic metadata in the form that envoyproxy/ratelimit
// gives it: domain, descriptors, hitsAddend, and under metadata what the rules of
// the descriptors that passed bring, earlier ones first.
func (r *request) metadata(msg *pb.RateLimitRequest, resp *pb.RateLimitResponse) *structpb.Struct {
	fields := map[string]*structpb.Value{"domain": structpb.NewStringValue(msg.Domain)}
	descriptors := make([]*structpb.Value, 0, len(msg.Descriptors))
	for _, d := range msg.Descriptors {
		descriptors = append(descriptors, structpb.NewStructValue(describe(d)))
	}
	fields["descriptors"] = structpb.NewListValue(&structpb.ListValue{Values: descriptors})
	if msg.HitsAddend != 0 {
		fields["hitsAddend"] = structpb.NewNumberValue(float64(msg.HitsAddend))
	}
	passed := map[string]*structpb.Value{}
	for i := range r.descriptors {
		d := &r.descriptors[i]
		if resp.Statuses[i].Code == pb.RateLimitResponse_OK && d.first < d.last && d.rule != nil {
			passed = merge(passed, d.rule.metadata.GetFields())
		}
	}
	if len(passed) > 0 {
		fields["metadata"] = structpb.NewStructValue(&structpb.Struct{Fields: passed})
	}
	return &structpb.Struct{Fields: fields}
}

func describe(d *common.RateLimitDescriptor) *structpb.Struct {
	entries := make([]*structpb.Value, 0, len(d.Entries))
	for _, e := range d.Entries {
		entries = append(entries, structpb.NewStringValue(e.GetKey()+"="+e.GetValue()))
	}
	fields := map[string]*structpb.Value{"entries": structpb.NewListValue(&structpb.ListValue{Values: entries})}
	if d.Limit != nil {
		fields["limit"] = structpb.NewStringValue(d.Limit.String())
	}
	if d.HitsAddend != nil {
		fields["hitsAddend"] = structpb.NewNumberValue(float64(d.HitsAddend.GetValue()))
	}
	return &structpb.Struct{Fields: fields}
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
