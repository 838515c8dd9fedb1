package redis

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
)

// lanes combine requests. A lane is a series of calls that may carry each other's
// requests: all requests to one server or, where keys are spread, of one hash tag.
// While a call is under way, later requests queue. They then go together in the next
// call, which decides them in the order in which they came. So the cost of a call is
// shared by more requests under more load, and a hot key costs a few calls per round
// trip whatever its rate. The decisions are the same as without combining.
//
// Who owns a request, from do to its answer:
//
//	caller                    │ lane, under the lock   │ goroutine of the lane
//	                          │ of its shard           │
//	do: the op gets a copy    │                        │
//	    of what it brought    │                        │
//	  the lane is free ───────┼─> calls++ ─────────────┼─> a batch of this op
//	  the lane is busy ───────┼─> queue ──────── take ─┼─> and of those that wait
//	wait, to its bound        │                        │   call: one for all
//	  copies the answer <─────┼────────────────────────┼── decided
//	release                   │                        │   release
//	                          │   queue ─────── leave ─┼─> the next batch; of none:
//	                          │   calls-- <────────────┼── end
//
// The last of caller and goroutine to release the op frees it. A caller whose bound
// has come does not wait for the goroutine. If its op is still in the queue, it is
// never sent: see turn.
type lanes struct {
	call   func(ops []*op, deadline time.Time)
	apart  bool // each request goes in a call of its own
	shards [64]laneShard

	// Calls are made by goroutines of their own; see turn. Some of them, whose stack
	// has grown already, wait for the next call.
	work    chan task
	idle    atomic.Int32
	stop    context.Context
	end     context.CancelFunc
	workers sync.WaitGroup
}

// task is an op that begins a call of a lane; without a lane it goes alone.
type task struct {
	shard *laneShard
	lane  *lane
	op    *op
}

type laneShard struct {
	mu    sync.Mutex
	lanes map[keys.Slot]*lane
	spare *lane // a closed lane for reuse
}

// lane is the calls of one slot. Its shard's mutex guards it.
type lane struct {
	calls int       // under way
	moved time.Time // when the last of them began
	queue []*op
}

const (
	// pace is how long after the start of a call later requests wait for its end,
	// if they all fit in the next call. After that one of them begins a further call.
	// If the server is near, requests do wait, and most of them share a call. If it
	// is far, they need not wait for a whole round trip.
	pace = time.Millisecond
	// mostCalls is the most calls under way in a lane that is not stalled. More would
	// hardly be quicker: the server decides one after the other.
	mostCalls = 4
	// mostGathered is the most checks that are combined in a call. For its time, some
	// 300 µs, the server does nothing else.
	mostGathered = 128
	// stalledAfter is the time without progress after which a lane counts as stalled:
	// where calls take long, requests do not wait for them.
	stalledAfter = 5 * time.Millisecond
	// mostIdle is the most goroutines that wait for calls.
	mostIdle = 64
)

func newLanes(call func([]*op, time.Time)) *lanes {
	l := &lanes{call: call, work: make(chan task)}
	l.stop, l.end = context.WithCancel(context.Background())
	for i := range l.shards {
		l.shards[i].lanes = map[keys.Slot]*lane{}
	}
	return l
}

// do decides the op, alone or with others of its slot, within its bound.
func (l *lanes) do(o *op, at keys.Slot) error {
	out := o.out
	o.own()
	o.slot = at
	t := task{op: o}
	queued := false
	if !l.apart {
		t.shard = &l.shards[uint64(at)%uint64(len(l.shards))]
		t.lane, queued = t.shard.enter(o)
	}
	if !queued {
		l.start(t)
	}
	return o.wait(out)
}

func (l *lanes) start(t task) {
	select {
	case l.work <- t:
	default:
		l.workers.Go(func() { l.run(t) })
	}
}

// run makes the calls of a task, and then those of later tasks.
func (l *lanes) run(t task) {
	var batch []*op
	for {
		if t.lane == nil {
			batch = l.decide(append(batch, t.op))
		} else {
			batch = l.serve(t, batch)
		}
		if l.idle.Add(1) > mostIdle {
			l.idle.Add(-1)
			return
		}
		select {
		case t = <-l.work:
			l.idle.Add(-1)
		case <-l.stop.Done():
			return
		}
	}
}

// serve makes calls of a lane for as long as requests wait for them. It returns the
// empty batch.
func (l *lanes) serve(t task, batch []*op) []*op {
	at := t.op.slot
	for o, waited := t.op, false; o != nil; waited = true {
		// Requests whose goroutines are ready to run may still join. On an idle machine
		// there are none, and this costs nothing.
		runtime.Gosched()
		batch = l.decide(t.shard.take(t.lane, o, waited, batch))
		o = t.shard.leave(t.lane, at)
	}
	return batch
}

// decide makes one call for those of the batch whose callers still wait, and
// returns it empty.
func (l *lanes) decide(batch []*op) []*op {
	var until time.Time
	rest := batch[:0]
	for _, o := range batch {
		if !o.take() {
			o.release()
			continue
		}
		if o.deadline.After(until) {
			until = o.deadline
		}
		rest = append(rest, o)
	}
	if len(rest) > 0 {
		l.call(rest, until)
	}
	for _, o := range rest {
		o.decided()
		o.release()
	}
	clear(batch)
	return batch[:0]
}

// close ends the goroutines. No op may be under way or follow.
func (l *lanes) close() {
	l.end()
	l.workers.Wait()
}

// enter returns the op's lane, and whether the op has to wait in its queue.
func (s *laneShard) enter(o *op) (ln *lane, queued bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ln = s.lanes[o.slot]; ln == nil {
		if ln, s.spare = s.spare, nil; ln == nil {
			ln = new(lane)
		}
		s.lanes[o.slot] = ln
	}
	if ln.busy(o.began) {
		ln.queue = append(ln.queue, o)
		return ln, true
	}
	ln.calls++
	ln.moved = o.began
	return ln, false
}

// busy reports whether a request must wait for the calls under way.
func (ln *lane) busy(now time.Time) bool {
	switch since := now.Sub(ln.moved); {
	case ln.calls == 0 || since > stalledAfter:
		return false
	case ln.calls < mostCalls:
		return since <= pace && len(ln.queue) < mostGathered
	}
	return true
}

// take returns the op and the waiting ops that fit in one call with it, in the order
// in which they came. If the op has waited, it was the first in the queue; otherwise
// those that wait came before it.
func (s *laneShard) take(ln *lane, o *op, waited bool, batch []*op) []*op {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, checks := 0, len(o.checks)
	for n < len(ln.queue) && checks+len(ln.queue[n].checks) <= mostGathered {
		checks += len(ln.queue[n].checks)
		n++
	}
	if waited {
		batch = append(batch, o)
	}
	batch = append(batch, ln.queue[:n]...)
	if !waited {
		batch = append(batch, o)
	}
	ln.drop(n)
	return batch
}

// leave ends a call. It returns the op that begins the next one; nil if none waits.
func (s *laneShard) leave(ln *lane, at keys.Slot) *op {
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
