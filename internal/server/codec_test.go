package server

import (
	"bytes"
	"fmt"
	"math"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

var unbounded = Bounds{Descriptors: math.MaxInt, Entries: math.MaxInt, EntryBytes: math.MaxInt}

// FuzzDecode compares decode with the protobuf library on arbitrary bytes.
func FuzzDecode(f *testing.F) {
	for _, m := range []*pb.RateLimitRequest{
		{},
		{Domain: "edge", HitsAddend: 3, Descriptors: []*common.RateLimitDescriptor{
			{Entries: []*common.RateLimitDescriptor_Entry{{Key: "user", Value: "alice"}, {Key: "path"}}},
			{IsNegativeHits: true, HitsAddend: wrapperspb.UInt64(math.MaxUint64), Limit: &common.RateLimitDescriptor_RateLimitOverride{
				RequestsPerUnit: 7, Unit: 3, UnitMultiplier: wrapperspb.UInt32(2),
			}},
		}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, 0x0a, 0xff))             // a length beyond the end
		f.Add(append(b, 0x0a, 0x01, 0xc3))       // half a character
		f.Add(append(b, 0x98, 0x80, 0x00, 0x05)) // a tag with more bytes than it needs
		f.Add(append(b, 0x7b, 0x08, 0x01, 0x7c)) // a group
		f.Add(append(b, 0x7b, 0x08, 0x01))       // a group without an end
		f.Add(append(b, 0x7c))                   // an end without a group
	}
	f.Fuzz(func(t *testing.T, b []byte) { decodesLikeTheLibrary(t, b) })
}

// FuzzDecodeFields does the same for messages with fields in any order, repeated, of
// another type, unknown, or cut off.
func FuzzDecodeFields(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { decodesLikeTheLibrary(t, drawMessage(t, requestFields)) }))
}

func TestDecodeFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { decodesLikeTheLibrary(t, drawMessage(t, requestFields)) })
}

// fields are a message type as drawMessage makes it.
type fields map[protowire.Number]any // a protowire.Type, or fields

var (
	wrapperFields = fields{1: protowire.VarintType}
	requestFields = fields{
		1: protowire.BytesType,
		2: fields{
			1: fields{1: protowire.BytesType, 2: protowire.BytesType},
			2: fields{1: protowire.VarintType, 2: protowire.VarintType, 3: wrapperFields},
			3: wrapperFields,
			4: protowire.VarintType,
		},
		3: protowire.VarintType,
	}
)

// drawMessage returns a message that is mostly of these fields.
func drawMessage(t *rapid.T, of fields) (b []byte) {
	for range rapid.IntRange(0, 6).Draw(t, "fields") {
		number := protowire.Number(rapid.IntRange(1, len(of)).Draw(t, "number"))
		kind := of[number]
		switch rapid.IntRange(0, 30).Draw(t, "oddity") {
		case 0: // unknown
			number, kind = protowire.Number(rapid.Int32Range(0, 1<<29+1).Draw(t, "unknown")), protowire.Type(rapid.IntRange(0, 7).Draw(t, "type"))
		case 1: // of another type
			kind = protowire.Type(rapid.IntRange(0, 7).Draw(t, "type"))
		case 2: // a number with more bytes than it needs
			b = append(b, byte(number<<3)|0x80, 0x80, 0)
			b = drawVarint(t, b)
			continue
		}
		if below, ok := kind.(fields); ok {
			b = protowire.AppendTag(b, number, protowire.BytesType)
			b = protowire.AppendBytes(b, drawMessage(t, below))
			continue
		}
		b = protowire.AppendVarint(b, uint64(number)<<3|uint64(kind.(protowire.Type)))
		switch kind {
		case protowire.VarintType:
			b = drawVarint(t, b)
		case protowire.Fixed32Type:
			b = append(b, make([]byte, 4)...)
		case protowire.Fixed64Type:
			b = append(b, make([]byte, 8)...)
		case protowire.BytesType:
			b = protowire.AppendBytes(b, rapid.OneOf(
				rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }), rapid.SliceOfN(rapid.Byte(), 0, 3)).Draw(t, "bytes"))
		case protowire.StartGroupType:
			b = append(b, drawMessage(t, of)...)
			b = protowire.AppendTag(b, number, protowire.EndGroupType)
		}
	}
	if rapid.IntRange(0, 20).Draw(t, "cut") == 0 {
		b = b[:rapid.IntRange(0, len(b)).Draw(t, "length")]
	}
	return b
}

// drawVarint appends a number of up to 11 bytes, one more than allowed.
func drawVarint(t *rapid.T, b []byte) []byte {
	if rapid.Bool().Draw(t, "minimal") {
		return protowire.AppendVarint(b, rapid.Uint64().Draw(t, "varint"))
	}
	for range rapid.IntRange(0, 10).Draw(t, "more") {
		b = append(b, rapid.Byte().Draw(t, "byte")|0x80)
	}
	return append(b, rapid.ByteRange(0, 3).Draw(t, "last"))
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

func decodesLikeTheLibrary(t failer, b []byte) {
	t.Helper()
	var msg pb.RateLimitRequest
	wantErr := proto.Unmarshal(b, &msg)
	var r request
	err := r.decode(b, &unbounded)
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("%x: got error %v, the library %v", b, err, wantErr)
	}
	if err != nil {
		return
	}
	withoutUnknown(&msg)
	if got := r.message(); !proto.Equal(got, &msg) {
		t.Fatalf("%x: got %s\nthe library %s", b, protojson.Format(got), protojson.Format(&msg))
	}
	r.reset()
	bounds := Bounds{Descriptors: 2, Entries: 2, EntryBytes: math.MaxInt}
	if err := r.decode(b, &bounds); err != nil {
		t.Fatalf("%x: with bounds: %v", b, err)
	}
	if r.count != len(msg.Descriptors) || len(r.Descriptors) != min(r.count, 2) {
		t.Errorf("%x: %d descriptors counted of %d, %d kept", b, r.count, len(msg.Descriptors), len(r.Descriptors))
	}
	var excess error
	kept := 0
	for i := range r.Descriptors {
		d, entries := &r.Descriptors[i], msg.Descriptors[i].Entries
		if kept += min(len(entries), 2); d.To-d.From != min(len(entries), 2) {
			t.Errorf("%x: descriptor %d: %d entries of %d kept", b, i, d.To-d.From, len(entries))
		}
		if len(entries) > 2 && excess == nil {
			excess = bounds.excess(i, len(entries), 0)
		}
	}
	if fmt.Sprint(r.excess) != fmt.Sprint(excess) || len(r.Entries) != kept {
		t.Errorf("%x: %v, want %v; %d entries kept, want %d", b, r.excess, excess, len(r.Entries), kept)
	}
}

// message returns the decoded request as a message of the library.
func (r *request) message() *pb.RateLimitRequest {
	msg := &pb.RateLimitRequest{Domain: r.Domain, HitsAddend: r.Hits}
	for i := range r.Descriptors {
		d := &r.Descriptors[i]
		out := &common.RateLimitDescriptor{IsNegativeHits: d.Negative}
		for _, e := range r.Entries[d.From:d.To] {
			out.Entries = append(out.Entries, &common.RateLimitDescriptor_Entry{Key: e.Key, Value: e.Value})
		}
		if d.Override != nil {
			out.Limit = overrideMessage(d.Override)
		}
		if d.HasHits {
			out.HitsAddend = wrapperspb.UInt64(d.Hits)
		}
		msg.Descriptors = append(msg.Descriptors, out)
	}
	return msg
}

// withoutUnknown drops unknown fields, which the library keeps.
func withoutUnknown(msg *pb.RateLimitRequest) {
	msg.ProtoReflect().SetUnknown(nil)
	for _, d := range msg.Descriptors {
		d.ProtoReflect().SetUnknown(nil)
		for _, e := range d.Entries {
			e.ProtoReflect().SetUnknown(nil)
		}
		if d.Limit != nil {
			d.Limit.ProtoReflect().SetUnknown(nil)
			if d.Limit.UnitMultiplier != nil {
				d.Limit.UnitMultiplier.ProtoReflect().SetUnknown(nil)
			}
		}
		if d.HitsAddend != nil {
			d.HitsAddend.ProtoReflect().SetUnknown(nil)
		}
	}
}

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
		l.Encoded = EncodeLimit(l)
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
			st.DurationUntilReset = &durationpb.Duration{Seconds: seconds(d.PassesAfter)}
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
	add(h.Reset, fmt.Sprint(seconds(st.ResetAfter)))
	if r.OverLimit && r.RetryAfter != algo.Never {
		add(h.RetryAfter, fmt.Sprint(seconds(r.RetryAfter)))
	}
	if h.Draft {
		policy, state := draft(st)
		add("RateLimit-Policy", policy)
		add("RateLimit", state)
	}
	return want
}
