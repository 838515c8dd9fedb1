package redis

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// leases let this replica spend hits that it has charged ahead of time, where a
// rule asks for that. Of each counter it holds no more than the rule's share of
// the limit, divided by the replicas; what is on the way back counts as held.
//
// A hit that is spent was charged, if earlier. So a fixed window, with whose end
// its leases die, is never exceeded. Where hits fade, the charge fades earlier
// than the hit that it was spent for: a limit may be exceeded by what is held at
// once, which is the share of it, and by no more.
type leases struct {
	replicas int64
	used     atomic.Bool // whether there ever was one
	shards   [64]leaseShard
}

type leaseShard struct {
	mu   sync.Mutex
	held map[id]*lease
}

// lease is what is held of one counter.
type lease struct {
	check backend.Check // Key is a copy
	most  int64         // to hold at once
	left  int64
	asked int64     // by calls that are under way
	until time.Time // what is left then goes back, or has died

	// Of what was given back, how much may not have arrived, and when it will not
	// arrive any more.
	pending      int64
	pendingUntil time.Time

	answer algo.Decision // of the last call, and when that was sent; zero for none yet
	sent   time.Time
	now    int64 // by Redis' clock

	spent int64   // since the last call
	rate  float64 // hits/s, smoothed over calls
	peak  int64   // the most that was held at once
}

const (
	// leaseAhead is for how long the hits of a lease should last.
	leaseAhead = 50 * time.Millisecond
	// leaseLife is when what is left of a lease goes back.
	leaseLife = 2 * leaseAhead
	// returnIn is how long hits may be on their way back. Later they are void.
	returnIn = time.Second
	// forgetLease is how long a lease is kept that nobody asks for.
	forgetLease = time.Minute
)

func newLeases(replicas int) *leases {
	l := &leases{replicas: int64(replicas)}
	for i := range l.shards {
		l.shards[i].held = map[id]*lease{}
	}
	return l
}

func (l *leases) shard(of id) *leaseShard { return &l.shards[of[2]%byte(len(l.shards))] }

// leasable says whether an op may be decided from a lease: one check that charges.
func (o *op) leasable() bool {
	return len(o.checks) == 1 && o.checks[0].Lease > 0 && o.checks[0].Hits > 0
}

// spend decides the op from what is held, if that is enough.
func (l *leases) spend(o *op, now time.Time) bool {
	if !o.leasable() {
		return false
	}
	c := &o.checks[0]
	s := l.shard(o.ids[0])
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[o.ids[0]]
	if h == nil || h.check.Limit != c.Limit || h.left < c.Hits || !now.Before(h.until) {
		return false
	}
	h.left -= c.Hits
	h.spent += c.Hits
	o.out[0] = algo.Decision{
		Allowed:    true,
		Remaining:  h.answer.Remaining + h.left,
		ResetAfter: max(0, h.answer.ResetAfter-now.Sub(h.sent)),
	}
	return true
}

// ask is what a call does about the lease of one counter besides deciding requests.
type ask struct {
	of           id
	first        *op   // of the requests
	hits         int64 // of all of them
	give, take   *op   // nil for none
	given, taken int64
}

// asks returns what a call for these ops is to do about leases.
func (l *leases) asks(ops []*op, now time.Time) (list []*ask) {
next:
	for _, o := range ops {
		if !o.leasable() {
			continue
		}
		for _, a := range list {
			if a.of == o.ids[0] {
				a.hits += o.checks[0].Hits
				continue next
			}
		}
		list = append(list, &ask{of: o.ids[0], first: o, hits: o.checks[0].Hits})
	}
	for _, a := range list {
		l.prepare(a, now)
	}
	return list
}

func (l *leases) prepare(a *ask, now time.Time) {
	c := &a.first.checks[0]
	s := l.shard(a.of)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[a.of]
	if h == nil || h.check.Limit != c.Limit {
		h = newLease(c, l.replicas)
		s.held[a.of] = h
		l.used.Store(true)
	}
	h.giveBack(a, now)
	if a.taken = h.wish(now, l.replicas); a.taken > 0 {
		h.asked += a.taken
		a.take = h.op(a.of, a.taken)
	}
}

func newLease(c *backend.Check, replicas int64) *lease {
	h := &lease{check: *c, most: int64(c.Lease * float64(c.Limit.Capacity()) / float64(replicas))}
	h.check.Key = append([]byte(nil), c.Key...)
	h.check.Descriptor = 0
	h.check.Role = backend.Shadow // charges all of it if it fits, and nothing otherwise
	return h
}

// op returns a request of the lease's own.
func (h *lease) op(of id, hits int64) *op {
	c := h.check
	c.Hits = hits
	return &op{checks: []backend.Check{c}, ids: []id{of}, out: make([]algo.Decision, 1)}
}

// giveBack has the call give back what is left of an expired lease. In a fixed
// window that has died: given back in the next one it would be too much.
func (h *lease) giveBack(a *ask, now time.Time) {
	if h.left == 0 || now.Before(h.until) {
		return
	}
	if h.check.Limit.Params().Algorithm != algo.FixedWindow {
		a.given = h.left
		a.give = h.op(a.of, -a.given)
		a.give.before = h.now + (now.Sub(h.sent) + returnIn).Microseconds()
		h.pending += a.given
		h.pendingUntil = now.Add(2 * returnIn)
	}
	h.left = 0
}

// wish returns how many hits to take: what should last for leaseAhead at the
// recent rate, but no more than may be held, and less the nearer the limit is.
func (h *lease) wish(now time.Time, replicas int64) int64 {
	if now.After(h.pendingUntil) {
		h.pending = 0 // it has arrived, or is void
	}
	n := min(int64(h.rate*leaseAhead.Seconds()), h.answer.Remaining/(2*replicas), h.most-h.pending) - h.left - h.asked
	if n < 2 {
		return 0
	}
	return n
}

// settle takes note of what became of the call.
func (l *leases) settle(a *ask, sent time.Time, err error) {
	s := l.shard(a.of)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[a.of]
	if h == nil || a.first != nil && h.check.Limit != a.first.checks[0].Limit {
		return // reset or reloaded meanwhile: what was taken is nobody's
	}
	h.asked -= a.taken
	if err != nil {
		return // the same, and what was given stays pending
	}
	h.pending -= a.given
	if a.first != nil {
		h.heard(a.first, a.hits, sent)
	}
	if a.take == nil {
		return
	}
	if h.answer = a.take.out[0]; !h.answer.Allowed {
		return
	}
	h.left += a.taken
	h.peak = max(h.peak, h.left+h.pending)
	h.until = sent.Add(leaseLife)
	if h.check.Limit.Params().Algorithm == algo.FixedWindow {
		h.until = sent.Add(h.answer.ResetAfter)
	}
}

// heard takes note of what requests for so many hits were told.
func (h *lease) heard(o *op, hits int64, sent time.Time) {
	if since := sent.Sub(h.sent).Seconds(); !h.sent.IsZero() && since > 0 {
		weight := since / (since + leaseAhead.Seconds())
		h.rate += (float64(h.spent+hits)/since - h.rate) * weight
	}
	h.spent = 0
	h.answer, h.sent, h.now = o.out[0], sent, o.now
}

// end has what is held of a counter go back: hits of it were given back, and
// what is known of it no longer holds.
func (l *leases) end(of id) {
	s := l.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.held[of]; h != nil {
		h.until = time.Time{}
	}
}

// overdue returns the returns of leases that have expired, and forgets leases
// that have not been asked for in a while.
func (l *leases) overdue(now time.Time) (list []*ask) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for of, h := range s.held {
			a := &ask{of: of}
			if h.giveBack(a, now); a.give != nil {
				list = append(list, a)
			}
			if h.left == 0 && h.asked == 0 && now.Sub(h.sent) > forgetLease {
				delete(s.held, of)
			}
		}
		s.mu.Unlock()
	}
	return list
}

// total returns how many hits are held, and the most of one counter that were at once.
func (l *leases) total() (held, peak int64) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for _, h := range s.held {
			held += h.left + h.pending
			peak = max(peak, h.peak)
		}
		s.mu.Unlock()
	}
	return held, peak
}

// forget drops what is held of a counter, which then is nobody's.
func (l *leases) forget(of id) {
	s := l.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, of)
}
