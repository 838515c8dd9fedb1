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
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/stats"
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

// FuzzDecodeFields does so on messages whose fields come in any order, several
// times, of another type, unknown, or cut off.
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

// drawVarint appends a number, of up to 11 bytes, which is one too many.
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
	r.clear()
	bounds := Bounds{Descriptors: 2, Entries: 2}
	if err := r.decode(b, &bounds); err != nil {
		t.Fatalf("%x: with bounds: %v", b, err)
	}
	if r.count != len(msg.Descriptors) || len(r.descriptors) != min(r.count, 2) {
		t.Errorf("%x: %d descriptors counted of %d, %d kept", b, r.count, len(msg.Descriptors), len(r.descriptors))
	}
	for i := range r.descriptors {
		d, entries := &r.descriptors[i], msg.Descriptors[i].Entries
		if kept := d.entries[1] - d.entries[0]; d.count != len(entries) || kept != min(d.count, 2) {
			t.Errorf("%x: descriptor %d: %d entries counted of %d, %d kept", b, i, d.count, len(entries), kept)
		}
	}
}

// message returns what was decoded as a message of the library.
func (r *request) message() *pb.RateLimitRequest {
	msg := &pb.RateLimitRequest{Domain: r.domain, HitsAddend: r.hits}
	for i := range r.descriptors {
		d := &r.descriptors[i]
		out := &common.RateLimitDescriptor{IsNegativeHits: d.negative}
		for _, e := range r.entries[d.entries[0]:d.entries[1]] {
			out.Entries = append(out.Entries, &common.RateLimitDescriptor_Entry{Key: e.Key, Value: e.Value})
		}
		if d.hasLimit {
			out.Limit = d.limit.message()
		}
		if d.hasHits {
			out.HitsAddend = wrapperspb.UInt64(d.asked.hits)
		}
		msg.Descriptors = append(msg.Descriptors, out)
	}
	return msg
}

// withoutUnknown drops fields that the library keeps though it does not know them.
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

// FuzzEncode compares the bytes of an answer with what the library makes of them.
func FuzzEncode(f *testing.F) { f.Fuzz(rapid.MakeFuzz(encodesWhatTheLibraryReads)) }

func TestEncode(t *testing.T) { rapid.Check(t, encodesWhatTheLibraryReads) }

func encodesWhatTheLibraryReads(t *rapid.T) {
	header := rapid.SampledFrom([]string{"", "x-ratelimit", "größe"})
	s := New(Options{
		Log: zap.NewNop(), Stats: stats.New(0), ShadowMode: rapid.Bool().Draw(t, "shadow mode"), DynamicMetadata: rapid.Bool().Draw(t, "metadata"),
		Headers: Headers{header.Draw(t, "limit"), header.Draw(t, "remaining"), header.Draw(t, "reset"), header.Draw(t, "retry after"), rapid.Bool().Draw(t, "draft")},
	})
	r := &request{domain: rapid.String().Draw(t, "domain"), hits: rapid.Uint32().Draw(t, "hits")}
	currents := make([]*pb.RateLimitResponse_RateLimit, 0, 4)
	for i := range rapid.IntRange(0, 4).Draw(t, "descriptors") {
		rule := &rule{unlimited: rapid.IntRange(0, 5).Draw(t, "unlimited") == 0, metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			fmt.Sprint(i): structpb.NewStringValue("of this rule"),
		}}}
		d := matched{rule: rule, stats: new(stats.Rule), role: rapid.SampledFrom([]backend.Role{backend.Required, backend.Shadow, backend.Quota}).Draw(t, "role")}
		d.entries[0], d.first = len(r.entries), len(r.limits)
		r.entries = append(r.entries, descriptor.Entry{Key: rapid.String().Draw(t, "key"), Value: rapid.String().Draw(t, "value")})
		current := &pb.RateLimitResponse_RateLimit{
			Name: rapid.String().Draw(t, "name"), RequestsPerUnit: rapid.Uint32().Draw(t, "requests"), Unit: pb.RateLimitResponse_RateLimit_Unit(rapid.Int32Range(0, 7).Draw(t, "unit")),
		}
		if n := rapid.Uint32().Draw(t, "multiplier"); n > 1 {
			current.UnitMultiplier = wrapperspb.UInt32(n)
		}
		currents = append(currents, current)
		if rapid.Bool().Draw(t, "limited") {
			a, err := algo.New(algo.Params{Limit: max(current.RequestsPerUnit, 1), Window: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			l := &limit{algo: a, name: current.Name, rawBody: []byte(rapid.String().Draw(t, "body"))}
			l.report(current.RequestsPerUnit, int32(current.Unit), current.UnitMultiplier.GetValue())
			r.limits = append(r.limits, l)
			wait := rapid.SampledFrom([]time.Duration{0, 1, time.Second, time.Hour, algo.Never})
			r.decisions = append(r.decisions, algo.Decision{
				Allowed: rapid.Bool().Draw(t, "allowed"), Remaining: rapid.Int64Range(-1, 1<<33).Draw(t, "left"),
				ResetAfter: wait.Draw(t, "reset"), RetryAfter: wait.Draw(t, "retry"),
			})
		}
		d.entries[1], d.last = len(r.entries), len(r.limits)
		r.descriptors = append(r.descriptors, d)
	}
	now := time.Now()
	prefix := []byte("before")
	o := s.judge(r)
	r.tally(o, now)
	data, found := bytes.CutPrefix(s.encode(prefix, r, o), prefix)
	if !found {
		t.Fatal("what was in the buffer is gone")
	}
	var got pb.RateLimitResponse
	if err := proto.Unmarshal(data, &got); err != nil {
		t.Fatalf("the library cannot read %x: %v", data, err)
	}
	want := answerOf(s, r, currents, o)
	if !proto.Equal(&got, want) {
		t.Errorf("got %s\nwant %s", protojson.Format(&got), protojson.Format(want))
	}
}

// answerOf returns the answer that judge leads to, as a message.
func answerOf(s *Service, r *request, currents []*pb.RateLimitResponse_RateLimit, o overall) *pb.RateLimitResponse {
	want := &pb.RateLimitResponse{OverallCode: code(o.over)}
	for i := range r.descriptors {
		d := &r.descriptors[i]
		st := &pb.RateLimitResponse_DescriptorStatus{Code: code(d.over), LimitRemaining: d.left}
		if d.reported != nil {
			st.CurrentLimit, st.DurationUntilReset = currents[i], &durationpb.Duration{Seconds: d.wait}
			if len(want.RawBody) == 0 && o.over && d.over {
				want.RawBody = d.reported.rawBody
			}
		}
		want.Statuses = append(want.Statuses, st)
	}
	if len(want.RawBody) == 0 {
		want.RawBody = nil
	}
	if s.opts.DynamicMetadata {
		want.DynamicMetadata = r.metadata()
	}
	if o.tightest < 0 {
		return want
	}
	h, v := s.opts.Headers, r.descriptors[o.tightest].verdict
	add := func(name, value string) {
		if name != "" {
			want.ResponseHeadersToAdd = append(want.ResponseHeadersToAdd, &core.HeaderValue{Key: name, Value: value})
		}
	}
	add(h.Limit, fmt.Sprint(v.reported.requests))
	add(h.Remaining, fmt.Sprint(v.left))
	add(h.Reset, fmt.Sprint(v.reset))
	if o.over && o.wait != algo.Never {
		add(h.RetryAfter, fmt.Sprint(seconds(o.wait)))
	}
	if h.Draft {
		policy, state := draft(&v)
		add("RateLimit-Policy", policy)
		add("RateLimit", state)
	}
	return want
}
