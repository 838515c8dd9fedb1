package lean

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/types/known/emptypb"
)

// client speaks frames, and sees those of the server as text.
type client struct {
	t      *testing.T
	conn   net.Conn
	frames chan string // closed at the end of the connection
}

// echo answers with the request; "error" is refused.
func echo(_ context.Context, out, message []byte) ([]byte, error) {
	if string(message) == "error" {
		return append(out, "half an answer"...), status.Error(codes.InvalidArgument, "wrong")
	}
	return append(out, message...), nil
}

// rest is a grpc-go server that sends each message back, and reads nothing of Wait.
func rest() *grpc.Server {
	return grpc.NewServer(grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(64<<10), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		if name, _ := grpc.MethodFromServerStream(s); name == "/any.Service/Wait" {
			<-s.Context().Done()
		}
		m := new(emptypb.Empty) // whose unknown fields are kept
		if err := s.RecvMsg(m); err != nil {
			return err
		}
		return s.SendMsg(m)
	}))
}

// start returns a server and a client that has sent its preface and settings. Between them
// is a pipe without a buffer, so that each side waits for the other.
func start(t *testing.T, change func(*Options), settings ...http2.Setting) (*Server, *client) {
	t.Helper()
	o := Options{
		Method: method, Answer: echo, Rest: rest(), MaxMessageBytes: 1 << 20, MaxStreams: 4, MaxHeaderBytes: 4 << 10,
		Keepalive: keepalive.ServerParameters{Time: math.MaxInt64, Timeout: time.Second}, Log: zap.NewNop(),
	}
	if change != nil {
		change(&o)
	}
	s := New(o)
	t.Cleanup(s.Stop)
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close() })
	_ = near.SetDeadline(time.Now().Add(time.Minute))
	s.begin(far)
	c := &client{t, near, make(chan string, 1000)}
	go c.read()
	c.send([]byte(http2.ClientPreface), appendSettings(nil, settings...))
	return s, c
}

func (c *client) read() {
	defer close(c.frames)
	framer := http2.NewFramer(nil, c.conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return
		}
		if text := describe(f); text != "" {
			c.frames <- text
		}
	}
}

// describe returns nothing for what each connection has.
func describe(f http2.Frame) string {
	id := f.Header().StreamID
	end := ""
	if f.Header().Flags.Has(http2.FlagDataEndStream) {
		end = " end"
	}
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		var fields []string
		for _, field := range f.Fields {
			if field.Name != "content-type" && field.Value != "" {
				fields = append(fields, field.Value)
			}
		}
		return fmt.Sprintf("%d headers %s%s", id, strings.Join(fields, " "), end)
	case *http2.DataFrame:
		if len(f.Data()) > 100 {
			return fmt.Sprintf("%d data of %d%s", id, len(f.Data()), end)
		}
		return fmt.Sprintf("%d data %q%s", id, f.Data(), end)
	case *http2.RSTStreamFrame:
		return fmt.Sprintf("%d %v", id, f.ErrCode)
	case *http2.WindowUpdateFrame:
		if id != 0 {
			return fmt.Sprintf("%d window of %d", id, f.Increment)
		}
	case *http2.GoAwayFrame:
		return strings.TrimSpace(fmt.Sprintf("goaway %d %v %s", f.LastStreamID, f.ErrCode, f.DebugData()))
	case *http2.PingFrame:
		return fmt.Sprintf("ping %s%s", f.Data[:1], strings.ReplaceAll(end, "end", "ack"))
	}
	return ""
}

// send writes frames. The server may have closed the connection.
func (c *client) send(frames ...[]byte) { _, _ = c.conn.Write(slices.Concat(frames...)) }

// next returns the next frame, "closed" at the end.
func (c *client) next() string {
	select {
	case f, ok := <-c.frames:
		if !ok {
			return "closed"
		}
		return f
	case <-time.After(time.Minute):
		c.t.Fatal("no frame came")
		return ""
	}
}

// see fails unless these frames come next.
func (c *client) see(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.next(); got != w {
			c.t.Fatalf("%q, want %q", got, w)
		}
	}
}

// open returns the header fields of a plain call, with changes.
func open(id uint32, changed ...string) []byte {
	var block []byte
	for _, f := range fieldsWith(changed...) {
		block = appendField(block, f.Name, f.Value)
	}
	return appendHeaders(nil, id, block, false)
}

// message returns a message as DATA has it.
func message(text string) []byte {
	n := len(text)
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, text...)
}

// call returns the frames of a plain call.
func call(id uint32, text string) []byte { return appendData(open(id), id, message(text), true) }

// answered is what a client sees of a call that is answered in one frame.
func answered(id uint32, text string) []string {
	return []string{fmt.Sprintf("%d headers 200", id), fmt.Sprintf("%d data %q", id, message(text)), fmt.Sprintf("%d headers 0 end", id)}
}

func TestFramesAndWhatComesOfThem(t *testing.T) {
	const flags, priority = http2.FlagHeadersEndHeaders, http2.FrameHeaders
	frame := func(t http2.FrameType, flags http2.Flags, id uint32, payload string) []byte {
		return append(appendFrameHeader(nil, t, flags, id, len(payload)), payload...)
	}
	relayed := append(open(1, ":path", "/other.Service/Method"), appendData(nil, 1, message("\n\x01x"), true)...)
	for name, tt := range map[string]struct {
		send []byte
		want []string
	}{
		"a call":                     {call(1, "x"), answered(1, "x")},
		"an empty message":           {call(1, ""), answered(1, "")},
		"a call that is refused":     {call(1, "error"), []string{"1 headers 200 3 wrong end"}},
		"calls at once":              {slices.Concat(call(1, "a"), call(3, "b")), append(answered(1, "a"), answered(3, "b")...)},
		"padding":                    {slices.Concat(open(1), frame(http2.FrameData, http2.FlagDataPadded|http2.FlagDataEndStream, 1, "\x02"+string(message("x"))+"\x00\x00")), answered(1, "x")},
		"another method":             {relayed, answered(1, "\n\x01x")},
		"a ping":                     {appendPing(nil, [8]byte{'x'}, false), []string{"ping x ack"}},
		"an answer to no ping":       {slices.Concat(appendPing(nil, [8]byte{'x'}, true), call(1, "x")), answered(1, "x")},
		"an unknown frame":           {slices.Concat(frame(0x42, 0, 0, "x"), call(1, "x")), answered(1, "x")},
		"a client that goes":         {slices.Concat(appendGoAway(nil, 0, 0, ""), call(1, "x")), answered(1, "x")},
		"malformed header fields":    {open(1, "te", "gzip"), []string{"1 PROTOCOL_ERROR"}},
		"too many header fields":     {open(1, "x", strings.Repeat("y", 3<<10), "z", strings.Repeat("y", 3<<10)), []string{"1 FRAME_SIZE_ERROR"}},
		"an upper-case name":         {slices.Concat(open(1, "Name", "x"), call(3, "x")), append([]string{"1 PROTOCOL_ERROR"}, answered(3, "x")...)},
		"a stream that needs itself": {frame(priority, flags|http2.FlagHeadersPriority, 1, "\x00\x00\x00\x01\x00"+string(open(1)[frameHeader:])), []string{"1 PROTOCOL_ERROR"}},
		"a priority on itself":       {slices.Concat(open(1), frame(http2.FramePriority, 0, 1, "\x00\x00\x00\x01\x00")), []string{"1 PROTOCOL_ERROR"}},
		"more than was declared":     {appendData(open(1, "content-length", "3"), 1, message("x"), true), []string{"1 PROTOCOL_ERROR"}},
		"less than was declared":     {appendData(open(1, "content-length", "9"), 1, message("x"), true), []string{"1 PROTOCOL_ERROR"}},
		"data after the end":         {slices.Concat(call(1, "x"), appendData(nil, 1, []byte("y"), true)), append(answered(1, "x"), "1 STREAM_CLOSED")},
		"header fields in between":   {slices.Concat(open(1), open(1)), []string{"1 PROTOCOL_ERROR"}},
		"a window that overflows":    {slices.Concat(open(1), appendWindowUpdate(nil, 1, mostWindow)), []string{"1 FLOW_CONTROL_ERROR"}},
		"a window of nothing":        {slices.Concat(open(1), appendWindowUpdate(nil, 1, 0)), []string{"1 PROTOCOL_ERROR"}},
		"the window overflows":       {appendWindowUpdate(nil, 0, mostWindow), []string{"goaway 0 FLOW_CONTROL_ERROR", "closed"}},
		"a window of no stream":      {appendWindowUpdate(nil, 1, 1), []string{"goaway 0 PROTOCOL_ERROR", "closed"}},
		"a reset of no stream":       {appendReset(nil, 1, 0), []string{"goaway 0 PROTOCOL_ERROR", "closed"}},
		"data of no stream":          {appendData(nil, 1, nil, true), []string{"goaway 0 PROTOCOL_ERROR", "closed"}},
		"a stream of the server":     {open(2), []string{"goaway 0 PROTOCOL_ERROR", "closed"}},
		"a promise":                  {frame(http2.FramePushPromise, flags, 1, "\x00\x00\x00\x02"), []string{"goaway 0 PROTOCOL_ERROR", "closed"}},
		"a setting out of range":     {appendSettings(nil, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}), []string{"goaway 0 FLOW_CONTROL_ERROR", "closed"}},
		"a frame that is too large":  {frame(http2.FrameData, 0, 1, strings.Repeat("x", mostFrameBytes+1)), []string{"goaway 0 FRAME_SIZE_ERROR", "closed"}},
		"too many pings":             {slices.Repeat(appendPing(nil, [8]byte{'x'}, false), 4), []string{"ping x ack", "ping x ack", "ping x ack", "ping x ack", "goaway 0 ENHANCE_YOUR_CALM too_many_pings", "closed"}},
		"more data than the window": {slices.Concat(open(1, ":path", "/any.Service/Wait"), slices.Repeat(appendData(nil, 1, make([]byte, 16000), false), 5), call(3, "x")),
			append([]string{"1 FLOW_CONTROL_ERROR"}, answered(3, "x")...)},
		"the streams at a time": {slices.Concat(open(1), open(3), open(5), open(7), open(9), appendReset(nil, 1, 8), open(11), appendData(nil, 11, message("x"), true)),
			append([]string{"9 REFUSED_STREAM"}, answered(11, "x")...)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, c := start(t, nil)
			go c.send(tt.send) // the server may stop reading
			c.see(tt.want...)
		})
	}
}

// Messages of more than a frame are relayed to grpc-go, which sends them back.
func TestLongMessagesAreRelayed(t *testing.T) {
	_, c := start(t, nil)
	field := append(binary.AppendUvarint([]byte{10}, 200_000), make([]byte, 200_000)...)
	rest := message(string(field))
	size := len(rest)
	granted, windows := make(chan int, 1000), make(chan int, 1000)
	go func() {
		c.send(open(1))
		for may, n := window, 0; len(rest) > 0; rest = rest[n:] {
			for n = min(len(rest), 16000); may < n; {
				may += <-windows
			}
			may -= n
			c.send(appendData(nil, 1, rest[:n], n == len(rest)))
		}
		for n := range granted {
			c.send(appendWindowUpdate(nil, 0, uint32(n)), appendWindowUpdate(nil, 1, uint32(n)))
		}
	}()
	for got := 0; got < size; {
		f, n := c.next(), 0
		if _, err := fmt.Sscanf(f, "1 data of %d", &n); err == nil {
			got += n
			granted <- n
		} else if _, err := fmt.Sscanf(f, "1 window of %d", &n); err == nil {
			windows <- n
		} else if f != "1 headers 200" {
			t.Fatalf("%q after %d bytes of %d", f, got, size)
		}
	}
	close(granted)
	c.see("1 headers 0 end")
}

// What the client's windows do not let through waits for them.
func TestAnswersWaitForTheClientsWindows(t *testing.T) {
	for _, waits := range []bool{false, true} {
		_, c := start(t, func(o *Options) { o.Waits = waits }, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 4})
		c.send(call(1, "abc"))
		c.see("1 headers 200", `1 data "\x00\x00\x00\x00"`)
		c.send(appendWindowUpdate(nil, 1, 3))
		c.see(`1 data "\x03ab"`)
		c.send(appendSettings(nil, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5}))
		c.see(`1 data "c"`, "1 headers 0 end")
		c.send(appendSettings(nil, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}), call(3, "abc"))
		c.see(answered(3, "abc")...)
	}
}

// The table of header fields is of the client's size, which the next block says.
func TestAnAnswerTellsOfASmallerTable(t *testing.T) {
	_, c := start(t, nil, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
	c.send(call(1, "x"), call(3, "error"))
	c.see(append(answered(1, "x"), "3 headers 200 3 wrong end")...)
}

// waiting is a method whose calls wait until they are let go, or end.
type waiting struct{ began, let, ended chan string }

func newWaiting() *waiting {
	return &waiting{make(chan string, 10), make(chan string), make(chan string, 10)}
}

func (w *waiting) options(o *Options) {
	o.Waits = true
	o.Answer = func(ctx context.Context, out, message []byte) ([]byte, error) {
		w.began <- string(message)
		select {
		case answer := <-w.let:
			return append(out, answer...), nil
		case <-ctx.Done():
			w.ended <- ctx.Err().Error()
			return out, ctx.Err()
		}
	}
}

func TestCallsThatWait(t *testing.T) {
	w := newWaiting()
	s, c := start(t, w.options)
	c.send(call(1, "a"))
	<-w.began
	c.send(call(3, "b")) // while the first waits
	<-w.began
	w.let <- "x"
	first := c.next()
	rest := answered(1, "x")
	if first[0] == '3' {
		rest = answered(3, "x")
	}
	c.see(rest[1:]...)
	left := uint32(4 - (first[0] - '0'))
	c.send(appendReset(nil, left, http2.ErrCodeCancel)) // its client gives up
	if got := <-w.ended; got != "context canceled" {
		t.Error(got)
	}
	c.send(appendData(open(5, "grpc-timeout", "200m"), 5, message("c"), true)) // it begins before
	<-w.began
	if got := <-w.ended; got != "context deadline exceeded" {
		t.Error(got)
	}
	c.see("5 headers 200 4 context deadline exceeded end")
	c.send(call(7, "d"))
	<-w.began
	_ = c.conn.Close()
	if got := <-w.ended; got != "context canceled" {
		t.Error(got)
	}
	s.Stop()
}

// An answer is late if its client gives up the call when it is answered already, and not if
// the call still waits, or if the client leaves for another reason.
func TestLateAnswersAreCounted(t *testing.T) {
	w, late := newWaiting(), 0
	_, c := start(t, func(o *Options) {
		w.options(o)
		o.Late = func() { late++ }
	})
	for _, id := range []uint32{1, 3} {
		c.send(call(id, "a"))
		<-w.began
		w.let <- "x"
		c.see(answered(id, "x")...)
	}
	c.send(call(5, "a"))
	<-w.began
	c.send(slices.Concat(appendReset(nil, 1, http2.ErrCodeCancel), appendReset(nil, 3, http2.ErrCodeNo), appendReset(nil, 5, http2.ErrCodeCancel),
		appendPing(nil, [8]byte{'x'}, false)))
	<-w.ended
	c.see("ping x ack")
	if late != 1 {
		t.Errorf("%d late", late)
	}
}

// Calls that their client has reset count until they have ended.
func TestResetCallsCountUntilTheyEnd(t *testing.T) {
	let := make(chan struct{})
	began := make(chan struct{}, 10)
	_, c := start(t, func(o *Options) {
		o.Waits = true
		o.Answer = func(_ context.Context, out, _ []byte) ([]byte, error) { // that ignores its context
			began <- struct{}{}
			<-let
			return out, nil
		}
	})
	for id := uint32(1); id < 9; id += 2 {
		c.send(call(id, ""), appendReset(nil, id, http2.ErrCodeCancel))
		<-began
	}
	c.send(call(9, ""))
	c.see("9 REFUSED_STREAM")
	close(let)
}

// Under overload a client gives up all of its calls, and many are refused. It is no attack.
func TestAClientMayGiveUpEachCall(t *testing.T) {
	_, c := start(t, func(o *Options) {
		o.Waits = true
		o.Answer = func(ctx context.Context, out, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return out, ctx.Err()
		}
	})
	const calls = 2 * mostControl
	go func() {
		for first := uint32(1); first < 2*calls; first += 16 {
			var frames []byte
			for id := first; id < first+16; id += 2 { // twice as many as there may be
				frames = append(frames, call(id, "x")...)
			}
			for id := first; id < first+16; id += 2 {
				frames = append(frames, appendReset(nil, id, http2.ErrCodeCancel)...)
			}
			c.send(frames)
		}
		c.send(appendPing(nil, [8]byte{'x'}, false))
	}()
	for f := ""; f != "ping x ack"; {
		if f = c.next(); strings.HasPrefix(f, "goaway") || f == "closed" {
			t.Fatal(f)
		}
	}
}

func TestTheTapRefuses(t *testing.T) {
	for _, waits := range []bool{false, true} {
		_, c := start(t, func(o *Options) {
			o.Waits = waits
			o.Tap = func(ctx context.Context, info *tap.Info) (context.Context, error) {
				if _, bounded := ctx.Deadline(); info.FullMethodName == method && bounded {
					return nil, status.Error(codes.ResourceExhausted, "overloaded")
				}
				return ctx, nil
			}
		})
		c.send(call(1, "x"))
		c.see(answered(1, "x")...)
		c.send(appendData(open(3, "grpc-timeout", "1S"), 3, message("x"), true))
		c.see("3 headers 200 8 overloaded end")
	}
}

// A server that stops gracefully takes calls until its client knows, and answers those that
// wait.
func TestGracefulStop(t *testing.T) {
	w := newWaiting()
	s, c := start(t, w.options)
	c.send(call(1, "a"))
	<-w.began
	stopped := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(stopped)
	}()
	c.see("goaway 2147483647 NO_ERROR graceful_stop", "ping d")
	c.send(call(3, "b")) // sent before
	<-w.began
	c.send(appendPing(nil, pingDrain, true), call(5, "c"))
	c.see("goaway 3 NO_ERROR graceful_stop")
	w.let <- "x"
	w.let <- "x"
	for range 6 { // the frames of two answers, in either order
		if f := c.next(); f[0] != '1' && f[0] != '3' {
			t.Errorf("%q", f)
		}
	}
	c.see("closed")
	<-stopped
	if err := s.Serve(noListener{}); !errors.Is(err, grpc.ErrServerStopped) {
		t.Error(err)
	}
}

type noListener struct{ net.Listener }

func (noListener) Close() error { return nil }

// failing is a listener whose Accept fails.
type failing struct {
	noListener
	errs chan error
}

func (f failing) Accept() (net.Conn, error) { return nil, <-f.errs }

type temporary struct{ error }

func (temporary) Temporary() bool { return true }

func TestServeGoesOnAfterATemporaryError(t *testing.T) {
	s, _ := start(t, nil)
	f := failing{errs: make(chan error, 2)}
	f.errs <- temporary{errors.New("too many open files")}
	f.errs <- errors.New("gone")
	if err := s.Serve(f); err == nil || err.Error() != "gone" {
		t.Error(err)
	}
}

func TestASilentClientIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := start(t, func(o *Options) {
			o.Keepalive = keepalive.ServerParameters{Time: 20 * time.Millisecond, Timeout: 20 * time.Millisecond}
		})
		c.see("ping a", "closed")
	})
}

func TestAnIdleClientIsSentAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := start(t, func(o *Options) { o.Keepalive.MaxConnectionIdle = 20 * time.Millisecond })
		c.see("goaway 2147483647 NO_ERROR graceful_stop", "ping d")
		c.send(appendPing(nil, pingDrain, true))
		c.see("goaway 0 NO_ERROR graceful_stop", "closed")
	})
}

// The grace of an old connection ends calls that wait.
func TestGraceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWaiting()
		_, c := start(t, func(o *Options) {
			w.options(o)
			o.Keepalive.MaxConnectionAge, o.Keepalive.MaxConnectionAgeGrace = 20*time.Millisecond, 20*time.Millisecond
		})
		c.send(call(1, "a"))
		<-w.began
		c.see("goaway 2147483647 NO_ERROR graceful_stop", "ping d", "closed")
		<-w.ended
	})
}

// A client that sends header fields only has given up at its deadline.
func TestACallWithoutAMessageEndsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := start(t, func(o *Options) { o.Keepalive.Timeout = 100 * time.Millisecond })
		c.send(open(1, "grpc-timeout", "1m"))
		c.see("1 headers 200 4 context deadline exceeded end", "1 NO_ERROR")
	})
}

// A client that begins with anything but HTTP/2 is told so at most.
func TestWhatIsNotHTTP2(t *testing.T) {
	for _, begin := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", http2.ClientPreface + string(appendPing(nil, pingAlive, false)), http2.ClientPreface + string(appendSettingsAck(nil))} {
		s, _ := start(t, nil)
		near, far := net.Pipe()
		s.begin(far)
		c := &client{t, near, make(chan string, 10)}
		go c.read()
		go c.send([]byte(begin))
		c.see("goaway 0 PROTOCOL_ERROR", "closed")
	}
}
