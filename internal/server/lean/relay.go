package lean

import (
	"net"
	"slices"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// mostQueued is how many bytes may wait for the grpc-go server before their client is
// not read any more.
const mostQueued = 256 << 10

// relay carries streams of one client's connection to the grpc-go server and back. Each
// has a number of its own there. Windows of streams are those of the client and of
// grpc-go, because each side's frames pass unchanged; the window of the connection is
// the relay's own, on both sides.
//
// Three goroutines use it: the client's reader, which must not wait for what only the
// others can do while it holds conn.mu; one that writes to grpc-go; and one that reads
// from it. Where both locks are taken, conn.mu comes first.
type relay struct {
	c    *conn
	pipe net.Conn

	mu      sync.Mutex
	changed sync.Cond
	queue   []byte // frames to write
	closed  bool
	last    uint32
	streams map[uint32]*stream
	window  int64  // how many bytes of DATA grpc-go takes
	held    []held // what it does not take yet
	waiting int    // size of held
	initial int64  // the window that grpc-go was told new streams have
}

// held is DATA that waits for the window of the connection.
type held struct {
	up   uint32
	data []byte
	end  bool
}

// size is the number of bytes of its frame.
func (h held) size() int { return frameHeader + len(h.data) }

// relayTo begins to relay a stream; end: no DATA follows. c.mu is held.
func (c *conn) relayTo(st *stream, fields []hpack.HeaderField, end bool) {
	r := c.relay
	if r == nil {
		r = &relay{c: c, pipe: c.s.rest.dial(c.nc), streams: make(map[uint32]*stream), window: defaultWindow, initial: c.initial}
		r.changed.L = &r.mu
		r.queue = append(r.queue, http2.ClientPreface...)
		r.queue = appendSettings(r.queue, http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(c.initial)},
			http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		c.relay = r
		c.relays = append(c.relays, r)
		go r.write()
		go r.read()
	}
	r.open(st, fields, end)
	c.served(st)
}

// open begins a stream at the grpc-go server; c.mu is held.
func (r *relay) open(st *stream, fields []hpack.HeaderField, end bool) {
	var block []byte
	for _, f := range fields {
		block = appendField(block, f.Name, f.Value)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last += 2
	st.relay, st.up = r, r.last-1
	r.streams[st.up] = st
	r.queue = appendHeaders(r.queue, st.up, block, end)
	if by := st.window - r.initial; by > 0 { // updates that came before
		r.queue = appendWindowUpdate(r.queue, st.up, uint32(by))
	}
	r.changed.Broadcast()
}

// data sends DATA of a stream, or keeps it for a while.
func (r *relay) data(up uint32, data []byte, end bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams[up] == nil {
		return
	}
	if len(r.held) > 0 || int64(len(data)) > r.window {
		h := held{up, slices.Clone(data), end}
		r.held = append(r.held, h)
		r.waiting += h.size()
		return
	}
	r.window -= int64(len(data))
	r.queue = appendData(r.queue, up, data, end)
	r.changed.Broadcast()
}

// wait waits while too much is queued. It must not hold conn.mu.
func (r *relay) wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.closed && len(r.queue)+r.waiting > mostQueued {
		r.changed.Wait()
	}
}

// reset ends a stream at the grpc-go server.
func (r *relay) reset(up uint32, code http2.ErrCode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams[up] == nil {
		return
	}
	r.drop(up)
	r.queue = appendReset(r.queue, up, code)
}

// forget takes out a stream that both sides have ended.
func (r *relay) forget(up uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(up)
}

// drop takes out a stream and what is held of it; r.mu is held.
func (r *relay) drop(up uint32) {
	delete(r.streams, up)
	r.held = slices.DeleteFunc(r.held, func(h held) bool {
		if h.up == up {
			r.waiting -= h.size()
		}
		return h.up == up
	})
	r.changed.Broadcast()
}

// widen passes a window update of a stream on.
func (r *relay) widen(up, by uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams[up] != nil {
		r.queue = appendWindowUpdate(r.queue, up, by)
		r.changed.Broadcast()
	}
}

// resize passes the client's new window of all streams on.
func (r *relay) resize(to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.initial = to
	r.queue = appendSettings(r.queue, http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(to)})
	r.changed.Broadcast()
}

// grant lets grpc-go send as many bytes again as the client was sent.
func (r *relay) grant(by uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = appendWindowUpdate(r.queue, 0, by)
	r.changed.Broadcast()
}

// close ends the connection to the grpc-go server.
func (r *relay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.changed.Broadcast()
	_ = r.pipe.Close() // in memory
}

// write writes what is queued until the relay is closed.
func (r *relay) write() {
	var spare []byte
	for {
		r.mu.Lock()
		for !r.closed && len(r.queue) == 0 {
			r.changed.Wait()
		}
		if r.closed {
			r.mu.Unlock()
			return
		}
		frames := r.queue
		r.queue = spare[:0]
		r.changed.Broadcast() // for wait
		r.mu.Unlock()
		if _, err := r.pipe.Write(frames); err != nil {
			r.close()
			return
		}
		if spare = frames; cap(spare) > mostIdleBytes {
			spare = nil
		}
	}
}

// read carries frames of the grpc-go server to the client until the connection ends.
func (r *relay) read() {
	framer := http2.NewFramer(nil, r.pipe)
	framer.SetReuseFrames()
	framer.ReadMetaHeaders = hpack.NewDecoder(0, nil)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			break
		}
		r.frame(frame)
	}
	r.close()
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.relay == r {
		c.relay = nil
	}
	c.relays = slices.DeleteFunc(c.relays, func(other *relay) bool { return other == r })
	r.mu.Lock()
	left := r.streams
	r.streams = nil
	r.mu.Unlock()
	for _, st := range left {
		st.relay = nil
		c.out = appendReset(c.out, st.id, http2.ErrCodeInternal) // it may have been served
		c.forget(st)
	}
	c.flush()
	c.leave()
}

// frame handles a frame of the grpc-go server.
func (r *relay) frame(f http2.Frame) {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		r.settings(f)
		return
	case *http2.PingFrame:
		if !f.IsAck() {
			r.mu.Lock()
			r.queue = appendPing(r.queue, f.Data, true)
			r.changed.Broadcast()
			r.mu.Unlock()
		}
		return
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			r.widened(int64(f.Increment))
			return
		}
	}
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, away := f.(*http2.GoAwayFrame); away {
		if c.relay == r { // new streams take another
			c.relay = nil
		}
		return
	}
	up := f.Header().StreamID
	r.mu.Lock()
	st := r.streams[up]
	r.mu.Unlock()
	if st == nil || c.streams[st.id] != st {
		if data, is := f.(*http2.DataFrame); is && data.Length > 0 {
			r.grant(data.Length)
		}
		return
	}
	c.answered(st, f)
	c.flush()
}

// answered passes a frame of the grpc-go server on to the client; c.mu is held.
func (c *conn) answered(st *stream, f http2.Frame) {
	c.earlyPings = 0
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		var block []byte
		for _, field := range f.Fields {
			block = appendField(block, field.Name, field.Value)
		}
		switch {
		case !f.StreamEnded():
			c.out = appendHeaders(c.out, st.id, c.sized(block), false)
		case st.blocked():
			st.trailer = block
		default:
			c.out = appendHeaders(c.out, st.id, c.sized(block), true)
			c.done(st)
			c.leave()
		}
	case *http2.DataFrame:
		st.finish = f.StreamEnded()
		c.queue(st, f.Data())
		if padding := int(f.Length) - len(f.Data()); padding > 0 {
			st.relay.grant(uint32(padding))
		}
	case *http2.RSTStreamFrame:
		if f.ErrCode == http2.ErrCodeNo && (st.finish || st.trailer != nil) {
			return // its answer waits for the client's windows, and done comes after it
		}
		c.out = appendReset(c.out, st.id, f.ErrCode)
		st.relay.forget(st.up)
		c.forget(st)
		c.leave()
	case *http2.WindowUpdateFrame:
		st.takes += int64(f.Increment)
		c.out = appendWindowUpdate(c.out, st.id, f.Increment)
	}
}

func (r *relay) settings(f *http2.SettingsFrame) {
	if f.IsAck() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = appendSettingsAck(r.queue)
	r.changed.Broadcast()
}

// widened sends what the new window of the connection lets through.
func (r *relay) widened(by int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.window += by
	for len(r.held) > 0 && int64(len(r.held[0].data)) <= r.window {
		h := r.held[0]
		r.held = r.held[1:]
		r.waiting -= h.size()
		r.window -= int64(len(h.data))
		r.queue = appendData(r.queue, h.up, h.data, h.end)
	}
	r.changed.Broadcast()
}

// pipes is the listener of the grpc-go server: connections in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

// dial returns a connection to the grpc-go server, on which client's address is the peer.
func (p *pipes) dial(client net.Conn) net.Conn {
	near, far := net.Pipe()
	go func() {
		select {
		case p.conns <- peer{far, client}:
		case <-p.done:
			_ = far.Close() // in memory
		}
	}()
	return near
}

// Accept implements [net.Listener].
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// Addr implements [net.Listener].
func (p *pipes) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// peer is a connection in memory of a client that is elsewhere.
type peer struct {
	net.Conn
	client net.Conn
}

// LocalAddr implements [net.Conn].
func (p peer) LocalAddr() net.Addr { return p.client.LocalAddr() }

// RemoteAddr implements [net.Conn].
func (p peer) RemoteAddr() net.Addr { return p.client.RemoteAddr() }
