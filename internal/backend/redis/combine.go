package redis

import (
	"runtime"
	"sync"
	"time"
)

// lanes combine requests. While a call for a key is under way, later requests
// for that key queue, and then go together in one call, which decides them in
// the order in which they came. So a hot key costs a call a round trip, whatever
// its rate, and is decided just as it would be otherwise.
type lanes struct {
	call    func(ops []*op, deadline time.Time)
	patient time.Duration // how old a call may be for others to wait for it
	shards  [64]laneShard
}

type laneShard struct {
	mu    sync.Mutex
	lanes map[id]*lane
}

// lane is one call after the other. It is known by all keys of the first.
type lane struct {
	ids   []id
	first [1]id // what ids is of, when it is one

	mu      sync.Mutex
	started time.Time // the call under way
	queue   []*op
	closed  bool // nobody will come for the queue any more
}

func newLanes(timeout time.Duration, call func([]*op, time.Time)) *lanes {
	// Who waits for a call and then for one of his own may take the time of two.
	// Where calls take long, requests do not wait for them.
	l := &lanes{call: call, patient: timeout / 4}
	for i := range l.shards {
		l.shards[i].lanes = map[id]*lane{}
	}
	return l
}

func (l *lanes) shard(of id) *laneShard { return &l.shards[of[0]%byte(len(l.shards))] }

// do has the op decided, alone or with others, and its err set.
func (l *lanes) do(o *op) {
	ln := l.join(o)
	if ln == nil {
		ln = l.open(o)
	} else {
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
	batch := ln.take(o)
	l.call(batch, o.deadline)
	for _, other := range batch[1:] {
		other.wake <- struct{}{}
	}
	l.proceed(ln)
}

// join queues the op in a lane of one of its keys, if there is any.
func (l *lanes) join(o *op) *lane {
	for _, of := range o.ids {
		s := l.shard(of)
		s.mu.Lock()
		ln := s.lanes[of]
		s.mu.Unlock()
		if ln != nil && ln.enqueue(o, l.patient) {
			return ln
		}
	}
	return nil
}

func (ln *lane) enqueue(o *op, patient time.Duration) bool {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.closed || o.began.Sub(ln.started) > patient {
		return false
	}
	ln.queue = append(ln.queue, o)
	return true
}

// open makes a lane for the op, which takes the place of older ones.
func (l *lanes) open(o *op) *lane {
	ln := &lane{started: o.began}
	ln.ids = append(ln.first[:0], o.ids...)
	for _, of := range ln.ids {
		s := l.shard(of)
		s.mu.Lock()
		s.lanes[of] = ln
		s.mu.Unlock()
	}
	return ln
}

// take returns the op with as many of those that wait as one call takes.
func (ln *lane) take(o *op) []*op {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	n, checks := 0, len(o.checks)
	for n < len(ln.queue) && checks+len(ln.queue[n].checks) <= maxChecks {
		checks += len(ln.queue[n].checks)
		n++
	}
	o.batch = append(append(o.batch[:0], o), ln.queue[:n]...)
	ln.queue = append(ln.queue[:0], ln.queue[n:]...)
	ln.started = time.Now()
	return o.batch
}

// proceed has the first that waits make the next call, or closes the lane.
func (l *lanes) proceed(ln *lane) {
	if leader := ln.next(); leader != nil {
		leader.leads = true
		leader.wake <- struct{}{}
		return
	}
	for _, of := range ln.ids {
		s := l.shard(of)
		s.mu.Lock()
		if s.lanes[of] == ln {
			delete(s.lanes, of)
		}
		s.mu.Unlock()
	}
}

// next takes the first that waits off the queue. Without any it closes the lane.
func (ln *lane) next() *op {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if len(ln.queue) == 0 {
		ln.closed = true
		return nil
	}
	leader := ln.queue[0]
	ln.queue = append(ln.queue[:0], ln.queue[1:]...)
	ln.started = time.Now()
	return leader
}
