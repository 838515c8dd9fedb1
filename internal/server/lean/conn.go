package lean

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/tap"
)

// Bounds of a connection.
const (
	// window is what a client may send unread, on the connection and on each stream. It
	// must be what the grpc-go server takes, too.
	window = 64 << 10
	// mostUnsent is how many bytes of answers may wait for a client that does not take
	// them, before its new streams are refused.
	mostUnsent = 1 << 20
	// readBytes is how many bytes are read at a time.
	readBytes = 32 << 10
	// mostBuffered is how many bytes are written at a time.
	mostBuffered = 64 << 10
	// mostIdleBytes is how much memory for answers is kept.
	mostIdleBytes = 64 << 10
	// mostControl is how many frames a client may send in a second that lead to no
	// answer: settings, pings, resets, empty data.
	mostControl = 10000
	// writeTime is how long one write may take.
	writeTime = 20 * time.Second
	// pingMinTime is how long a client waits between pings. Two may come too early.
	pingMinTime    = 10 * time.Second
	mostPingsEarly = 2
)

// conn is a connection of a client. One goroutine reads; whoever holds mu writes.
type conn struct {
	s      *Server
	nc     net.Conn
	in     *bufio.Reader
	framer *http2.Framer // reads only
	ctx    context.Context
	cancel context.CancelFunc
	until  until
	tap    tap.Info
	takes  int64  // how many bytes of DATA the client may send
	grants uint32 // bytes of DATA read, which the client has not been told to send again

	writing atomic.Int64 // since when a write is under way, in ns; 0: none
	heard   atomic.Int64 // when frames were read last

	mu         sync.Mutex
	out        []byte // not yet written
	flushing   bool   // somebody will write soon
	err        error  // of writing
	streams    map[uint32]*stream
	last       uint32    // the highest stream of the client
	window     int64     // how many bytes of DATA the client takes
	initial    int64     // window of a new stream
	blocked    []*stream // those with data that wait for a window, by age
	unsent     int       // bytes that wait so
	running    int       // calls in goroutines of their own
	resize     bool      // the next header block must begin with the size of an empty table
	relay      *relay    // for new streams
	relays     []*relay  // all that run
	control    int       // frames since controlled that led to no answer
	controlled time.Time
	pinged     time.Time // when the client's last ping came
	earlyPings int

	opened   time.Time
	idle     time.Time // since when there is no stream; zero: there is one
	age      time.Duration
	asked    time.Time // when our ping was sent that has no answer yet
	draining time.Time // since when the client knows that it should leave
	leaving  bool      // it takes no new streams
}

// Our pings.
var (
	pingAlive = [8]byte{'a', 'l', 'i', 'v', 'e'}
	pingDrain = [8]byte{'d', 'r', 'a', 'i', 'n'}
)

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{s: s, nc: nc, streams: make(map[uint32]*stream), window: defaultWindow, initial: defaultWindow, takes: window}
	c.in = bufio.NewReaderSize(pausing{c}, readBytes)
	c.framer = http2.NewFramer(nil, c.in)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(mostFrameBytes)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.MaxHeaderListSize = s.MaxHeaderBytes
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.until.Context = c.ctx
	c.tap.FullMethodName = s.Method
	c.opened = time.Now()
	c.idle, c.controlled = c.opened, c.opened
	c.heard.Store(c.opened.UnixNano())
	if age := s.Keepalive.MaxConnectionAge; age > 0 {
		// Not all connections of a restart at once: a tenth more or less.
		c.age = age + time.Duration((rand.Float64()-0.5)*0.2*float64(age)) //nolint:gosec // no secret
	}
	return c
}

// serve reads the connection to its end.
func (c *conn) serve() {
	err := c.read()
	c.mu.Lock()
	if fatal, is := errors.AsType[http2.ConnectionError](err); is {
		c.out = appendGoAway(c.out, c.last, http2.ErrCode(fatal), "")
	} else if calm, is := errors.AsType[*calmError](err); is {
		c.out = appendGoAway(c.out, c.last, http2.ErrCodeEnhanceYourCalm, calm.why)
	}
	c.flush()
	for _, r := range c.relays {
		r.close()
	}
	c.mu.Unlock()
	c.cancel()
	if err != nil && !errors.Is(err, io.EOF) {
		// A close with unread bytes would take the GOAWAY away from the client.
		_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, c.in, lingerBytes)
	}
	_ = c.nc.Close()
}

// How long, and for how many bytes, a connection is read after its last frame.
const (
	lingerTime  = 100 * time.Millisecond
	lingerBytes = 1 << 20
)

// calmError ends a connection whose client asks for too much.
type calmError struct{ why string }

// Error implements error.
func (e *calmError) Error() string { return e.why }

// errGone ends a connection that is drained.
var errGone = errors.New("all calls are answered, and no new ones taken")

func (c *conn) read() error {
	c.mu.Lock()
	c.out = appendSettings(c.out,
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: c.s.MaxStreams},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: c.s.MaxHeaderBytes})
	c.out = appendWindowUpdate(c.out, 0, window-defaultWindow)
	c.flush()
	c.mu.Unlock()
	var preface [len(http2.ClientPreface)]byte
	if _, err := io.ReadFull(c.in, preface[:]); err != nil {
		return err
	}
	if string(preface[:]) != http2.ClientPreface {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	frame, err := c.framer.ReadFrame()
	if err != nil {
		return fatal(err)
	}
	if settings, is := frame.(*http2.SettingsFrame); !is || settings.IsAck() {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	_ = c.nc.SetDeadline(time.Time{})
	for {
		if err := c.frame(frame); err != nil {
			return fatal(err)
		}
		for {
			if frame, err = c.framer.ReadFrame(); err == nil {
				break
			}
			bad, is := errors.AsType[http2.StreamError](err)
			if !is {
				return fatal(err)
			}
			if err := c.reset(bad); err != nil {
				return err
			}
		}
	}
}

// fatal returns the error of the connection that err of reading or of a frame means.
func fatal(err error) error {
	if errors.Is(err, http2.ErrFrameTooLarge) {
		return http2.ConnectionError(http2.ErrCodeFrameSize)
	}
	return err
}

// pausing is what a connection is read from.
type pausing struct{ c *conn }

// Read implements [io.Reader].
func (p pausing) Read(b []byte) (int, error) {
	if err := p.c.pause(); err != nil {
		return 0, err
	}
	return p.c.nc.Read(b)
}

// pause is called before a read that may wait.
func (c *conn) pause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.grant()
	c.flush()
	c.heard.Store(c.s.now.Load())
	switch {
	case c.err != nil:
		return c.err
	case c.leaving && c.empty():
		return errGone
	}
	return nil
}

// empty reports whether nothing is under way.
func (c *conn) empty() bool { return len(c.streams) == 0 && c.running == 0 }

// grant tells the client that it may send again as many bytes as it did.
func (c *conn) grant() {
	if c.grants > 0 {
		c.out = appendWindowUpdate(c.out, 0, c.grants)
		c.takes += int64(c.grants)
		c.grants = 0
	}
}

// flush writes what there is to write.
func (c *conn) flush() {
	if len(c.out) == 0 {
		return
	}
	if c.err == nil {
		c.writing.Store(c.s.now.Load())
		_, c.err = c.nc.Write(c.out)
		c.writing.Store(0)
		if c.err != nil {
			_ = c.nc.Close() // whose reader sees it
		}
	}
	if cap(c.out) > mostIdleBytes {
		c.out = nil
	}
	c.out = c.out[:0]
}

// flushSoon writes after those that are ready to write, too.
func (c *conn) flushSoon() {
	if c.flushing {
		return
	}
	c.flushing = true
	c.mu.Unlock()
	runtime.Gosched()
	c.mu.Lock()
	c.flushing = false
	c.flush()
}

// reset ends a stream that has an error.
func (c *conn) reset(e http2.StreamError) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.StreamID > c.last { // its header fields were malformed
		if e.StreamID%2 == 0 {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		c.last = e.StreamID
	}
	c.end(c.streams[e.StreamID], e.Code)
	c.out = appendReset(c.out, e.StreamID, e.Code)
	return c.calm()
}

// end forgets a stream that was not answered to its end. A nil one is forgotten already.
func (c *conn) end(st *stream, code http2.ErrCode) {
	if st == nil {
		return
	}
	if st.cancel != nil {
		st.cancel()
	}
	if st.relay != nil {
		st.relay.reset(st.up, code)
	}
	c.forget(st)
}

// forget takes a stream out.
func (c *conn) forget(st *stream) {
	if c.streams[st.id] != st {
		return
	}
	delete(c.streams, st.id)
	c.unsent -= len(st.data)
	st.data, st.trailer = nil, nil
	if c.empty() {
		c.idle = time.Unix(0, c.s.now.Load())
	}
}

// calm counts a frame that leads to no answer.
func (c *conn) calm() error {
	if c.control++; c.control <= mostControl {
		return nil
	}
	if now := time.Now(); now.Sub(c.controlled) >= time.Second {
		c.control, c.controlled = 0, now
		return nil
	}
	return &calmError{"too many frames that ask for nothing"}
}

// frame handles one frame. The error ends the connection.
func (c *conn) frame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.DataFrame:
		return c.readData(f)
	case *http2.MetaHeadersFrame:
		return c.readHeaders(f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f := f.(type) {
	case *http2.WindowUpdateFrame:
		if err := c.readWindow(f.StreamID, int64(f.Increment)); err != nil {
			return err
		}
	case *http2.RSTStreamFrame:
		if f.StreamID > c.last {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		c.end(c.streams[f.StreamID], f.ErrCode)
	case *http2.SettingsFrame:
		if err := c.readSettings(f); err != nil {
			return err
		}
	case *http2.PingFrame:
		if err := c.readPing(f); err != nil {
			return err
		}
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			c.end(c.streams[f.StreamID], http2.ErrCodeProtocol)
			c.out = appendReset(c.out, f.StreamID, http2.ErrCodeProtocol)
		}
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case *http2.GoAwayFrame: // a client that goes closes the connection itself
	}
	return c.calm()
}

func (c *conn) readHeaders(f *http2.MetaHeadersFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := f.StreamID
	if id <= c.last {
		return c.readTrailer(f)
	}
	if id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.last = id
	refuse := func(code http2.ErrCode) error {
		c.out = appendReset(c.out, id, code)
		return c.calm()
	}
	var h head
	switch err := h.read(f.Fields, c.s.Method); {
	case f.Truncated:
		return refuse(http2.ErrCodeFrameSize) // as grpc-go
	case err != nil, f.HasPriority() && f.Priority.StreamDep == id, f.StreamEnded() && h.declared > 0:
		return refuse(http2.ErrCodeProtocol)
	case c.leaving: // the client knows that it was not taken
		return nil
	case len(c.streams) >= int(c.s.MaxStreams), c.running >= int(c.s.MaxStreams), c.unsent > mostUnsent:
		return refuse(http2.ErrCodeRefusedStream)
	}
	st := &stream{id: id, window: c.initial, declared: h.declared, arrived: time.Now()}
	if h.timeout > 0 {
		st.deadline = st.arrived.Add(h.timeout)
	}
	c.streams[id] = st
	c.idle = time.Time{}
	if h.plain && !f.StreamEnded() {
		st.fields = append(st.fields, f.Fields...)
		return nil
	}
	st.ended = f.StreamEnded()
	c.relayTo(st, f.Fields, st.ended)
	return nil
}

// readTrailer handles header fields on a stream that has some.
func (c *conn) readTrailer(f *http2.MetaHeadersFrame) error {
	st := c.streams[f.StreamID]
	switch {
	case st == nil:
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	case st.ended:
		c.end(st, http2.ErrCodeStreamClosed)
		c.out = appendReset(c.out, f.StreamID, http2.ErrCodeStreamClosed)
		return c.calm()
	case !f.StreamEnded(), len(f.PseudoFields()) > 0, st.declared >= 0 && st.declared != st.received:
		c.end(st, http2.ErrCodeProtocol)
		c.out = appendReset(c.out, f.StreamID, http2.ErrCodeProtocol)
		return c.calm()
	}
	// gRPC has no trailers of requests: only their end counts.
	st.ended = true
	if st.relay == nil {
		c.relayTo(st, st.fields, true)
	} else {
		st.relay.data(st.up, nil, true)
	}
	return nil
}

func (c *conn) readData(f *http2.DataFrame) error {
	c.mu.Lock()
	id, data, size := f.StreamID, f.Data(), f.Length
	if id > c.last {
		c.mu.Unlock()
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if c.takes -= int64(size); c.takes < 0 {
		c.mu.Unlock()
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	c.grants += size
	if c.grants > window/2 {
		c.grant()
	}
	st := c.streams[id]
	if st == nil || st.ended {
		defer c.mu.Unlock()
		if st == nil && len(data) == 0 && f.StreamEnded() {
			return c.calm() // the end of a stream that was answered early
		}
		c.end(st, http2.ErrCodeStreamClosed)
		c.out = appendReset(c.out, id, http2.ErrCodeStreamClosed)
		return c.calm()
	}
	st.received += int64(len(data))
	st.ended = f.StreamEnded()
	if st.declared >= 0 && (st.received > st.declared || st.ended && st.received != st.declared) {
		defer c.mu.Unlock()
		c.end(st, http2.ErrCodeProtocol)
		c.out = appendReset(c.out, id, http2.ErrCodeProtocol)
		return c.calm()
	}
	if st.relay == nil {
		if message, plain := c.message(st, data); plain {
			defer c.mu.Unlock()
			return c.call(st, message)
		}
		c.relayTo(st, st.fields, false)
	}
	r, up := st.relay, st.up
	if padding := int(size) - len(data); padding > 0 { // which is not relayed
		c.out = appendWindowUpdate(c.out, id, uint32(padding))
	}
	var err error
	if size == 0 && !st.ended {
		err = c.calm()
	}
	c.mu.Unlock()
	r.data(up, data, f.StreamEnded())
	r.wait()
	return err
}

// message returns the message of a DATA frame that is all that a plain call has.
func (c *conn) message(st *stream, data []byte) (message []byte, plain bool) {
	const prefix = 5 // whether it is compressed, and its length
	if !st.ended || len(data) < prefix || data[0] != 0 {
		return nil, false
	}
	message = data[prefix:]
	size := int(binary.BigEndian.Uint32(data[1:prefix]))
	return message, size == len(message) && size <= c.s.MaxMessageBytes
}

// call serves a plain call.
func (c *conn) call(st *stream, message []byte) error {
	st.fields = nil
	if c.control > 0 {
		c.control-- // it pays for a window update or a reset
	}
	var ctx context.Context = &c.until
	c.until.deadline = st.deadline
	if c.s.Waits {
		if st.deadline.IsZero() {
			ctx, st.cancel = context.WithCancel(c.ctx)
		} else {
			ctx, st.cancel = context.WithDeadline(c.ctx, st.deadline)
		}
	}
	if c.s.Tap != nil {
		let, err := c.s.Tap(ctx, &c.tap)
		if err != nil {
			c.refuse(st, err)
			return nil
		}
		ctx = let
	}
	if !c.s.Waits {
		c.answer(ctx, st, message)
		return nil
	}
	b := buffers.Get().(*buffer)
	b.request = append(b.request[:0], message...)
	c.running++
	c.s.calls.Add(1)
	go c.wait(ctx, st, b)
	return nil
}

// buffer has the memory of a call that may wait.
type buffer struct{ request, answer []byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// wait serves a call that may wait.
func (c *conn) wait(ctx context.Context, st *stream, b *buffer) {
	defer c.s.calls.Done()
	answer, err := c.s.Answer(ctx, b.answer[:0], b.request)
	b.answer = answer
	c.mu.Lock()
	st.cancel()
	c.running--
	if c.streams[st.id] == st {
		if err != nil {
			c.refuse(st, err)
		} else {
			c.head(st)
			c.send(st, answer)
		}
		c.flushSoon()
	}
	if c.empty() {
		c.idle = time.Unix(0, c.s.now.Load())
		c.leave()
	}
	c.mu.Unlock()
	if cap(b.answer) <= mostIdleBytes && cap(b.request) <= mostIdleBytes {
		buffers.Put(b)
	}
}

// leave closes a connection that the client should leave, and that has nothing under way,
// if its reader waits.
func (c *conn) leave() {
	if c.leaving && c.empty() {
		c.flush()
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // its reader sees it
	}
}

// prefixBytes is the size of what precedes an answer's message in a DATA frame.
const prefixBytes = frameHeader + 5

// answer decides a call now, and writes the answer where it is sent from.
func (c *conn) answer(ctx context.Context, st *stream, message []byte) {
	c.earlyPings = 0
	start := len(c.out)
	c.head(st)
	data := len(c.out)
	c.out = append(c.out, make([]byte, prefixBytes)...)
	out, err := c.s.Answer(ctx, c.out, message)
	if err != nil {
		c.out = out[:start]
		c.refuse(st, err)
		return
	}
	size := int64(len(out) - data - frameHeader)
	if size > min(mostFrameBytes, st.window, c.window) {
		message := append([]byte(nil), out[data+prefixBytes:]...)
		c.out = out[:data]
		c.send(st, message)
		return
	}
	st.window -= size
	c.window -= size
	appendFrameHeader(out[:data], http2.FrameData, 0, st.id, int(size))
	binary.BigEndian.PutUint32(out[data+frameHeader+1:], uint32(size)-5)
	c.out = appendHeaders(out, st.id, answerTrail, true)
	c.forget(st)
	c.flushLarge()
}

func (c *conn) flushLarge() {
	if len(c.out) > mostBuffered {
		c.flush()
	}
}

// head writes the header fields of an answer that has a message.
func (c *conn) head(st *stream) {
	c.out = appendHeaders(c.out, st.id, c.sized(answerHead), false)
}

// sized returns a header block that begins with the size of the table of fields, where
// the client must be told (RFC 7541, section 4.2).
func (c *conn) sized(block []byte) []byte {
	if !c.resize {
		return block
	}
	c.resize = false
	return append([]byte{0x20}, block...)
}

// refuse writes an answer that is an error.
func (c *conn) refuse(st *stream, err error) {
	c.out = appendHeaders(c.out, st.id, c.sized(appendRefusal(nil, err)), true)
	if st.cancel != nil {
		st.cancel()
	}
	c.done(st)
	c.flushLarge()
}

// send sends a message and the end of a call.
func (c *conn) send(st *stream, message []byte) {
	c.earlyPings = 0
	data := binary.BigEndian.AppendUint32(make([]byte, 1, 5+len(message)), uint32(len(message)))
	st.trailer = answerTrail
	c.queue(st, append(data, message...))
}

// queue sends data of a stream as far as the windows let it, and keeps the rest.
func (c *conn) queue(st *stream, data []byte) {
	before := st.blocked()
	st.data = append(st.data, data...)
	c.unsent += len(data)
	if before {
		return
	}
	if c.pump(st); c.streams[st.id] == st && st.blocked() {
		c.blocked = append(c.blocked, st)
	}
}

// pump sends what the windows let through of a stream.
func (c *conn) pump(st *stream) {
	sent := 0
	for len(st.data) > 0 {
		n := int(min(int64(len(st.data)), st.window, c.window, mostFrameBytes))
		if n <= 0 {
			break
		}
		end := st.finish && n == len(st.data)
		c.out = appendData(c.out, st.id, st.data[:n], end)
		st.data = st.data[n:]
		st.window -= int64(n)
		c.window -= int64(n)
		c.unsent -= n
		sent += n
		c.flushLarge()
	}
	if st.relay != nil && sent > 0 {
		st.relay.grant(uint32(sent))
	}
	if len(st.data) > 0 {
		return
	}
	st.data = nil
	if st.trailer != nil {
		c.out = appendHeaders(c.out, st.id, c.sized(st.trailer), true)
		st.finish = true
	}
	if st.finish {
		c.done(st)
	}
}

// done forgets a stream whose answer has been sent. A client that has not ended its part
// need not go on.
func (c *conn) done(st *stream) {
	if !st.ended {
		c.out = appendReset(c.out, st.id, http2.ErrCodeNo)
	}
	if st.relay != nil {
		st.relay.forget(st.up)
	}
	c.forget(st)
}

// pumpAll sends what new windows let through.
func (c *conn) pumpAll() {
	left := c.blocked[:0]
	for _, st := range c.blocked {
		if c.streams[st.id] != st {
			continue
		}
		if c.window > 0 {
			c.pump(st)
		}
		if c.streams[st.id] == st && st.blocked() {
			left = append(left, st)
		}
	}
	clear(c.blocked[len(left):])
	c.blocked = left
}

func (c *conn) readWindow(id uint32, by int64) error {
	if id == 0 {
		if c.window += by; c.window > mostWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.pumpAll()
		return nil
	}
	if id > c.last {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	st := c.streams[id]
	if st == nil {
		return nil
	}
	if st.window += by; st.window > mostWindow {
		c.end(st, http2.ErrCodeFlowControl)
		c.out = appendReset(c.out, id, http2.ErrCodeFlowControl)
		return nil
	}
	if st.relay != nil {
		st.relay.widen(st.up, uint32(by))
	}
	c.pumpAll()
	return nil
}

func (c *conn) readSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID { //nolint:exhaustive // the others do not concern a server that only answers
		case http2.SettingHeaderTableSize:
			c.resize = c.resize || s.Val < 4096
		case http2.SettingInitialWindowSize:
			by := int64(s.Val) - c.initial
			c.initial = int64(s.Val)
			for _, st := range c.streams {
				if st.window += by; st.window > mostWindow {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
			}
			for _, r := range c.relays {
				r.resize(c.initial)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.out = appendSettingsAck(c.out)
	c.pumpAll()
	return nil
}

func (c *conn) readPing(f *http2.PingFrame) error {
	if f.IsAck() {
		c.asked = time.Time{}
		if f.Data == pingDrain && !c.draining.IsZero() {
			c.goAway()
		}
		return nil
	}
	c.out = appendPing(c.out, f.Data, true)
	now := time.Now()
	if now.Sub(c.pinged) < pingMinTime && !c.pinged.IsZero() {
		c.earlyPings++
	}
	c.pinged = now
	if c.earlyPings > mostPingsEarly {
		return &calmError{"too_many_pings"}
	}
	return nil
}

// drain tells the client that it should leave, but takes what it sends before it knows.
func (c *conn) drain() {
	if !c.draining.IsZero() {
		return
	}
	c.draining = time.Now()
	c.out = appendGoAway(c.out, mostStreamID, http2.ErrCodeNo, "graceful_stop")
	c.out = appendPing(c.out, pingDrain, false)
	c.flush()
}

// goAway takes no new streams.
func (c *conn) goAway() {
	if c.leaving {
		return
	}
	c.leaving = true
	c.out = appendGoAway(c.out, c.last, http2.ErrCodeNo, "graceful_stop")
	c.flush()
	c.leave()
}

// look does what time makes due.
func (c *conn) look(now time.Time) {
	if since := c.writing.Load(); since != 0 && now.Sub(time.Unix(0, since)) > writeTime {
		_ = c.nc.Close() // whose writer sees it
		return
	}
	if !c.mu.TryLock() {
		return // it is busy
	}
	defer c.mu.Unlock()
	k := &c.s.Keepalive
	heard := time.Unix(0, c.heard.Load())
	switch {
	case !c.asked.IsZero() && now.Sub(c.asked) > k.Timeout && heard.Before(c.asked):
		_ = c.nc.Close() // nobody is there
		return
	case c.asked.IsZero() && k.Time > 0 && now.Sub(heard) > k.Time:
		c.asked = now
		c.out = appendPing(c.out, pingAlive, false)
		c.flush()
	}
	switch {
	case !c.draining.IsZero():
		if now.Sub(c.draining) > drainTime {
			c.goAway()
		}
		if c.s.Keepalive.MaxConnectionAgeGrace > 0 && c.age > 0 && now.Sub(c.opened) > c.age+k.MaxConnectionAgeGrace {
			_ = c.nc.Close()
			return
		}
	case c.age > 0 && now.Sub(c.opened) > c.age,
		k.MaxConnectionIdle > 0 && !c.idle.IsZero() && now.Sub(c.idle) > k.MaxConnectionIdle:
		c.drain()
	}
	// A client that has sent header fields only has given up at its deadline.
	for _, st := range c.streams {
		if st.fields != nil && !st.deadline.IsZero() && now.After(st.deadline) {
			c.refuse(st, context.DeadlineExceeded)
			c.flush()
		}
	}
}

// drainTime is how long a client has to answer the ping of drain.
const drainTime = 5 * time.Second

// String returns who is at the other end.
func (c *conn) String() string { return fmt.Sprint(c.nc.RemoteAddr()) }
