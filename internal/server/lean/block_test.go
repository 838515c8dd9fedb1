package lean

import (
	"bytes"
	"encoding/hex"
	"slices"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// encoder makes header blocks as a client does that uses the table of fields.
type encoder struct {
	block bytes.Buffer
	*hpack.Encoder
}

func newEncoder() *encoder {
	e := new(encoder)
	e.Encoder = hpack.NewEncoder(&e.block)
	return e
}

func (e *encoder) encode(fields ...hpack.HeaderField) []byte {
	e.block.Reset()
	for _, f := range fields {
		_ = e.WriteField(f)
	}
	return bytes.Clone(e.block.Bytes())
}

// A block that came before means the same, unless another one has changed the table.
func TestABlockThatComesAgain(t *testing.T) {
	e := newEncoder()
	fields := fieldsWith("grpc-timeout", "1H")
	fields[2].Sensitive = true // the path, as Envoy sends it
	first, again := e.encode(fields...), e.encode(fields...)
	if keepsTable(first) || !keepsTable(again) {
		t.Fatal("the blocks are not as they should be")
	}
	shifts := e.encode(append(slices.Clone(fields), hpack.HeaderField{Name: "x", Value: "y"})...)
	resized := append([]byte{0x20, 0x3f, 0xe1, 0x1f}, first...) // forgets all, and begins anew
	ask := func(stream uint32, block []byte) []byte {
		return appendData(appendHeaders(nil, stream, block, false), stream, message("a"), true)
	}
	s, c := start(t, nil)
	for i, block := range [][]byte{first, again, again, shifts} {
		stream := uint32(2*i + 1)
		c.send(ask(stream, block))
		c.see(answered(stream, "a")...)
	}
	s.mu.Lock()
	for c := range s.conns {
		if len(c.known.bytes) > 0 {
			t.Error("a block is remembered from before the table was changed")
		}
	}
	s.mu.Unlock()
	c.send(ask(9, again)) // which refers to other fields now
	c.see("9 headers 400 13 no host or :authority header present end")
	for i, block := range [][]byte{resized, again, again} {
		stream := uint32(2*i + 11)
		c.send(ask(stream, block))
		c.see(answered(stream, "a")...)
	}
	// Nor does a stream that there was begin again.
	c.send(appendHeaders(nil, 15, again, false))
	c.see("goaway 15 STREAM_CLOSED", "closed")
}

// What Envoy 1.40 sends for its calls after the first, without and with its tracing.
func TestBlocksOfEnvoy(t *testing.T) {
	const path = "8304ab60b5773fa5d05b3b98855ec1a4b41a93257eecafb4692e735264ee2d9dcc42b1ba73db449b4692e735264f"
	for text, keeps := range map[string]bool{
		path + "c486c3c2c1c0bfbe": true,
		path + "c686c5c4c37f03a700166c85032e01c65f95a686490b2b8e4ad34118482706295691c90851c857df08c51c722c00ffc2c1c0bf": false,
	} {
		block, err := hex.DecodeString(text)
		if err != nil || keepsTable(block) != keeps {
			t.Errorf("%s: %v, want %v", text, err, keeps)
		}
	}
}

// A block that keeps the table leaves it as it was.
func FuzzKeepsTable(f *testing.F) {
	e := newEncoder()
	fields := fieldsWith("x", "y")
	f.Add(e.encode(fields...))
	f.Add(e.encode(fields...))
	fields[1].Sensitive = true
	f.Add(e.encode(fields...))
	f.Add([]byte{0x3f, 0xe1, 0x1f})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := hpack.NewDecoder(4096, nil)
		if _, err := d.DecodeFull(newEncoder().encode(fieldsWith("x", "y", "y", "z")...)); err != nil {
			t.Fatal(err)
		}
		table := []byte{62 | 0x80, 63 | 0x80, 64 | 0x80, 65 | 0x80}
		before, err := d.DecodeFull(table)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.DecodeFull(b); err != nil || !keepsTable(b) {
			return
		}
		if after, err := d.DecodeFull(table); err != nil || !slices.Equal(before, after) {
			t.Errorf("%x: %v %v, before %v", b, after, err, before)
		}
	})
}
