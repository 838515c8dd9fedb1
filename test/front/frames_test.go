package front

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/keepalive"

	"github.com/distlimiter/ratelimit/internal/server/lean"
)

// client speaks frames.
type client struct {
	*http2.Framer
	t    *testing.T
	conn net.Conn
	out  bytes.Buffer
}

// connect sends the preface and the settings of a client.
func connect(t *testing.T, l *lean.Server, settings ...http2.Setting) *client {
	t.Helper()
	conn, err := net.Dial("tcp", start(t, l))
	if err != nil {
		t.Fatal(err)
	}
	return speak(t, conn, settings...)
}

// speak does the same on a connection that there is.
func speak(t *testing.T, conn net.Conn, settings ...http2.Setting) *client {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c := &client{t: t, conn: conn}
	c.Framer = http2.NewFramer(&c.out, conn)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.out.WriteString(http2.ClientPreface)
	_ = c.WriteSettings(settings...)
	c.send()
	return c
}

// send sends the frames that were written. The server may have closed the connection.
func (c *client) send() {
	_, _ = c.conn.Write(c.out.Bytes())
	c.out.Reset()
}

// call writes the frames of a call on a stream.
func (c *client) call(stream uint32) {
	c.begin(stream, callFields)
	_ = c.WriteData(stream, true, []byte(callMessage))
}

// begin writes the header fields of a call, without the table of fields.
func (c *client) begin(stream uint32, fields [][2]string) {
	block, encode := bytes.Buffer{}, (*hpack.Encoder)(nil)
	encode = hpack.NewEncoder(&block)
	encode.SetMaxDynamicTableSize(0)
	for _, f := range fields {
		_ = encode.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
}

// next returns the next frame that want accepts, and nil at the end of the connection.
func (c *client) next(want func(http2.Frame) bool) http2.Frame {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if e, is := errors.AsType[net.Error](err); is && e.Timeout() {
			c.t.Fatal("no such frame: ", err)
		}
		if err != nil {
			return nil
		}
		if want(f) {
			return f
		}
	}
}

// end is the ping after a flood.
var end = [8]byte{'e', 'n', 'd'}

// seeCalm waits for the end of a flood of frames that ask for nothing.
func (c *client) seeCalm() {
	c.t.Helper()
	f := c.next(func(f http2.Frame) bool {
		ping, is := f.(*http2.PingFrame)
		return is && ping.IsAck() && ping.Data == end || ofType[*http2.GoAwayFrame](f)
	})
	if away, is := f.(*http2.GoAwayFrame); !is || away.ErrCode != http2.ErrCodeEnhanceYourCalm {
		c.t.Errorf("got %v", f)
	}
}

func ofType[F http2.Frame](f http2.Frame) bool {
	_, is := f.(F)
	return is
}

func setting(id http2.SettingID, value uint32) http2.Setting {
	return http2.Setting{ID: id, Val: value}
}

// An answer takes no more of the client's windows than there is, and waits for the rest.
func TestAnswersKeepToTheClientsWindows(t *testing.T) {
	eachMode(t, func(t *testing.T, _ *service, l *lean.Server) {
		c := connect(t, l, setting(http2.SettingInitialWindowSize, 3))
		c.call(1)
		c.send()
		c.next(ofType[*http2.MetaHeadersFrame])
		var answer []byte
		for _, step := range []struct {
			bytes  int
			change func()
		}{
			{3, func() { _ = c.WriteWindowUpdate(1, 2) }},
			{2, func() { _ = c.WriteSettings(setting(http2.SettingInitialWindowSize, 4)) }},
			{1, func() { _ = c.WriteSettings(setting(http2.SettingInitialWindowSize, 1)) }}, // now 3 less than nothing
			{0, func() { _ = c.WriteWindowUpdate(1, 4) }},
		} {
			_ = c.WritePing(false, [8]byte{byte(len(answer))})
			c.send()
			got := 0
			c.next(func(f http2.Frame) bool {
				if d, is := f.(*http2.DataFrame); is {
					got += len(d.Data())
					answer = append(answer, d.Data()...)
				}
				return ofType[*http2.PingFrame](f)
			})
			if got != step.bytes {
				t.Errorf("%d bytes, want %d", got, step.bytes)
			}
			step.change()
			c.send()
		}
		c.next(func(f http2.Frame) bool {
			if d, is := f.(*http2.DataFrame); is {
				answer = append(answer, d.Data()...)
			}
			if ofType[*http2.DataFrame](f) {
				_ = c.WriteWindowUpdate(1, 1)
				c.send()
			}
			return ofType[*http2.MetaHeadersFrame](f)
		})
		if string(answer) != "\x00\x00\x00\x00\x05\x08\x01\x2a\x01d" {
			t.Errorf("%q", answer)
		}
	})
}

// The window of the connection is shared, and what waits for it goes on in order.
func TestAnswersShareTheWindowOfTheConnection(t *testing.T) {
	l := newService().lean(t, modes["at once"])
	c := connect(t, l)
	const answer = 10
	calls := uint32(65535/answer) + 5
	read := 0
	for stream := uint32(1); stream < 2*calls; stream += 2 {
		c.call(stream)
		c.send()
		if stream == 2*(65535/answer)-1 { // the next finds no room for all of it
			_ = c.WritePing(false, [8]byte{1})
			c.send()
			c.next(func(f http2.Frame) bool {
				if d, is := f.(*http2.DataFrame); is {
					read += len(d.Data())
				}
				return ofType[*http2.PingFrame](f)
			})
		}
	}
	_ = c.WritePing(false, [8]byte{2})
	c.send()
	c.next(func(f http2.Frame) bool {
		if d, is := f.(*http2.DataFrame); is {
			read += len(d.Data())
		}
		return ofType[*http2.PingFrame](f)
	})
	if read != 65535 {
		t.Fatalf("%d bytes, want all that the window lets through", read)
	}
	_ = c.WriteWindowUpdate(0, 1000)
	c.send()
	for want := 2*(65535/answer) + 1; want < int(2*calls); want += 2 {
		f := c.next(func(f http2.Frame) bool {
			h, is := f.(*http2.MetaHeadersFrame)
			return is && h.StreamEnded()
		})
		if got := int(f.Header().StreamID); got != want {
			t.Errorf("stream %d ended, want %d", got, want)
		}
	}
}

// A client that takes no answers is refused before it costs much memory.
func TestAClientThatTakesNoAnswersIsRefused(t *testing.T) {
	l := newService().lean(t, func(o *lean.Options) {
		o.MaxStreams = 1 << 20
		o.Answer = func(_ context.Context, out, _ []byte) ([]byte, error) { return append(out, make([]byte, 1000)...), nil }
	})
	c := connect(t, l, setting(http2.SettingInitialWindowSize, 0))
	go func() {
		for stream := uint32(1); stream < 2*1100; stream += 2 {
			c.call(stream)
		}
		c.send()
	}()
	f := c.next(ofType[*http2.RSTStreamFrame]).(*http2.RSTStreamFrame)
	if f.ErrCode != http2.ErrCodeRefusedStream || f.StreamID < 2*1000 || f.StreamID > 2*1060 {
		t.Errorf("stream %d: %v", f.StreamID, f.ErrCode)
	}
}

// Header fields of calls that never come are bounded, too.
func TestCallsWithoutAMessageAreBounded(t *testing.T) {
	l := newService().lean(t, func(o *lean.Options) { o.MaxStreams = 1 << 20 })
	c := connect(t, l)
	var block bytes.Buffer
	encode := hpack.NewEncoder(&block)
	for _, f := range callFields {
		_ = encode.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_ = encode.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 10000), Sensitive: true})
	go func() {
		for stream := uint32(1); stream < 2*120; stream += 2 {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
		}
		c.send()
	}()
	f := c.next(ofType[*http2.RSTStreamFrame]).(*http2.RSTStreamFrame)
	if f.ErrCode != http2.ErrCodeRefusedStream || f.StreamID < 2*95 || f.StreamID > 2*106 {
		t.Errorf("stream %d: %v", f.StreamID, f.ErrCode)
	}
}

// A client may send 10,000 such frames a second. The clock stands still, so that a slow
// machine sees the same flood.
func TestTooManyFramesThatAskForNothing(t *testing.T) {
	for name, write := range map[string]func(c *client){
		"settings":       func(c *client) { _ = c.WriteSettings() },
		"window updates": func(c *client) { _ = c.WriteWindowUpdate(0, 1) },
		"priorities":     func(c *client) { _ = c.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"empty data":     func(c *client) { _ = c.WriteData(1, false, nil) },
		"padding":        func(c *client) { _ = c.WriteDataPadded(1, false, nil, make([]byte, 1)) },
		"unknown frames": func(c *client) { _ = c.WriteRawFrame(0x42, 0, 0, nil) },
		"pings":          func(c *client) { _ = c.WritePing(false, [8]byte{}) },
	} {
		inBubble(t, name, func(t *testing.T) {
			c := speak(t, pipe(t, newService().lean(t, modes["at once"]))())
			c.call(1)
			c.out.Truncate(c.out.Len() - 9 - len(callMessage)) // only its header fields
			for range 11_000 {
				write(c)
			}
			_ = c.WritePing(false, end)
			c.send()
			c.seeCalm()
		})
	}
}

func TestASilentConnectionIsAskedAndClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newService().lean(t, func(o *lean.Options) {
			o.Keepalive = keepalive.ServerParameters{Time: 200 * time.Millisecond, Timeout: 200 * time.Millisecond}
		})
		c := speak(t, pipe(t, l)())
		for range 3 { // answered, it lives
			ping := c.next(func(f http2.Frame) bool { p, is := f.(*http2.PingFrame); return is && !p.IsAck() })
			_ = c.WritePing(true, ping.(*http2.PingFrame).Data)
			c.send()
		}
		if f := c.next(ofType[*http2.GoAwayFrame]); f != nil {
			t.Errorf("got %v, want the end of the connection", f)
		}
	})
}

func TestAnOldConnectionIsAskedToLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newService().lean(t, func(o *lean.Options) { o.Keepalive.MaxConnectionAge = 100 * time.Millisecond })
		c := speak(t, pipe(t, l)())
		first := c.next(ofType[*http2.GoAwayFrame]).(*http2.GoAwayFrame)
		if first.LastStreamID != 1<<31-1 || first.ErrCode != http2.ErrCodeNo {
			t.Errorf("first %v", first)
		}
		ping := c.next(ofType[*http2.PingFrame]).(*http2.PingFrame)
		c.call(1) // begun before the client knew
		_ = c.WritePing(true, ping.Data)
		c.call(3) // and after it said so
		c.send()
		last := c.next(ofType[*http2.GoAwayFrame]).(*http2.GoAwayFrame)
		if last.LastStreamID != 1 {
			t.Errorf("last %v", last)
		}
		if f := c.next(func(f http2.Frame) bool { return f.Header().StreamID == 3 }); f != nil {
			t.Errorf("then %v", f)
		}
	})
}
