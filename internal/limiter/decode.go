package limiter

import (
	"errors"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/distlimiter/ratelimit/internal/descriptor"
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

// Errors of messages that are none.
var (
	errWire = errors.New("the RateLimitRequest is no protobuf message")
	errUTF8 = errors.New("the RateLimitRequest holds a string that is not UTF-8")
)

// decode fills the empty r with the RateLimitRequest in b, which must stay as it
// is until r is cleared, for r's strings are parts of it. It takes and refuses what
// the protobuf library does: fields in any order, the last of those that may be
// there once, embedded messages merged, and what it does not know skipped. What
// exceeds the bounds is checked and counted, but not kept.
func (r *request) decode(b []byte, bounds *Bounds) (err error) {
	var f field
	for len(b) > 0 {
		if b, err = f.cut(b); err != nil {
			return err
		}
		switch f.tag {
		case requestDomain:
			r.domain, err = f.text()
		case requestDescriptors:
			err = r.decodeDescriptor(f.bytes, bounds)
		case requestHits:
			r.hits = uint32(f.varint)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *request) decodeDescriptor(b []byte, bounds *Bounds) (err error) {
	from := len(r.entries)
	var d asked
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
			d.count++
			d.bytes += len(e.Key) + len(e.Value)
			if d.count <= bounds.Entries {
				r.entries = append(r.entries, e)
			}
		case descriptorLimit:
			d.hasLimit = true
			err = d.limit.decode(f.bytes)
		case descriptorHits:
			d.hasHits = true
			err = decodeWrapper(f.bytes, &d.hits)
		case descriptorNegative:
			d.negative = protowire.DecodeBool(f.varint)
		}
		if err != nil {
			return err
		}
	}
	if r.count++; r.count > bounds.Descriptors {
		r.entries = r.entries[:from]
		return nil
	}
	r.descriptors = append(r.descriptors, matched{asked: d, entries: [2]int{from, len(r.entries)}})
	return nil
}

func decodeEntry(b []byte) (e descriptor.Entry, err error) {
	var f field
	for len(b) > 0 {
		if b, err = f.cut(b); err != nil {
			return e, err
		}
		switch f.tag {
		case entryKey:
			e.Key, err = f.text()
		case entryValue:
			e.Value, err = f.text()
		}
		if err != nil {
			return e, err
		}
	}
	return e, nil
}

func (o *override) decode(b []byte) (err error) {
	var f field
	for len(b) > 0 {
		if b, err = f.cut(b); err != nil {
			return err
		}
		switch f.tag {
		case limitRequests:
			o.requests = uint32(f.varint)
		case limitUnit:
			o.unit = int32(f.varint)
		case limitMultiplier:
			o.hasMultiplier = true
			n := uint64(o.multiplier)
			err = decodeWrapper(f.bytes, &n)
			o.multiplier = uint32(n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// decodeWrapper reads a UInt64Value or UInt32Value; without a value n stays.
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

// cut reads the field that b begins with and returns what follows it.
func (f *field) cut(b []byte) ([]byte, error) {
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
func (f *field) text() (string, error) {
	if !utf8.Valid(f.bytes) {
		return "", errUTF8
	}
	return unsafe.String(unsafe.SliceData(f.bytes), len(f.bytes)), nil
}
