package lean

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
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
	// mostKept is how many bytes of header fields of calls may wait for a message.
	mostKept = 1 << 20
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

// conn is a connection of a client. One goroutine reads; the holder of mu writes.
type conn struct {
	s       *Server
	nc      net.Conn
	in      *bufio.Reader
	framer  *http2.Framer // reads only
	tap     tap.Info
	relayed *relay // that got something of the last frame
	takes   int64  // how many bytes of DATA the client may send
	grants  uint32 // bytes of DATA read, which the client has not been told to send again
	partial int    // bytes read since the last whole frame
	known   block  // the last header block, if it may come again

	writing atomic.Int64 // since when a write is under way, as Server.now; 0: none
	heard   atomic.Int64 // when frames were read last, as Server.now

	mu         sync.Mutex
	out        []byte // not yet written
	flushing   bool   // somebody will write soon
	err        error  // of writing
	streams    map[uint32]*stream
	last       uint32    // the highest stream of the client
	taken      uint32    // the highest that was not ignored
	window     int64     // how many bytes of DATA the client takes
	initial    int64     // window of a new stream
	blocked    []*stream // those with data that wait for a window, by age
	unsent     int       // bytes that wait so
	kept       int       // bytes of header fields of calls that have no message yet
	spare      *stream   // to be used again
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
	c.tap.FullMethodName = s.Method
	c.opened = time.Now()
	c.idle, c.controlled = c.opened, c.opened
	c.heard.Store(int64(c.opened.Sub(s.started)))
	if age := s.Keepalive.MaxConnectionAge; age > 0 {
		// Not all connections of a restart at once: a tenth more or less.
		c.age = age + time.Duration((rand.Float64()-0.5)*0.2*float64(age))
	}
	// Now, because nothing may be sent before.
	c.out = appendSettings(c.out,
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: s.MaxStreams},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: s.MaxHeaderBytes})
	c.out = appendWindowUpdate(c.out, 0, window-defaultWindow)
	return c
}

// serve reads the connection to its end.
func (c *conn) serve() {
	err := c.read()
	c.mu.Lock()
	if fatal, is := errors.AsType[http2.ConnectionError](err); is {
		c.out = appendGoAway(c.out, c.taken, http2.ErrCode(fatal), "")
	} else if calm, is := errors.AsType[*calmError](err); is {
		c.out = appendGoAway(c.out, c.taken, http2.ErrCodeEnhanceYourCalm, calm.why)
	}
	c.flush()
	for _, r := range c.relays {
		r.close()
	}
	for _, st := range c.streams {
		st.ctx.end(context.Canceled)
	}
	c.mu.Unlock()
	if err != nil && !errors.Is(err, io.EOF) {
		// A close with unread bytes would take the GOAWAY away from the client.
		_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
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
		if c.relayed != nil {
			c.relayed.wait()
			c.relayed = nil
		}
		for {
			frame, err = c.next()
			c.partial = 0
			if err == nil {
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

// next returns the next frame; nil for the header fields of a call that are those of the
// last one, which it has handled.
func (c *conn) next() (http2.Frame, error) {
	h, err := c.framer.ReadFrameHeader()
	if err != nil {
		return nil, err
	}
	again, err := c.known.peek(h, c.in)
	if err != nil {
		return nil, err
	}
	if !again || h.StreamID <= c.last {
		return c.framer.ReadFrameForHeader(h)
	}
	_, err = c.in.Discard(int(h.Length)) // which was looked at
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return nil, c.begin(h.StreamID, &c.known.head, c.known.fields, false)
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
	n, err := p.c.nc.Read(b)
	// The framer bounds header fields, but not how many frames without any it reads.
	if p.c.partial += n; p.c.partial > 4*int(p.c.s.MaxHeaderBytes)+2*readBytes {
		return n, &calmError{"too many frames of one header block"}
	}
	return n, err
}

// pause is called before a read that may wait.
func (c *conn) pause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
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

// begun notes a new stream of the client.
func (c *conn) begun(id uint32) error {
	if id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.last = id
	if !c.leaving {
		c.taken = id
	}
	return nil
}

// reset ends a stream that has an error.
func (c *conn) reset(e http2.StreamError) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.StreamID > c.last { // its header fields were malformed
		if err := c.begun(e.StreamID); err != nil {
			return err
		}
	}
	return c.abort(e.StreamID, e.Code)
}

// abort ends a stream, or what is left of it, because of a frame that it can't have.
func (c *conn) abort(id uint32, code http2.ErrCode) error {
	c.end(c.streams[id], code)
	c.out = appendReset(c.out, id, code)
	return c.calm()
}

// end forgets a stream that was not answered to its end. A nil one is forgotten already.
func (c *conn) end(st *stream, code http2.ErrCode) {
	if st == nil {
		return
	}
	st.ctx.end(context.Canceled)
	if st.relay != nil {
		st.relay.reset(st.up, code)
		c.relayed = st.relay
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
	if st.relay != nil && len(st.data) > 0 {
		st.relay.grant(uint32(len(st.data)))
	}
	c.served(st)
	st.data, st.trailer = nil, nil
	if c.empty() {
		c.idle = c.s.at(c.s.now.Load())
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

// paid is called for a call's header fields and for its message. They allow for one frame
// each that leads to no answer: a client that gives up resets every call.
func (c *conn) paid() {
	if c.control > 0 {
		c.control--
	}
}

// frame handles one frame. The error ends the connection.
func (c *conn) frame(f http2.Frame) error {
	switch f := f.(type) {
	case nil:
		return nil
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
		st := c.streams[f.StreamID]
		if st == nil && f.ErrCode == http2.ErrCodeCancel && c.s.Late != nil {
			c.s.Late()
		}
		c.end(st, f.ErrCode)
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
			return c.abort(f.StreamID, http2.ErrCodeProtocol)
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
	var h head
	var refusal http2.ErrCode
	switch err := h.read(f.Fields, c.s.Method); {
	case f.Truncated:
		refusal = http2.ErrCodeFrameSize // as grpc-go
	case err != nil, f.HasPriority() && f.Priority.StreamDep == id, f.StreamEnded() && h.declared > 0:
		refusal = http2.ErrCodeProtocol
	default:
		c.known.learn(&h, f.Fields)
		return c.begin(id, &h, f.Fields, f.StreamEnded())
	}
	if err := c.begun(id); err != nil {
		return err
	}
	c.paid()
	c.out = appendReset(c.out, id, refusal)
	return c.calm()
}

// begin begins a stream whose header fields are in order. It keeps them; end: no DATA
// follows.
func (c *conn) begin(id uint32, h *head, fields []hpack.HeaderField, end bool) error {
	if err := c.begun(id); err != nil {
		return err
	}
	c.paid()
	switch {
	case c.leaving: // the client knows that it was not taken
		return c.calm()
	case len(c.streams) >= int(c.s.MaxStreams), c.running >= int(c.s.MaxStreams), c.unsent > mostUnsent, c.kept > mostKept:
		c.paid() // the message and a reset may be on their way
		c.out = appendReset(c.out, id, http2.ErrCodeRefusedStream)
		return nil
	}
	st := c.spare
	c.spare = nil
	if st == nil {
		st = new(stream)
	}
	*st = stream{id: id, window: c.initial, takes: window, declared: h.declared}
	if h.timeout > 0 {
		st.ctx.deadline = time.Now().Add(h.timeout)
	}
	c.streams[id] = st
	c.idle = time.Time{}
	if h.plain && !end {
		st.fields, st.kept = fields, h.size
		c.kept += h.size
		return nil
	}
	st.ended = end
	c.relayTo(st, fields, end)
	c.relayed = st.relay
	return nil
}

// readTrailer handles header fields on a stream that has some.
func (c *conn) readTrailer(f *http2.MetaHeadersFrame) error {
	st := c.streams[f.StreamID]
	switch {
	case st == nil && c.leaving: // of a stream that was not taken
		return c.calm()
	case st == nil:
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	case st.ended:
		return c.abort(f.StreamID, http2.ErrCodeStreamClosed)
	case !f.StreamEnded(), len(f.PseudoFields()) > 0, st.declared >= 0 && st.declared != st.received:
		return c.abort(f.StreamID, http2.ErrCodeProtocol)
	}
	// gRPC has no trailers of requests: only their end counts.
	st.ended = true
	if st.relay == nil {
		c.relayTo(st, st.fields, true)
	} else {
		st.relay.data(st.up, nil, true)
	}
	c.relayed = st.relay
	return nil
}

func (c *conn) readData(f *http2.DataFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, data, size := f.StreamID, f.Data(), f.Length
	if id > c.last {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if c.takes -= int64(size); c.takes < 0 {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	c.grants += size
	if c.grants > window/4 {
		c.grant()
	}
	st := c.streams[id]
	switch {
	case st == nil && (c.leaving || len(data) == 0 && f.StreamEnded()):
		return c.calm() // of a stream that was not taken, or was answered early
	case st == nil || st.ended:
		return c.abort(id, http2.ErrCodeStreamClosed)
	}
	if st.takes -= int64(size); st.takes < 0 {
		return c.abort(id, http2.ErrCodeFlowControl)
	}
	st.received += int64(len(data))
	st.ended = f.StreamEnded()
	if st.declared >= 0 && (st.received > st.declared || st.ended && st.received != st.declared) {
		return c.abort(id, http2.ErrCodeProtocol)
	}
	if st.relay == nil {
		if message, plain := c.message(st, data); plain {
			return c.call(st, message)
		}
		c.relayTo(st, st.fields, false)
	}
	if padding := int(size) - len(data); padding > 0 { // which is not relayed
		st.takes += int64(padding)
		c.out = appendWindowUpdate(c.out, id, uint32(padding))
	}
	st.relay.data(st.up, data, st.ended)
	c.relayed = st.relay
	if len(data) == 0 && !st.ended {
		return c.calm()
	}
	return nil
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
		c.relayed = st.relay
	}
	c.pumpAll()
	return nil
}

func (c *conn) readSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	initial := c.initial
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID { //nolint:exhaustive // the others do not concern a server that only answers
		case http2.SettingHeaderTableSize:
			c.resize = c.resize || s.Val < 4096
		case http2.SettingInitialWindowSize:
			initial = int64(s.Val)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Once, however often a frame sets it.
	if by := initial - c.initial; by != 0 {
		c.initial = initial
		for _, st := range c.streams {
			if st.window += by; st.window > mostWindow {
				return http2.ConnectionError(http2.ErrCodeFlowControl)
			}
		}
		for _, r := range c.relays {
			r.resize(c.initial)
		}
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
