package server

import (
	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/distlimiter/ratelimit/internal/limiter"
)

// metadata returns the answer's dynamic metadata in the form that envoyproxy/ratelimit
// gives it: domain, descriptors, hitsAddend, and under metadata what the rules of
// the descriptors that passed bring, earlier ones first.
func metadata(r *limiter.Request) *structpb.Struct {
	fields := map[string]*structpb.Value{"domain": structpb.NewStringValue(r.Domain)}
	descriptors := make([]*structpb.Value, 0, len(r.Descriptors))
	for i := range r.Descriptors {
		descriptors = append(descriptors, structpb.NewStructValue(describe(r, &r.Descriptors[i])))
	}
	fields["descriptors"] = structpb.NewListValue(&structpb.ListValue{Values: descriptors})
	if r.Hits != 0 {
		fields["hitsAddend"] = structpb.NewNumberValue(float64(r.Hits))
	}
	// The values of rules are like JSON's: there is nothing that a Struct can't hold.
	if passed, err := structpb.NewStruct(r.Metadata()); err == nil && len(passed.Fields) > 0 {
		fields["metadata"] = structpb.NewStructValue(passed)
	}
	return &structpb.Struct{Fields: fields}
}

func describe(r *limiter.Request, d *limiter.Descriptor) *structpb.Struct {
	entries := make([]*structpb.Value, 0, d.To-d.From)
	for _, e := range r.Entries[d.From:d.To] {
		entries = append(entries, structpb.NewStringValue(e.Key+"="+e.Value))
	}
	fields := map[string]*structpb.Value{"entries": structpb.NewListValue(&structpb.ListValue{Values: entries})}
	if d.Override != nil {
		fields["limit"] = structpb.NewStringValue(overrideMessage(d.Override).String())
	}
	if d.HasHits {
		fields["hitsAddend"] = structpb.NewNumberValue(float64(d.Hits))
	}
	return &structpb.Struct{Fields: fields}
}

// overrideMessage returns an override as a message of the protobuf library.
func overrideMessage(o *limiter.Override) *common.RateLimitDescriptor_RateLimitOverride {
	m := &common.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: o.RequestsPerUnit, Unit: typev3.RateLimitUnit(o.Unit)}
	if o.HasMultiplier {
		m.UnitMultiplier = wrapperspb.UInt32(o.UnitMultiplier)
	}
	return m
}
