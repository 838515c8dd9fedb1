package redis

import (
	"encoding/binary"
	"runtime"
	"sync"
	"time"

	"github.com/distlimiter/ratelimit/internal/backend"
)

// lanes combine requests. A lane is of calls that may carry each other's
// requests: all to one server or, in a cluster, to one slot. While as many calls
// as the lane is wide are under way, later requests queue, and then go together in
// the next one, which decides them in the order in which they came. So what a
// call costs is shared by the more requests the more there are, a hot key costs a
// few calls a round trip whatever its rate, and all are decided just as they would
// be otherwise.
type lanes struct {
	call    func(ops []*op, deadline time.Time)
	patient time.Duration // how long nothing may move for others to wait
	width   int           // calls under way for others to wait
	shards  [64]laneShard
}

type laneShard struct {
	mu    sync.Mutex
	lanes map[place]*lane
	spare *lane // one that is closed
}

// place is what keys have in common that go in one call: 0 for all of a server;
// in a cluster it is made of what chooses their slot.
type place uint64

// place returns the place of the check's counter.
func (n naming) place(c *backend.Check, of id) place {
	switch {
	case !n.cluster:
		return 0
	case c.Shard > 0:
		of = idOf(c.Key[:c.Shard])
		return place(of[0]) | place(of[1])<<8 | place(of[2])<<16
	}
	return place(binary.LittleEndian.Uint64(of[:]))
}

// lane is the calls of one place. Its shard's mutex guards it.
type lane struct {
	calls int       // under way
	moved time.Time // when the last of them began
	queue []*op
}

const (
	// laneWidth is how many calls a server has under way before requests wait for
	// one. One more would hardly be quicker: the server decides one after the other.
	laneWidth = 2
	// mostGathered is how many checks are put together in a call, for whose time the
	// server does nothing else: some 300 µs.
	mostGathered = 128
)

func newLanes(timeout time.Duration, cluster bool, call func([]*op, time.Time)) *lanes {
	// Who waits for a call and then for one of his own may take the time of two.
	// Where calls take long, requests do not wait for them.
	l := &lanes{call: call, patient: timeout / 4, width: laneWidth}
	if cluster { // other slots have lanes of their own
		l.width = 1
	}
	for i := range l.shards {
		l.shards[i].lanes = map[place]*lane{}
	}
	return l
}

// do has the op decided, alone or with others, and its err set.
func (l *lanes) do(o *op) {
	s := &l.shards[uint64(o.place)%uint64(len(l.shards))]
	ln, wait := s.enter(o, l)
	if wait {
		<-o.wake
		if !o.leads {
			return
		}
	}
	// Requests that are about to come, because their goroutines can run, may still
	// join. On an idle machine there are none, and this costs nothing.
	runtime.Gosched()
	// This goroutine makes one call, and leaves the next one to the first that
	// waits for it.
	batch := s.take(ln, o)
	l.call(batch, o.deadline)
	for _, other := range batch[1:] {
		other.wake <- struct{}{}
	}
	if leader := s.leave(ln, o.place); leader != nil {
		leader.leads = true
		leader.wake <- struct{}{}
	}
}

// enter returns the op's lane, and whether the op has to wait in its queue.
func (s *laneShard) enter(o *op, l *lanes) (ln *lane, wait bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ln = s.lanes[o.place]; ln == nil {
		if ln, s.spare = s.spare, nil; ln == nil {
			ln = new(lane)
		}
		s.lanes[o.place] = ln
	}
	if ln.calls >= l.width && o.began.Sub(ln.moved) <= l.patient {
		ln.queue = append(ln.queue, o)
		return ln, true
	}
	ln.calls++
	ln.moved = o.began
	return ln, false
}

// take returns the op with as many of those that wait as one call takes.
func (s *laneShard) take(ln *lane, o *op) []*op {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, checks := 0, len(o.checks)
	for n < len(ln.queue) && checks+len(ln.queue[n].checks) <= mostGathered {
		checks += len(ln.queue[n].checks)
		n++
	}
	o.batch = append(append(o.batch[:0], o), ln.queue[:n]...)
	ln.drop(n)
	return o.batch
}

// leave ends a call. It returns who is to make the next one, if any waits.
func (s *laneShard) leave(ln *lane, at place) *op {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(ln.queue) > 0 {
		leader := ln.queue[0]
		ln.drop(1)
		ln.moved = time.Now()
		return leader
	}
	if ln.calls--; ln.calls == 0 {
		delete(s.lanes, at)
		s.spare = ln
	}
	return nil
}

// drop takes the first n off the queue.
func (ln *lane) drop(n int) {
	rest := copy(ln.queue, ln.queue[n:])
	clear(ln.queue[rest:])
	ln.queue = ln.queue[:rest]
}
