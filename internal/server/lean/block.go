package lean

import (
	"bufio"
	"bytes"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// block is a header block and its meaning. Most clients send the same block for each call,
// and to read it is a large part of the work for a call. It means the same again as long as
// no other block has changed the table of fields.
type block struct {
	bytes  []byte              // empty: none may come again
	fields []hpack.HeaderField // nil: not read yet
	head   head
}

// mostBlockBytes is the size of a block that is remembered.
const mostBlockBytes = 1 << 10

// peek is called before the payload of each frame is read from in. It reports whether that
// is a block whose meaning is known.
func (b *block) peek(h http2.FrameHeader, in *bufio.Reader) (known bool, err error) {
	if h.Type != http2.FrameHeaders && h.Type != http2.FrameContinuation {
		return false, nil
	}
	if h.Type != http2.FrameHeaders || h.Flags != http2.FlagHeadersEndHeaders || h.Length > mostBlockBytes || h.StreamID == 0 {
		b.bytes = b.bytes[:0] // it may change the table
		return false, nil
	}
	payload, err := in.Peek(int(h.Length))
	if err != nil {
		return false, err
	}
	if len(b.bytes) > 0 && bytes.Equal(payload, b.bytes) {
		return b.fields != nil, nil
	}
	b.bytes, b.fields = b.bytes[:0], nil
	if keepsTable(payload) {
		b.bytes = append(b.bytes, payload...)
	}
	return false, nil
}

// learn is called with the meaning of the last block, if it is in order.
func (b *block) learn(h *head, fields []hpack.HeaderField) {
	if len(b.bytes) > 0 {
		b.head, b.fields = *h, fields
	}
}

// keepsTable reports whether a header block leaves the table of fields as it is: it only
// refers to fields there, and has others that are not to be put there (RFC 7541, section 6).
func keepsTable(b []byte) bool {
	for len(b) > 0 {
		switch {
		case b[0]&0x80 != 0: // a field of the table
			_, b = cutInteger(b, 7)
		case b[0]&0x60 != 0: // a field for the table, or its new size
			return false
		default:
			var name int
			if name, b = cutInteger(b, 4); name == 0 {
				b = cutString(b)
			}
			b = cutString(b)
		}
	}
	return b != nil
}

// cutInteger returns an integer whose first byte has that many bits of it, and what follows
// (RFC 7541, section 5.1); nil if it is cut short or not small.
func cutInteger(b []byte, bits int) (n int, rest []byte) {
	most := 1<<bits - 1
	n = int(b[0]) & most
	if n < most {
		return n, b[1:]
	}
	if len(b) < 2 || b[1]&0x80 != 0 {
		return 0, nil
	}
	return n + int(b[1]), b[2:]
}

// cutString returns what follows a string; nil if it is cut short.
func cutString(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	n, rest := cutInteger(b, 7)
	if n > len(rest) {
		return nil
	}
	return rest[n:]
}
