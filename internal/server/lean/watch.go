package lean

import (
	"context"
	"time"

	"golang.org/x/net/http2"
)

// leave closes a connection that the client should leave, and that has nothing under way,
// if its reader waits.
func (c *conn) leave() {
	if c.leaving && c.empty() {
		c.flush()
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // its reader sees it
	}
}

// drain tells the client that it should leave, but takes what it sends before it knows.
func (c *conn) drain() {
	if !c.draining.IsZero() {
		return
	}
	c.draining = time.Now()
	c.out = appendGoAway(c.out, mostStreamID, http2.ErrCodeNo, "graceful_stop")
	c.out = appendPing(c.out, pingDrain, false)
}

// goAway takes no new streams.
func (c *conn) goAway() {
	if c.leaving {
		return
	}
	c.leaving = true
	c.out = appendGoAway(c.out, c.taken, http2.ErrCodeNo, "graceful_stop")
}

// look does what time makes due. Its caller has other connections to look at, so it leaves
// what may wait for the client to others.
func (c *conn) look(now time.Time) {
	if since := c.writing.Load(); since != 0 && now.Sub(c.s.at(since)) > writeTime {
		c.kill()
		return
	}
	if !c.mu.TryLock() {
		return // it is busy
	}
	defer c.mu.Unlock()
	if c.due(now); len(c.out) > 0 {
		go func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.flush()
			c.leave()
		}()
	}
}

// kill closes the connection, whose reader and writer see it. The end of TLS may take some
// seconds, because it is written, too.
func (c *conn) kill() {
	go func() { _ = c.nc.Close() }()
}

// due queues what is due.
func (c *conn) due(now time.Time) {
	k := &c.s.Keepalive
	heard := c.s.at(c.heard.Load())
	if !heard.Before(c.asked) {
		c.asked = time.Time{} // whatever was heard
	}
	switch {
	case !c.asked.IsZero() && now.Sub(c.asked) > k.Timeout:
		c.kill() // nobody is there
		return
	case c.asked.IsZero() && k.Time > 0 && now.Sub(heard) > k.Time:
		c.asked = now
		c.out = appendPing(c.out, pingAlive, false)
	}
	switch {
	case !c.draining.IsZero():
		if now.Sub(c.draining) > drainTime {
			c.goAway()
		}
		if k.MaxConnectionAgeGrace > 0 && c.age > 0 && now.Sub(c.opened) > c.age+k.MaxConnectionAgeGrace {
			c.kill()
			return
		}
	case c.age > 0 && now.Sub(c.opened) > c.age,
		k.MaxConnectionIdle > 0 && !c.idle.IsZero() && now.Sub(c.idle) > k.MaxConnectionIdle:
		c.drain()
	}
	// A client that has sent header fields only has given up at its deadline.
	for _, st := range c.streams {
		if st.kept > 0 && !st.ctx.deadline.IsZero() && now.After(st.ctx.deadline) {
			c.refuse(st, context.DeadlineExceeded)
		}
	}
}

// drainTime is how long a client has to answer the ping of drain.
const drainTime = 5 * time.Second
