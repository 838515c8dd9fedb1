package wire

import (
	"fmt"
	"math"
	"strings"
	"testing"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/limiter"
)

var unbounded = Bounds{Descriptors: math.MaxInt, Entries: math.MaxInt, EntryBytes: math.MaxInt}

// FuzzDecode compares Decode with the protobuf library on arbitrary bytes. The library gets
// them with strings that are UTF-8.
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

// fields are a message type as drawMessage makes it. Those of BytesType are strings.
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
	wantErr := proto.Unmarshal(repaired(b, requestFields), &msg)
	var r limiter.Request
	_, err := Decode(b, &r, &unbounded)
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("%x: got error %v, the library %v", b, err, wantErr)
	}
	if err != nil {
		return
	}
	withoutUnknown(&msg)
	if got := messageOf(&r); !proto.Equal(got, &msg) {
		t.Fatalf("%x: got %s\nthe library %s", b, protojson.Format(got), protojson.Format(&msg))
	}
	r.Reset()
	bounds := Bounds{Descriptors: 2, Entries: 2, EntryBytes: math.MaxInt}
	tooLarge, err := Decode(b, &r, &bounds)
	if err != nil {
		t.Fatalf("%x: with bounds: %v", b, err)
	}
	if len(r.Descriptors) != min(len(msg.Descriptors), 2) {
		t.Errorf("%x: %d descriptors kept of %d", b, len(r.Descriptors), len(msg.Descriptors))
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
	if want := bounds.exceeded(len(msg.Descriptors), excess); fmt.Sprint(tooLarge) != fmt.Sprint(want) || len(r.Entries) != kept {
		t.Errorf("%x: %v, want %v; %d entries kept, want %d", b, tooLarge, want, len(r.Entries), kept)
	}
}

// repaired returns a message of these fields with strings that are UTF-8.
func repaired(b []byte, of fields) (out []byte) {
	for len(b) > 0 {
		number, kind, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			break
		}
		size := protowire.ConsumeFieldValue(number, kind, b[tag:])
		if size < 0 {
			break
		}
		value := b[tag:][:size]
		if kind == protowire.BytesType {
			text, _ := protowire.ConsumeBytes(value)
			switch what := of[number].(type) {
			case fields:
				value = protowire.AppendBytes(nil, repaired(text, what))
			case protowire.Type:
				if what == protowire.BytesType {
					value = protowire.AppendString(nil, strings.ToValidUTF8(string(text), "\uFFFD"))
				}
			}
		}
		out = append(append(out, b[:tag]...), value...)
		b = b[tag+size:]
	}
	return append(out, b...) // that is not a field
}

// messageOf returns a decoded request as a message of the library.
func messageOf(r *limiter.Request) *pb.RateLimitRequest {
	msg := &pb.RateLimitRequest{Domain: r.Domain, HitsAddend: r.Hits}
	for i := range r.Descriptors {
		d := &r.Descriptors[i]
		out := &common.RateLimitDescriptor{IsNegativeHits: d.Negative}
		for _, e := range r.Entries[d.From:d.To] {
			out.Entries = append(out.Entries, &common.RateLimitDescriptor_Entry{Key: e.Key, Value: e.Value})
		}
		if d.Override != nil {
			out.Limit = &common.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: d.Override.RequestsPerUnit, Unit: typev3.RateLimitUnit(d.Override.Unit)}
			if d.Override.HasMultiplier {
				out.Limit.UnitMultiplier = wrapperspb.UInt32(d.Override.UnitMultiplier)
			}
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

// TestBytesThatAreNotUTF8AreBoundedAsSent holds that a client makes no value larger by bytes
// for which others stand.
func TestBytesThatAreNotUTF8AreBoundedAsSent(t *testing.T) {
	entry := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), strings.Repeat("\xffx", 50))
	descriptor := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), entry)
	message := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), descriptor)
	var r limiter.Request
	tooLarge, err := Decode(message, &r, &Bounds{Descriptors: 1, Entries: 1, EntryBytes: 100})
	if err != nil || tooLarge != nil {
		t.Fatal(err, tooLarge)
	}
	if want := strings.Repeat("\uFFFDx", 50); r.Entries[0].Value != want {
		t.Errorf("got %q, want %q", r.Entries[0].Value, want)
	}
	if tooLarge, _ = Decode(message, new(limiter.Request), &Bounds{Descriptors: 1, Entries: 1, EntryBytes: 99}); tooLarge == nil {
		t.Error("100 bytes are within a bound of 99")
	}
}
