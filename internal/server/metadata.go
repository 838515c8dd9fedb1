package server

import (
	"iter"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/server/wire"
)

// metadata returns the answer's dynamic metadata; nil if there is none.
func (s *Service) metadata(r *limiter.Request) *structpb.Struct {
	var m *structpb.Struct
	if s.opts.DynamicMetadata {
		m = requestMetadata(r)
	}
	if !s.opts.WhyMetadata {
		return m
	}
	if why := whyMetadata(s.limiter.Reasons(r)); why != nil {
		if m == nil {
			m = &structpb.Struct{Fields: map[string]*structpb.Value{}}
		}
		m.Fields["why"] = structpb.NewStructValue(why)
	}
	return m
}

// whyMetadata lists the limits that a request is over; nil if there are none. An access
// log prints values by a path of keys, which cannot reach into a list. So the first
// refusal and the first verdict in shadow mode have keys of their own, beside the list of
// all.
func whyMetadata(reasons iter.Seq[limiter.Reason]) *structpb.Struct {
	var all []*structpb.Value
	fields := map[string]*structpb.Value{}
	for why := range reasons {
		value, verdict := structpb.NewStructValue(describeReason(&why)), why.Verdict().String()
		all = append(all, value)
		if fields[verdict] == nil {
			fields[verdict] = value
		}
	}
	if all == nil {
		return nil
	}
	fields["all"] = structpb.NewListValue(&structpb.ListValue{Values: all})
	return &structpb.Struct{Fields: fields}
}

func describeReason(why *limiter.Reason) *structpb.Struct {
	fields := map[string]*structpb.Value{
		"verdict":    structpb.NewStringValue(why.Verdict().String()),
		"descriptor": structpb.NewStringValue(descriptor.Entries(why.Entries).String()),
		"limit":      structpb.NewStringValue(why.Limit),
		"left":       structpb.NewNumberValue(float64(why.Remaining)),
	}
	for key, text := range map[string]string{"rule": why.Rule, "name": why.Name} {
		if text != "" {
			fields[key] = structpb.NewStringValue(text)
		}
	}
	if why.RetryAfter != algo.Never {
		fields["retry_after_seconds"] = structpb.NewNumberValue(float64(wire.Seconds(why.RetryAfter)))
	}
	return &structpb.Struct{Fields: fields}
}

// requestMetadata returns the metadata in the form of envoyproxy/ratelimit: domain,
// descriptors, hitsAddend, and under metadata that of the rules of the descriptors that
// passed. Of two values for one key, the earlier descriptor's wins.
func requestMetadata(r *limiter.Request) *structpb.Struct {
	fields := map[string]*structpb.Value{"domain": structpb.NewStringValue(r.Domain)}
	descriptors := make([]*structpb.Value, 0, len(r.Descriptors))
	for i := range r.Descriptors {
		descriptors = append(descriptors, structpb.NewStructValue(describe(r, &r.Descriptors[i])))
	}
	fields["descriptors"] = structpb.NewListValue(&structpb.ListValue{Values: descriptors})
	if r.Hits != 0 {
		fields["hitsAddend"] = structpb.NewNumberValue(float64(r.Hits))
	}
	// The values of rules are those of JSON, all of which a Struct can hold.
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
