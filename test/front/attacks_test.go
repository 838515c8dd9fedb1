package front

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"github.com/distlimiter/ratelimit/internal/server/lean"
)

// A call whose stream is reset runs to its end. Until then it counts, whether the client
// reset it (CVE-2023-44487) or the server did for what the client sent (CVE-2025-8671).
func TestCallsThatAreResetStillCount(t *testing.T) {
	const most = 10
	for name, reset := range map[string]func(c *client, stream uint32){
		"by the client":              func(c *client, stream uint32) { _ = c.WriteRSTStream(stream, http2.ErrCodeCancel) },
		"a window that is too large": func(c *client, stream uint32) { _ = c.WriteWindowUpdate(stream, 1<<31-1) },
		"a window update of 0": func(c *client, stream uint32) {
			_ = c.WriteRawFrame(http2.FrameWindowUpdate, 0, stream, make([]byte, 4))
		},
		"a stream that depends on itself": func(c *client, stream uint32) { _ = c.WritePriority(stream, http2.PriorityParam{StreamDep: stream}) },
		"data after the end":              func(c *client, stream uint32) { _ = c.WriteData(stream, true, []byte("x")) },
		"header fields after the end":     func(c *client, stream uint32) { c.begin(stream, callFields) },
	} {
		t.Run(name, func(t *testing.T) {
			var running, peak atomic.Int64
			release := make(chan struct{})
			l := newService().lean(t, func(o *lean.Options) {
				o.Waits, o.MaxStreams = true, most
				o.Answer = func(_ context.Context, out, _ []byte) ([]byte, error) {
					n := running.Add(1)
					for old := peak.Load(); n > old && !peak.CompareAndSwap(old, n); old = peak.Load() {
					}
					<-release
					running.Add(-1)
					return out, nil
				}
			})
			c := connect(t, l)
			refused := 0
			for stream := uint32(1); stream < 2*100; stream += 2 {
				c.call(stream)
				if stream < 2*most { // the others are refused
					reset(c, stream)
				}
			}
			_ = c.WritePing(false, [8]byte{})
			c.send()
			c.next(func(f http2.Frame) bool {
				if r, is := f.(*http2.RSTStreamFrame); is && r.ErrCode == http2.ErrCodeRefusedStream {
					refused++
				}
				return ofType[*http2.PingFrame](f)
			})
			close(release)
			if refused != 100-most {
				t.Errorf("%d were refused of 100, want all but %d", refused, most)
			}
			l.Stop()
			if n := peak.Load(); n > most {
				t.Errorf("%d ran at a time", n)
			}
		})
	}
}

// Streams that are opened and reset start nothing (CVE-2023-44487). A client may give up
// each of its calls, but not ask for what is malformed again and again.
func TestRapidResets(t *testing.T) {
	rapid := func(t *testing.T, fields [][2]string) (c *client, asked *atomic.Int64) {
		asked = new(atomic.Int64)
		c = speak(t, pipe(t, newService().lean(t, func(o *lean.Options) {
			o.Answer = func(_ context.Context, out, _ []byte) ([]byte, error) { asked.Add(1); return out, nil }
		}))())
		for stream := uint32(1); stream < 2*30_000; stream += 2 {
			c.begin(stream, fields)
			_ = c.WriteRSTStream(stream, http2.ErrCodeCancel)
		}
		_ = c.WritePing(false, end)
		c.send()
		return c, asked
	}
	inBubble(t, "of calls", func(t *testing.T) {
		c, asked := rapid(t, callFields)
		f := c.next(func(f http2.Frame) bool { return ofType[*http2.PingFrame](f) || ofType[*http2.GoAwayFrame](f) })
		if !ofType[*http2.PingFrame](f) || asked.Load() > 0 {
			t.Errorf("got %v after %d decisions", f, asked.Load())
		}
	})
	inBubble(t, "malformed", func(t *testing.T) {
		c, _ := rapid(t, callFields[1:])
		c.seeCalm()
	})
}

// inBubble runs a subtest with a clock of its own, which stands still while anything runs.
func inBubble(t *testing.T, name string, test func(*testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// A header block ends, whatever its frames hold (CVE-2023-45288, CVE-2019-9518).
func TestHeaderBlocksAreBounded(t *testing.T) {
	filler := func(value string) []byte {
		var block bytes.Buffer
		_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: "x", Value: value, Sensitive: true})
		return block.Bytes()
	}
	for name, test := range map[string]struct {
		block []byte
		code  http2.ErrCode
	}{
		"nothing":         {nil, http2.ErrCodeEnhanceYourCalm},
		"fields":          {filler("y"), http2.ErrCodeProtocol},
		"long fields":     {filler(strings.Repeat("y", 16000)), http2.ErrCodeProtocol},
		"malformed field": {filler("\n"), http2.ErrCodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, newService().lean(t, modes["at once"]))
			go func() {
				_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: test.block})
				for range 100_000 {
					_ = c.WriteContinuation(1, false, test.block)
					if c.out.Len() > 30000 {
						if _, err := c.conn.Write(c.out.Bytes()); err != nil {
							return
						}
						c.out.Reset()
					}
				}
			}()
			f, _ := c.next(ofType[*http2.GoAwayFrame]).(*http2.GoAwayFrame)
			if f == nil || f.ErrCode != test.code {
				t.Errorf("got %v", f)
			}
		})
	}
}

// Both sides have the same table of fields after calls that were refused, whatever for.
func TestRefusedCallsKeepTheTableOfFields(t *testing.T) {
	l := newService().lean(t, func(o *lean.Options) { o.MaxStreams = 1 })
	c := connect(t, l)
	var block bytes.Buffer
	encode := hpack.NewEncoder(&block)
	stream := uint32(1)
	begin := func(fields [][2]string, more ...string) {
		block.Reset()
		for _, f := range fields {
			_ = encode.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		for i := 0; i < len(more); i += 2 {
			_ = encode.WriteField(hpack.HeaderField{Name: more[i], Value: more[i+1]})
		}
		rest := block.Bytes()
		first := rest[:min(len(rest), 16384)]
		rest = rest[len(first):]
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndHeaders: len(rest) == 0})
		for len(rest) > 0 {
			part := rest[:min(len(rest), 16384)]
			rest = rest[len(part):]
			_ = c.WriteContinuation(stream, len(rest) == 0, part)
		}
		stream += 2
	}
	begin(callFields, "x-first", "a") // has the one stream that there may be
	begin(callFields, "x-refused", "b")
	begin(callFields, "Upper", "c", "x-after", "d")
	begin(callFields[1:], "x-no-method", "e")
	begin(callFields, "connection", "close", "x-hop", "f")
	begin(callFields, "x-long", strings.Repeat("y", 60<<10), "x-last", strings.Repeat("z", 3000), "x-index", "g")
	_ = c.WriteData(1, true, []byte(callMessage))
	begin(callFields, "x-index", "g", "x-refused", "b", "x-after", "d", "x-hop", "f")
	last := stream - 2
	_ = c.WriteData(last, true, []byte(callMessage))
	c.send()
	f := c.next(func(f http2.Frame) bool {
		h, is := f.(*http2.MetaHeadersFrame)
		return is && h.StreamID == last || ofType[*http2.GoAwayFrame](f)
	})
	if h, is := f.(*http2.MetaHeadersFrame); !is || h.PseudoValue("status") != "200" {
		t.Errorf("got %v", f)
	}
}

// A client with a smaller table of fields is told so by the first header block, which some
// clients insist on, also if that is of an error.
func TestTheFirstHeaderBlockNamesTheTableSize(t *testing.T) {
	for name, err := range map[string]error{"an answer": nil, "an error": errors.New("boom")} {
		eachMode(t, func(t *testing.T, _ *service, l *lean.Server) {
			l.Answer = func(_ context.Context, out, _ []byte) ([]byte, error) { return out, err }
			c := connect(t, l, setting(http2.SettingHeaderTableSize, 0))
			c.ReadMetaHeaders = nil
			for stream := uint32(1); stream < 5; stream += 2 {
				c.call(stream)
				c.send()
				h := c.next(ofType[*http2.HeadersFrame]).(*http2.HeadersFrame)
				if told := h.HeaderBlockFragment()[0] == 0x20; told != (stream == 1) {
					t.Errorf("%s: the block of stream %d begins with %#x", name, stream, h.HeaderBlockFragment()[0])
				}
				if err == nil {
					c.next(ofType[*http2.HeadersFrame]) // its trailer
				}
			}
		})
	}
}

// pipeListener has connections in memory, on which a write waits for its reader.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (*pipeListener) Addr() net.Addr { return &net.UnixAddr{} }

// pipe serves connections in memory, and returns one at a time.
func pipe(t *testing.T, l *lean.Server) (dial func() net.Conn) {
	p := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	go func() { _ = l.Serve(p) }()
	t.Cleanup(l.Stop)
	return func() net.Conn {
		ours, theirs := net.Pipe()
		p.conns <- theirs
		e := eager{ours, make(chan []byte, 10)}
		go func() {
			for b := range e.writes {
				_, _ = ours.Write(b)
			}
		}()
		t.Cleanup(func() {
			_ = ours.Close()
			close(e.writes)
		})
		return e
	}
}

// eager is the client's end of a connection in memory, on which only the server waits.
type eager struct {
	net.Conn
	writes chan []byte
}

func (e eager) Write(b []byte) (int, error) {
	e.writes <- slices.Clone(b)
	return len(b), nil
}

// isPing reports whether the frame asks for an answer.
func isPing(f http2.Frame) bool { p, is := f.(*http2.PingFrame); return is && !p.IsAck() }

// takeAndStop begins a connection, takes what comes first, and never reads again.
func takeAndStop(t *testing.T, conn net.Conn) *client {
	c := speak(t, conn)
	c.next(ofType[*http2.WindowUpdateFrame])
	c.next(func(f http2.Frame) bool { s, is := f.(*http2.SettingsFrame); return is && s.IsAck() })
	return c
}

// Clients that do not take what is sent to them are closed. Meanwhile the others are
// looked after (CVE-2019-9511, CVE-2019-9517).
func TestAClientThatReadsNothingHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newService().lean(t, func(o *lean.Options) {
			o.Keepalive = keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 10 * time.Minute}
		})
		dial := pipe(t, l)
		var stuck []net.Conn
		for range 5 {
			stuck = append(stuck, takeAndStop(t, dial()).conn)
		}
		c := speak(t, dial())
		_ = c.conn.SetDeadline(time.Now().Add(time.Hour))
		for range 5 {
			ping := c.next(isPing)
			_ = c.WritePing(true, ping.(*http2.PingFrame).Data)
			c.send()
		}
		for _, conn := range stuck {
			if n, err := conn.Read(make([]byte, 100)); !errors.Is(err, io.EOF) {
				t.Errorf("a connection that takes nothing: %d bytes, %v", n, err)
			}
		}
	})
}

func TestADrainReachesEachClient(t *testing.T) {
	l := newService().lean(t, modes["at once"])
	dial := pipe(t, l)
	for range 5 {
		stuck := takeAndStop(t, dial())
		stuck.call(1)
		stuck.send()
	}
	c := speak(t, dial())
	c.next(ofType[*http2.WindowUpdateFrame])
	go l.GracefulStop()
	if f := c.next(ofType[*http2.GoAwayFrame]); f == nil {
		t.Error("the connection ended without a GOAWAY")
	}
}

// A client that spoke instead of answering a ping is asked again when it is silent.
func TestAClientThatOwesAPingIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newService().lean(t, func(o *lean.Options) {
			o.Keepalive = keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}
		})
		c := speak(t, pipe(t, l)())
		_ = c.conn.SetDeadline(time.Now().Add(time.Minute))
		c.next(isPing)
		time.Sleep(2 * time.Second) // of the test's clock
		c.call(1)
		c.send()
		if c.next(isPing) == nil {
			t.Error("closed although it spoke")
		}
		if f := c.next(func(http2.Frame) bool { return true }); f != nil {
			t.Errorf("got %v, want the end of the connection", f)
		}
	})
}

// What was told that it is not taken stays so, whatever comes after.
func TestTheLastGoAwayTakesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newService().lean(t, func(o *lean.Options) { o.Keepalive.MaxConnectionAge = 100 * time.Millisecond })
		c := speak(t, pipe(t, l)())
		c.begin(1, callFields) // keeps the connection
		c.send()
		c.next(ofType[*http2.GoAwayFrame])
		ping := c.next(ofType[*http2.PingFrame]).(*http2.PingFrame)
		_ = c.WritePing(true, ping.Data)
		c.send()
		c.next(ofType[*http2.GoAwayFrame])
		c.call(3) // the client does not know yet
		c.AllowIllegalWrites = true
		_ = c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 3, nil) // nor with its trailer
		_ = c.WritePing(false, [8]byte{1})
		c.send()
		if f := c.next(func(f http2.Frame) bool { return ofType[*http2.PingFrame](f) || ofType[*http2.GoAwayFrame](f) }); !ofType[*http2.PingFrame](f) {
			t.Fatalf("got %v", f)
		}
		_ = c.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7))
		c.send()
		f, _ := c.next(ofType[*http2.GoAwayFrame]).(*http2.GoAwayFrame)
		if f == nil || f.ErrCode != http2.ErrCodeFrameSize || f.LastStreamID != 1 {
			t.Errorf("got %v", f)
		}
	})
}

// message returns what a client sends for a message.
func message(t *testing.T, m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{0, 0, 0, byte(len(b) >> 8), byte(len(b))}, b...)
}

// ask begins a call of a method that grpc-go serves.
func (c *client) ask(stream uint32, method string) {
	fields := slices.Clone(callFields)
	fields[2] = [2]string{":path", "/grpc.testing.TestService/" + method}
	c.begin(stream, fields)
}

// answerOf returns a request for an answer of size bytes.
func (c *client) answerOf(size int) []byte {
	return message(c.t, &grpc_testing.StreamingOutputCallRequest{ResponseParameters: []*grpc_testing.ResponseParameters{{Size: int32(size)}}})
}

// ends returns the frame that ends the stream.
func (c *client) ends(stream uint32) http2.Frame {
	return c.next(func(f http2.Frame) bool {
		h, is := f.(*http2.MetaHeadersFrame)
		return f.Header().StreamID == stream && (is && h.StreamEnded() || ofType[*http2.RSTStreamFrame](f))
	})
}

// narrow returns a client that has little room left for DATA, after an answer from grpc-go.
func narrow(t *testing.T) *client {
	c := connect(t, newService().lean(t, modes["at once"]), setting(http2.SettingInitialWindowSize, 1<<20))
	c.ask(1, "StreamingOutputCall")
	_ = c.WriteData(1, true, c.answerOf(65000))
	c.send()
	c.ends(1)
	return c
}

// An answer that a client gives up while it waits for the client's window takes nothing
// from those to come.
func TestAnswersThatAreGivenUpLeaveTheirWindow(t *testing.T) {
	c := narrow(t)
	for stream := uint32(3); stream < 2*8; stream += 2 {
		c.ask(stream, "StreamingOutputCall")
		_ = c.WriteData(stream, true, c.answerOf(16000))
		c.send()
		c.next(func(f http2.Frame) bool { return f.Header().StreamID == stream && ofType[*http2.MetaHeadersFrame](f) })
	}
	c.ask(17, "Nothing") // is answered after them
	_ = c.WriteData(17, true, nil)
	c.send()
	c.ends(17)
	for stream := uint32(3); stream < 2*8; stream += 2 {
		_ = c.WriteRSTStream(stream, http2.ErrCodeCancel)
	}
	_ = c.WriteWindowUpdate(0, 1<<20)
	c.ask(19, "StreamingOutputCall")
	_ = c.WriteData(19, true, c.answerOf(50000))
	c.send()
	if f := c.ends(19); !ofType[*http2.MetaHeadersFrame](f) {
		t.Errorf("got %v", f)
	}
}

// grpc-go resets a stream that its client has not ended, after the answer. The answer
// still waits for the client's window, and is not lost.
func TestAnEarlyAnswerWaitsForTheWindow(t *testing.T) {
	c := narrow(t)
	c.ask(3, "FullDuplexCall")
	_ = c.WriteData(3, false, c.answerOf(10000))
	c.send()
	c.next(func(f http2.Frame) bool { return f.Header().StreamID == 3 && ofType[*http2.MetaHeadersFrame](f) })
	_ = c.WriteData(3, false, message(t, &grpc_testing.StreamingOutputCallRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: 2, Message: "early"}}))
	c.ask(5, "Nothing")
	_ = c.WriteData(5, true, nil)
	c.send()
	got := 0
	c.next(func(f http2.Frame) bool {
		if f.Header().StreamID == 3 && ofType[*http2.RSTStreamFrame](f) {
			t.Error("the answer is lost")
		}
		if d, is := f.(*http2.DataFrame); is {
			got += len(d.Data())
		}
		return f.Header().StreamID == 5 && ofType[*http2.MetaHeadersFrame](f)
	})
	_ = c.WriteWindowUpdate(0, 1<<20)
	c.send()
	f := c.next(func(f http2.Frame) bool {
		if d, is := f.(*http2.DataFrame); is {
			got += len(d.Data())
		}
		h, is := f.(*http2.MetaHeadersFrame)
		return is && h.StreamID == 3 || f.Header().StreamID == 3 && ofType[*http2.RSTStreamFrame](f)
	})
	h, is := f.(*http2.MetaHeadersFrame)
	if !is || got < 10000 || !slices.ContainsFunc(h.Fields, func(f hpack.HeaderField) bool { return f.Name == "grpc-message" && f.Value == "early" }) {
		t.Errorf("%d bytes, then %v", got, f)
	}
}

// absent is a grpc-go server that takes nothing but what its windows let through.
type absent struct{ conns chan net.Conn }

func (a absent) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		a.conns <- conn
		go func() {
			_ = http2.NewFramer(conn, nil).WriteSettings()
			_, _ = io.Copy(io.Discard, conn)
		}()
	}
}
func (absent) GracefulStop() {}
func (a absent) Stop()       { _ = (<-a.conns).Close() }

// What waits for grpc-go is bounded, also beyond its windows.
func TestWhatWaitsForGRPCGoIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newService().lean(t, func(o *lean.Options) {
			o.Rest.Stop()
			o.Rest = absent{make(chan net.Conn, 1)}
		})
		c := speak(t, pipe(t, l)())
		_ = c.conn.SetReadDeadline(time.Now().Add(3 * time.Second))
		sent, room := 0, 65535
		for stream := uint32(1); sent < 4<<20; stream += 2 { // each within its own window
			c.ask(stream, "StreamingInputCall")
			for range 3 {
				for room < 16000 {
					c.send()
					f, err := c.ReadFrame()
					if err != nil { // nothing more is taken
						if sent > 1<<20 {
							t.Errorf("%d bytes were taken", sent)
						}
						return
					}
					if w, is := f.(*http2.WindowUpdateFrame); is && w.StreamID == 0 {
						room += int(w.Increment)
					}
				}
				_ = c.WriteData(stream, false, make([]byte, 16000))
				sent, room = sent+16000, room-16000
			}
		}
		t.Errorf("%d bytes were taken", sent)
	})
}
