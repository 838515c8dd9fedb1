// Package wire reads and writes the messages of RateLimitService in their protobuf form,
// without messages of the protobuf library. It bounds the requests that it reads. What an
// answer has in it is for server to say.
package wire

import (
	"errors"
	"strings"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// Fields of RateLimitRequest and of the messages in it, as they are tagged on the
// wire.
const (
	requestDomain      = 1<<3 | uint64(protowire.BytesType)
	requestDescriptors = 2<<3 | uint64(protowire.BytesType)
	requestHits        = 3<<3 | uint64(protowire.VarintType)

	descriptorEntries  = 1<<3 | uint64(protowire.BytesType)
	descriptorLimit    = 2<<3 | uint64(protowire.BytesType)
	descriptorHits     = 3<<3 | uint64(protowire.BytesType)
	descriptorNegative = 4<<3 | uint64(protowire.VarintType)

	entryKey   = 1<<3 | uint64(protowire.BytesType)
	entryValue = 2<<3 | uint64(protowire.BytesType)

	limitRequests   = 1<<3 | uint64(protowire.VarintType)
	limitUnit       = 2<<3 | uint64(protowire.VarintType)
	limitMultiplier = 3<<3 | uint64(protowire.BytesType)

	wrapperValue = 1<<3 | uint64(protowire.VarintType)
)

var errWire = errors.New("the RateLimitRequest is not a protobuf message")

// Decode fills the empty r with the RateLimitRequest in b, which must not change until r is
// reset, because r's strings share its memory. It accepts and refuses the same messages as
// the protobuf library: fields come in any order, the last value of a singular field wins,
// embedded messages are merged, and unknown fields are skipped. But it accepts strings that
// are not UTF-8: see valid. If the request exceeds the bounds, tooLarge says which, and r
// keeps the descriptors and entries within them.
func Decode(b []byte, r *limiter.Request, bounds *Bounds) (tooLarge, err error) {
	d := decoder{request: r, bounds: bounds}
	var f field
	for len(b) > 0 {
		if b, err = f.cut(b); err != nil {
			return nil, err
		}
		switch f.tag {
		case requestDomain:
			r.Domain = valid(f.text())
		case requestDescriptors:
			err = d.descriptor(f.bytes)
		case requestHits:
			r.Hits = uint32(f.varint)
		}
		if err != nil {
			return nil, err
		}
	}
	return bounds.exceeded(d.descriptors, d.tooLarge), nil
}

// decoder holds what Decode counts.
type decoder struct {
	request     *limiter.Request
	bounds      *Bounds
	descriptors int   // those beyond the bound included
	tooLarge    error // why the first descriptor exceeds a bound
}

func (d *decoder) descriptor(b []byte) (err error) {
	r := d.request
	desc := r.AddDescriptor()
	entries, size := 0, 0
	var f field
	for len(b) > 0 {
		if b, err = f.cut(b); err != nil {
			return err
		}
		switch f.tag {
		case descriptorEntries:
			var e descriptor.Entry
			if e, err = decodeEntry(f.bytes); err != nil {
				return err
			}
			entries++
			size += len(e.Key) + len(e.Value) // as sent
			if entries <= d.bounds.Entries {
				r.Entries = append(r.Entries, descriptor.Entry{Key: valid(e.Key), Value: valid(e.Value)})
			}
		case descriptorLimit:
			if desc.Override == nil {
				desc.Override = new(limiter.Override)
			}
			err = decodeOverride(f.bytes, desc.Override)
		case descriptorHits:
			desc.HasHits = true
			err = decodeWrapper(f.bytes, &desc.Hits)
		case descriptorNegative:
			desc.Negative = protowire.DecodeBool(f.varint)
		}
		if err != nil {
			return err
		}
	}
	if d.descriptors++; d.descriptors > d.bounds.Descriptors {
		r.DropDescriptor()
		return nil
	}
	desc.To = len(r.Entries)
	if d.tooLarge == nil {
		d.tooLarge = d.bounds.excess(d.descriptors-1, entries, size)
	}
	return nil
}

// decodeEntry returns an entry whose texts may not be UTF-8.
func decodeEntry(b []byte) (e descriptor.Entry, err error) {
	var f field
	for len(b) > 0 {
		if b, err = f.cut(b); err != nil {
			return e, err
		}
		switch f.tag {
		case entryKey:
			e.Key = f.text()
		case entryValue:
			e.Value = f.text()
		}
	}
	return e, nil
}

func decodeOverride(b []byte, o *limiter.Override) (err error) {
	var f field
	for len(b) > 0 {
		if b, err = f.cut(b); err != nil {
			return err
		}
		switch f.tag {
		case limitRequests:
			o.RequestsPerUnit = uint32(f.varint)
		case limitUnit:
			o.Unit = config.Unit(f.varint)
		case limitMultiplier:
			o.HasMultiplier = true
			n := uint64(o.UnitMultiplier)
			err = decodeWrapper(f.bytes, &n)
			o.UnitMultiplier = uint32(n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// decodeWrapper reads a UInt64Value or UInt32Value into n. Without a value n is unchanged.
func decodeWrapper(b []byte, n *uint64) (err error) {
	var f field
	for len(b) > 0 {
		if b, err = f.cut(b); err != nil {
			return err
		}
		if f.tag == wrapperValue {
			*n = f.varint
		}
	}
	return nil
}

// field is a field of a message on the wire.
type field struct {
	tag    uint64 // its number and type
	varint uint64 // of one of VarintType
	bytes  []byte // of one of BytesType
}

// cut reads the field at the start of b and returns the rest of b.
func (f *field) cut(b []byte) ([]byte, error) {
	// Most fields are bytes with a number below 16 and a length below 128.
	if len(b) > 1 && b[0]&^0x78 == byte(protowire.BytesType) && b[0] > 7 && b[1] < 0x80 {
		if end := 2 + int(b[1]); end <= len(b) {
			f.tag, f.bytes = uint64(b[0]), b[2:end:end]
			return b[end:], nil
		}
	}
	tag, n := protowire.ConsumeVarint(b)
	if n < 0 {
		return nil, errWire
	}
	number := tag >> 3
	if number < uint64(protowire.MinValidNumber) || number > uint64(protowire.MaxValidNumber) {
		return nil, errWire
	}
	b = b[n:]
	f.tag = tag
	switch kind := protowire.Type(tag & 7); kind {
	case protowire.VarintType:
		f.varint, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(protowire.Number(number), kind, b)
	}
	if n < 0 {
		return nil, errWire
	}
	return b[n:], nil
}

// text returns the field's bytes as a string that shares their memory.
func (f *field) text() string {
	return unsafe.String(unsafe.SliceData(f.bytes), len(f.bytes))
}

// valid returns s with U+FFFD in place of each run of bytes that are not UTF-8. Clients
// choose such bytes: Envoy passes on any that a header may have. The protobuf library
// refuses the whole request for them. Envoy would then let it pass, in spite of all limits.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
