package lean

import (
	"context"
	"encoding/binary"
	"runtime"
	"sync"

	"golang.org/x/net/http2"
)

// grant tells the client that it may send again as many bytes as it did.
func (c *conn) grant() {
	if c.grants > 0 {
		c.out = appendWindowUpdate(c.out, 0, c.grants)
		c.takes += int64(c.grants)
		c.grants = 0
	}
}

// flush writes what is not yet written.
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

// call serves a plain call.
func (c *conn) call(st *stream, message []byte) error {
	c.served(st)
	c.paid()
	var ctx context.Context = &st.ctx
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
	c.s.work(job{c, ctx, st, b})
	return nil
}

// served is called when it is known who serves a stream.
func (c *conn) served(st *stream) {
	c.kept -= st.kept
	st.kept = 0
	st.fields = nil
}

// buffer has the memory of a call that may wait.
type buffer struct{ request, answer []byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// wait serves a call that may wait.
func (c *conn) wait(ctx context.Context, st *stream, b *buffer) {
	answer, err := c.s.Answer(ctx, b.answer[:0], b.request)
	b.answer = answer
	c.mu.Lock()
	c.running--
	if c.streams[st.id] == st {
		if err != nil {
			c.refuse(st, err)
		} else {
			c.reply(st, answer)
		}
		c.flushSoon()
	}
	if c.empty() {
		c.idle = c.s.at(c.s.now.Load())
		c.leave()
	}
	c.mu.Unlock()
	if cap(b.answer) <= mostIdleBytes && cap(b.request) <= mostIdleBytes {
		buffers.Put(b)
	}
}

// prefixBytes is the size of what precedes an answer's message in a DATA frame.
const prefixBytes = frameHeader + 5

// answer decides a call now, and writes the answer where it is sent from.
func (c *conn) answer(ctx context.Context, st *stream, message []byte) {
	c.earlyPings = 0
	start, resize := len(c.out), c.resize
	c.head(st)
	data := len(c.out)
	c.out = append(c.out, make([]byte, prefixBytes)...)
	out, err := c.s.Answer(ctx, c.out, message)
	if err != nil {
		c.out, c.resize = out[:start], resize
		c.refuse(st, err)
		return
	}
	size := len(out) - data - frameHeader
	if !c.fits(st, size) {
		message := append([]byte(nil), out[data+prefixBytes:]...)
		c.out = out[:data]
		c.send(st, message)
		return
	}
	appendPrefix(out[:data], st.id, size)
	c.out = out
	c.finish(st, size)
	c.spare = st // nobody else has seen it
}

// reply writes an answer that has a message.
func (c *conn) reply(st *stream, message []byte) {
	c.earlyPings = 0
	c.head(st)
	size := prefixBytes - frameHeader + len(message)
	if !c.fits(st, size) {
		c.send(st, message)
		return
	}
	c.out = append(appendPrefix(c.out, st.id, size), message...)
	c.finish(st, size)
}

// appendPrefix appends what precedes the message in a DATA frame of size bytes.
func appendPrefix(b []byte, stream uint32, size int) []byte {
	b = append(appendFrameHeader(b, http2.FrameData, 0, stream, size), 0) // not compressed
	return binary.BigEndian.AppendUint32(b, uint32(size-(prefixBytes-frameHeader)))
}

// fits reports whether a DATA frame of size bytes can be sent now.
func (c *conn) fits(st *stream, size int) bool {
	return int64(size) <= min(mostFrameBytes, st.window, c.window)
}

// finish ends a stream of which a DATA frame of size bytes is written.
func (c *conn) finish(st *stream, size int) {
	st.window -= int64(size)
	c.window -= int64(size)
	c.out = appendHeaders(c.out, st.id, answerTrail, true)
	st.ctx.end(context.Canceled)
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
	st.ctx.end(context.Canceled)
	c.done(st)
	c.flushLarge()
}

// send sends a message and the end of a call, as the windows let it.
func (c *conn) send(st *stream, message []byte) {
	st.ctx.end(context.Canceled)
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
		c.earlyPings = 0
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
