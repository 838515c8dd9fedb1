package front

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// script turns bytes into what a client sends: each byte chooses something.
type script struct {
	rest   []byte
	out    bytes.Buffer
	framer *http2.Framer
	block  bytes.Buffer
	encode *hpack.Encoder
	last   uint32
	open   []uint32
}

func newScript(b []byte) *script {
	s := &script{rest: b}
	s.framer = http2.NewFramer(&s.out, nil)
	s.framer.AllowIllegalWrites = true
	s.encode = hpack.NewEncoder(&s.block)
	s.out.WriteString(http2.ClientPreface)
	_ = s.framer.WriteSettings()
	return s
}

// next returns a number below n.
func (s *script) next(n int) int {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return int(b) % n
}

// oneOf mostly returns the first.
func oneOf[T any](s *script, values ...T) T {
	return values[max(0, s.next(3*len(values))-2*len(values))]
}

// run writes frames until the bytes are used up, and returns everything.
func (s *script) run() []byte {
	for len(s.rest) > 0 && s.last < 2*50 {
		switch s.next(8) {
		case 0, 1, 2:
			s.begin()
		case 3, 4, 5:
			s.data()
		case 6:
			if len(s.open) > 0 && s.next(4) == 0 {
				i := s.next(len(s.open))
				_ = s.framer.WriteRSTStream(s.open[i], oneOf(s, http2.ErrCodeCancel, http2.ErrCodeNo, http2.ErrCodeInternal))
				s.open = slices.Delete(s.open, i, i+1)
			}
		case 7:
			_ = s.framer.WritePriority(s.last+2, http2.PriorityParam{StreamDep: 0, Weight: byte(s.next(256))})
		}
	}
	for _, id := range s.open { // so that each call has an outcome
		_ = s.framer.WriteData(id, true, nil)
	}
	_ = s.framer.WritePing(false, [8]byte{'e', 'n', 'd'})
	return s.out.Bytes()
}

func (s *script) begin() {
	s.last += 2
	id := s.last - 1
	s.block.Reset()
	field := func(name, value string) {
		_ = s.encode.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: s.next(5) == 4})
	}
	field(":method", oneOf(s, "POST", "GET", "PUT"))
	field(":scheme", oneOf(s, "http", "https"))
	field(":path", oneOf(s, rls.RateLimitService_ShouldRateLimit_FullMethodName, "/grpc.health.v1.Health/Check", "/nowhere", "/a/b", rls.RateLimitService_ShouldRateLimit_FullMethodName+"x"))
	if s.next(8) != 7 {
		field(":authority", oneOf(s, "a", ""))
	}
	if s.next(8) != 7 {
		field("content-type", oneOf(s, "application/grpc", "application/grpc+proto", "application/grpc+json", "application/grpc;charset=x", "text/plain", ""))
	}
	field("te", "trailers")
	for range s.next(4) {
		switch s.next(7) {
		case 0:
			field("grpc-timeout", oneOf(s, "10S", "1H", "99999999H", "5", "x", "1000000000S", "0S", "10s", "10000m"))
		case 1:
			field("grpc-encoding", oneOf(s, "identity", "gzip", "nothing"))
		case 2:
			field("host", oneOf(s, "a", "b"))
		case 3:
			field("some-bin", oneOf(s, "AAEC", "!", ""))
		case 4:
			field("x-some", strings.Repeat("v", s.next(256)))
		case 5:
			field("grpc-accept-encoding", oneOf(s, "gzip", "identity"))
		case 6:
			field("content-type", "application/grpc")
		}
	}
	end := s.next(10) == 9
	_ = s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.block.Bytes(), EndHeaders: true, EndStream: end, PadLength: uint8(oneOf(s, 0, 7))})
	if !end {
		s.open = append(s.open, id)
	}
}

func (s *script) data() {
	if len(s.open) == 0 {
		return
	}
	i := s.next(len(s.open))
	id := s.open[i]
	message, _ := proto.Marshal(&rls.RateLimitRequest{Domain: oneOf(s, "d", "", "invalid", "details", "plain", "canceled", strings.Repeat("long ", 100)), HitsAddend: uint32(s.next(3))})
	message = append(message, oneOf(s, "", "\xff", "\x0a", "\x0a\x01\xff")...)
	prefix := binary.BigEndian.AppendUint32([]byte{byte(oneOf(s, 0, 1, 2))}, uint32(len(message)+oneOf(s, 0, 1, -1, 1<<20+1)))
	data := slices.Concat(prefix, message)
	data = append(data, oneOf(s, "", "x", "\x00\x00\x00\x00\x00")...)
	end := oneOf(s, true, false)
	if cut := oneOf(s, 0, 1, 3, 5, 6); cut > 0 {
		_ = s.framer.WriteData(id, false, data[:min(cut, len(data))])
		data = data[min(cut, len(data)):]
	}
	if padding := oneOf(s, 0, 3); padding > 0 {
		_ = s.framer.WriteDataPadded(id, end, data, make([]byte, padding))
	} else {
		_ = s.framer.WriteData(id, end, data)
	}
	if end {
		s.open = slices.Delete(s.open, i, i+1)
	}
}

// outcome is what a client learns of a call.
type outcome struct {
	fields map[string]string // of headers and trailers
	data   []byte
	reset  bool
	ended  bool
}

func (o *outcome) String() string {
	if o == nil {
		return "nothing"
	}
	if o.reset && !o.ended {
		return "reset"
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(o.fields)) {
		if name == "grpc-message" && o.fields[name] == "" {
			continue // grpc-go adds it without need
		}
		fmt.Fprintf(&b, "%s: %s; ", name, o.fields[name])
	}
	fmt.Fprintf(&b, "%q, ended: %v", o.data, o.ended)
	return b.String()
}

// outcomes sends what a client sends and returns the outcome of each stream, and whether the
// server kept the connection. It waits for the outcomes of calls.
func outcomes(address string, sent []byte, calls map[uint32]bool) (of map[uint32]*outcome, kept bool, err error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, false, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = c.Write(sent) // the server may end the connection
	}()
	defer func() { <-written }()
	of = make(map[uint32]*outcome)
	waits, ponged := maps.Clone(calls), false
	framer := http2.NewFramer(nil, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for !ponged || len(waits) > 0 {
		f, err := framer.ReadFrame()
		if err != nil {
			if _, timeout := errors.AsType[net.Error](err); timeout && !errors.Is(err, io.EOF) && strings.Contains(err.Error(), "timeout") {
				return of, false, fmt.Errorf("calls %v: %w", slices.Sorted(maps.Keys(waits)), err)
			}
			return of, false, nil
		}
		id := f.Header().StreamID
		if id != 0 && of[id] == nil {
			of[id] = &outcome{fields: make(map[string]string)}
		}
		o := of[id]
		switch f := f.(type) {
		case *http2.PingFrame:
			ponged = ponged || f.IsAck()
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				o.fields[field.Name] += field.Value
			}
			o.ended = o.ended || f.StreamEnded()
		case *http2.DataFrame:
			o.data = append(o.data, f.Data()...)
			o.ended = o.ended || f.StreamEnded()
		case *http2.RSTStreamFrame:
			o.reset = true
		}
		if o != nil && (o.ended || o.reset) {
			delete(waits, id)
		}
	}
	return of, true, nil
}

// Both fronts give each call of a client the same outcome, whatever the client sends.
func FuzzSameOutcomes(f *testing.F) {
	s := newService()
	ours, theirs := start(f, s.lean(f, modes["at once"])), start(f, s.grpc())
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte("\x01ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"))
	f.Add(make([]byte, 1000)) // the same call again and again
	f.Fuzz(func(t *testing.T, b []byte) {
		script := newScript(b)
		sent := script.run()
		calls := callsOf(sent)
		got, gotKept, err := outcomes(ours, sent, calls)
		want, wantKept, err2 := outcomes(theirs, sent, calls)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if gotKept != wantKept {
			t.Fatalf("kept: %v, want %v", gotKept, wantKept)
		}
		for id := range calls {
			if g, w := got[id].String(), want[id].String(); g != w && gotKept {
				t.Errorf("stream %d:\n%s\nwant\n%s", id, g, w)
			}
		}
	})
}

// callsOf returns the streams that a client begins and does not reset, which have an outcome.
func callsOf(sent []byte) map[uint32]bool {
	calls := make(map[uint32]bool)
	eachFrame(sent, func(f http2.FrameHeader) {
		switch f.Type { //nolint:exhaustive // the others begin and end no stream
		case http2.FrameHeaders:
			calls[f.StreamID] = true
		case http2.FrameRSTStream:
			delete(calls, f.StreamID)
		}
	})
	return calls
}

func eachFrame(sent []byte, visit func(http2.FrameHeader)) {
	b := sent[len(http2.ClientPreface):]
	for len(b) >= 9 {
		f, err := http2.ReadFrameHeader(bytes.NewReader(b))
		if err != nil {
			return
		}
		visit(f)
		b = b[9+f.Length:]
	}
}

// callFields and callMessage are those of a call that asks for "d".
var callFields = [][2]string{
	{":method", "POST"}, {":scheme", "http"}, {":path", rls.RateLimitService_ShouldRateLimit_FullMethodName}, {":authority", "a"},
	{"content-type", "application/grpc"}, {"te", "trailers"},
}

const callMessage = "\x00\x00\x00\x00\x03\x0a\x01d"

// goodCall is what a client sends for one call.
func goodCall() []byte {
	s := newScript(nil)
	for _, f := range callFields {
		_ = s.encode.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_ = s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: s.block.Bytes(), EndHeaders: true})
	_ = s.framer.WriteData(1, true, []byte(callMessage))
	return s.run()
}

// Whatever a client sends after the preface, the server answers a ping or ends the connection,
// and goes on serving others.
func FuzzBytes(f *testing.F) {
	s := newService()
	address := start(f, s.lean(f, modes["at once"]))
	f.Add([]byte{}, uint8(0))
	good := goodCall()
	f.Add(good[len(http2.ClientPreface):], uint8(9))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		sent := append([]byte(http2.ClientPreface), 0, 0, 0, 4, 0, 0, 0, 0, 0)
		sent = append(sent, b[:len(b)-min(len(b), int(cut))]...)
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			_, _ = c.Write(sent)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Error("the server neither answers nor ends the connection")
		}
		_ = c.Close()
		if of, kept, err := outcomes(address, good, map[uint32]bool{1: true}); err != nil || !kept || of[1].fields["grpc-status"] != "0" {
			t.Errorf("a call after it: %v %v %v", of[1], kept, err)
		}
	})
}
