package server

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/server/wire"
)

// FuzzEncode compares the bytes of an answer with those of the library.
func FuzzEncode(f *testing.F) { f.Fuzz(rapid.MakeFuzz(encodesWhatTheLibraryReads)) }

func TestEncode(t *testing.T) { rapid.Check(t, encodesWhatTheLibraryReads) }

func encodesWhatTheLibraryReads(t *rapid.T) {
	header := rapid.SampledFrom([]string{"", "x-ratelimit", "größe"})
	s := New(nil, Options{
		DynamicMetadata: rapid.Bool().Draw(t, "metadata"),
		Headers:         Headers{header.Draw(t, "limit"), header.Draw(t, "remaining"), header.Draw(t, "reset"), header.Draw(t, "retry after"), rapid.Bool().Draw(t, "draft"), ""},
	})
	r := new(limiter.Request)
	r.Domain, r.Hits = rapid.String().Draw(t, "domain"), rapid.Uint32().Draw(t, "hits")
	wait := rapid.SampledFrom([]time.Duration{0, 1, time.Second, time.Hour})
	for range rapid.IntRange(0, 4).Draw(t, "descriptors") {
		d := r.AddDescriptor(descriptor.Entry{Key: rapid.String().Draw(t, "key"), Value: rapid.String().Draw(t, "value")})
		d.Remaining = rapid.Uint32().Draw(t, "left")
		if !rapid.Bool().Draw(t, "limited") {
			continue
		}
		d.OverLimit = rapid.Bool().Draw(t, "over limit")
		d.ResetAfter, d.PassesAfter = wait.Draw(t, "reset"), wait.Draw(t, "passes")
		d.Limit = drawLimit(t)
	}
	if len(r.Descriptors) > 0 {
		if st := &r.Descriptors[rapid.IntRange(0, len(r.Descriptors)-1).Draw(t, "minimum")].Status; st.Limit != nil {
			r.Minimum = st
		}
	}
	r.OverLimit = rapid.Bool().Draw(t, "over limit")
	r.RetryAfter = rapid.SampledFrom([]time.Duration{0, 1, time.Second, algo.Never}).Draw(t, "retry")

	prefix := []byte("before")
	data, found := bytes.CutPrefix(s.encode(prefix, r), prefix)
	if !found {
		t.Fatal("what was in the buffer is gone")
	}
	var got pb.RateLimitResponse
	if err := proto.Unmarshal(data, &got); err != nil {
		t.Fatalf("the library cannot read %x: %v", data, err)
	}
	want := messageOf(s, r)
	if !proto.Equal(&got, want) {
		t.Errorf("got %s\nwant %s", protojson.Format(&got), protojson.Format(want))
	}
}

// drawLimit draws a limit, encoded beforehand or not.
func drawLimit(t *rapid.T) *limiter.Limit {
	l := &limiter.Limit{
		Name: rapid.String().Draw(t, "name"), RequestsPerUnit: rapid.Uint32().Draw(t, "requests"),
		Unit: config.Unit(rapid.Int32Range(0, 7).Draw(t, "unit")), UnitMultiplier: rapid.Uint32().Draw(t, "multiplier"),
		RawBody: []byte(rapid.String().Draw(t, "body")),
	}
	var err error
	if l.Algo, err = algo.New(algo.Params{Limit: max(l.RequestsPerUnit, 1), Window: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if rapid.Bool().Draw(t, "encoded") {
		l.Encoded = wire.EncodeLimit(l)
	}
	return l
}

// messageOf returns the answer to a decided request as a message.
func messageOf(s *Service, r *limiter.Request) *pb.RateLimitResponse {
	want := &pb.RateLimitResponse{OverallCode: code(r.OverLimit)}
	for i := range r.Descriptors {
		d := &r.Descriptors[i]
		st := &pb.RateLimitResponse_DescriptorStatus{Code: code(d.OverLimit), LimitRemaining: d.Remaining}
		if l := d.Limit; l != nil {
			st.CurrentLimit = &pb.RateLimitResponse_RateLimit{Name: l.Name, RequestsPerUnit: l.RequestsPerUnit, Unit: pb.RateLimitResponse_RateLimit_Unit(l.Unit)}
			if l.UnitMultiplier > 1 {
				st.CurrentLimit.UnitMultiplier = wrapperspb.UInt32(l.UnitMultiplier)
			}
			st.DurationUntilReset = &durationpb.Duration{Seconds: wire.Seconds(d.PassesAfter)}
			if len(want.RawBody) == 0 && r.OverLimit && d.OverLimit && len(l.RawBody) > 0 {
				want.RawBody = l.RawBody
			}
		}
		want.Statuses = append(want.Statuses, st)
	}
	if s.opts.DynamicMetadata {
		want.DynamicMetadata = requestMetadata(r)
	}
	if r.Minimum == nil {
		return want
	}
	add := func(name, value string) {
		if name != "" {
			want.ResponseHeadersToAdd = append(want.ResponseHeadersToAdd, &core.HeaderValue{Key: name, Value: value})
		}
	}
	h, st := s.opts.Headers, r.Minimum
	add(h.Limit, fmt.Sprint(st.Limit.RequestsPerUnit))
	add(h.Remaining, fmt.Sprint(st.Remaining))
	add(h.Reset, fmt.Sprint(wire.Seconds(st.ResetAfter)))
	if r.OverLimit && r.RetryAfter != algo.Never {
		add(h.RetryAfter, fmt.Sprint(wire.Seconds(r.RetryAfter)))
	}
	if h.Draft {
		policy, state := draft(st)
		add("RateLimit-Policy", policy)
		add("RateLimit", state)
	}
	return want
}

func code(over bool) pb.RateLimitResponse_Code {
	if over {
		return pb.RateLimitResponse_OVER_LIMIT
	}
	return pb.RateLimitResponse_OK
}
