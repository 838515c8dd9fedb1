package redis

import (
	"encoding/binary"
	"runtime"
	"sync"
	"time"

	"github.com/distlimiter/ratelimit/internal/backend"
)

// lanes combine requests. A lane is of calls that may carry each other's
// requests: all to one server or, in a cluster, to one slot. While a call is under
// way, later requests queue, and then go together in the next one, which decides
// them in the order in which they came. So what a call costs is shared by the more
// requests the more there are, a hot key costs a few calls a round trip whatever
// its rate, and all are decided just as they would be otherwise.
type lanes struct {
	call    func(ops []*op, deadline time.Time)
	patient time.Duration // how long nothing may move for others to wait
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
	// pace is how long after a call began requests wait for its end, if they will
	// all go in the next one, rather than have one of them begin a further call.
	// Where the server is near they do wait, and what a call costs is shared by the
	// most; where it is far they need not wait for a whole round trip.
	pace = time.Millisecond
	// mostCalls is how many calls are under way at the most while they do end. More
	// would hardly be quicker: the server decides one after the other.
	mostCalls = 4
	// mostGathered is how many checks are put together in a call, for whose time the
	// server does nothing else: some 300 µs.
	mostGathered = 128
)

func newLanes(timeout time.Duration, call func([]*op, time.Time)) *lanes {
	// Who waits for a call and then for one of his own may take the time of two.
	// Where calls take long, requests do not wait for them.
	l := &lanes{call: call, patient: timeout / 4}
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
	for _, other := range batch {
		if other != o {
			other.wake <- struct{}{}
		}
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
	if ln.busy(o.began, l.patient) {
		ln.queue = append(ln.queue, o)
		return ln, true
	}
	ln.calls++
	ln.moved = o.began
	return ln, false
}

// busy says whether a request waits for the calls that are under way.
func (ln *lane) busy(now time.Time, patient time.Duration) bool {
	switch since := now.Sub(ln.moved); {
	case ln.calls == 0 || since > patient:
		return false
	case ln.calls < mostCalls:
		return since <= pace && len(ln.queue) < mostGathered
	}
	return true
}

// take returns the op with as many of those that wait as one call takes, in the
// order in which they came.
func (s *laneShard) take(ln *lane, o *op) []*op {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, checks := 0, len(o.checks)
	for n < len(ln.queue) && checks+len(ln.queue[n].checks) <= mostGathered {
		checks += len(ln.queue[n].checks)
		n++
	}
	o.batch = o.batch[:0]
	if o.leads { // it came before those that still wait
		o.batch = append(o.batch, o)
	}
	o.batch = append(o.batch, ln.queue[:n]...)
	if !o.leads {
		o.batch = append(o.batch, o)
	}
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
