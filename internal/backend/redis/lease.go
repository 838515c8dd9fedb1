package redis

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
)

// leases let this replica spend hits that it has charged ahead of time, where a
// rule asks for that. Of each counter it holds no more than the rule's share of
// the limit, divided by the replicas; what is on the way back counts as held.
//
// A hit that is spent was charged, if earlier. So a fixed window, with whose end
// its leases die, is never exceeded. Where hits fade, the charge fades earlier
// than the hit that it was spent for: a limit may be exceeded by what is held at
// once, which is the share of it, and by no more. A counter that Redis loses
// begins anew, and what is held of it then is spent all the same.
type leases struct {
	replicas int64
	used     atomic.Bool // whether there ever was one
	shards   [64]leaseShard
}

type leaseShard struct {
	mu   sync.Mutex
	held map[keys.ID]*lease
}

// lease is what is held of one counter.
type lease struct {
	check backend.Check // Key is a copy
	quiet *algo.Limit   // by which hits are taken
	most  int64         // to hold at once
	left  int64
	asked int64     // by calls that are under way
	until time.Time // what is left then goes back, or has died

	// In a fixed window: when it ends by our clock, or a little earlier, and by Redis'.
	dies time.Time
	ends int64

	giving int64     // back, by calls that are under way
	lost   int64     // given back by calls that have failed, so that it may have arrived or not
	void   time.Time // when nothing of what was given back so far will arrive any more

	answer algo.Decision // of the last call, and when that was sent; zero for none yet
	sent   time.Time
	now    int64     // when it was decided, by Redis' clock,
	heard  time.Time // and when we knew

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
		l.shards[i].held = map[keys.ID]*lease{}
	}
	return l
}

func (l *leases) shard(of keys.ID) *leaseShard { return &l.shards[of[2]%byte(len(l.shards))] }

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
	if h == nil || h.left < c.Hits || !now.Before(h.until) || !h.serves(c) {
		return false
	}
	h.left -= c.Hits
	h.spent += c.Hits
	o.out[0] = algo.Decision{
		Allowed: true,
		// The charge of the lease may have faded, and denied hits may have been charged.
		Remaining:  max(h.left, min(h.answer.Remaining+h.left, c.Limit.Capacity()-c.Hits)),
		ResetAfter: max(0, h.answer.ResetAfter-now.Sub(h.sent)),
	}
	return true
}

// serves says whether the lease is of the check's limit: of the same, or of one that
// is as it was when the rules were loaded again.
func (h *lease) serves(c *backend.Check) bool {
	if h.check.Limit == c.Limit {
		return true
	}
	if h.check.Lease != c.Lease || h.check.Limit.Params() != c.Limit.Params() {
		return false
	}
	h.check.Limit = c.Limit
	return true
}

// ask is what a call does about the lease of one counter besides deciding requests.
type ask struct {
	of           keys.ID
	lease        *lease
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
	if h == nil || !h.serves(c) {
		old := h
		h = newLease(c, l.replicas)
		if old != nil {
			h.inherit(old)
		}
		s.held[a.of] = h
		l.used.Store(true)
	}
	a.lease = h
	h.giveBack(a, now)
	if a.taken = h.wish(now, l.replicas); a.taken > 0 {
		h.asked += a.taken
		a.take = h.op(a.of, a.taken)
	}
}

func newLease(c *backend.Check, replicas int64) *lease {
	h := &lease{check: *c, quiet: quiet(c.Limit), most: int64(c.Lease * float64(c.Limit.Capacity()) / float64(replicas))}
	h.check.Key = append([]byte(nil), c.Key...)
	h.check.Descriptor = 0
	return h
}

// quiet returns a limit of the same counter that charges what is asked for if it
// fits, and nothing otherwise.
func quiet(l *algo.Limit) *algo.Limit {
	p := l.Params()
	p.DeniedHits = algo.Drop
	if q, err := algo.New(p); err == nil { // New refuses nothing for what denied hits do
		return q
	}
	return l
}

// inherit has what is held under another limit go back, and count as held until it
// has. What calls of the old one take meanwhile is nobody's.
func (h *lease) inherit(old *lease) {
	h.left, h.dies, h.ends = old.left, old.dies, old.ends
	h.lost, h.void = old.lost+old.giving, old.void
	h.sent, h.now, h.heard = old.sent, old.now, old.heard
	h.peak = old.peak
}

// op returns a request of the lease's own.
func (h *lease) op(of keys.ID, hits int64) *op {
	c := h.check
	c.Limit, c.Hits = h.quiet, hits
	return &op{checks: []backend.Check{c}, ids: []keys.ID{of}, out: make([]algo.Decision, 1)}
}

// giveBack has the call give back what is left of an expired lease. In a fixed
// window that has died with the window: given back in the next one it would be too
// much. So it is void, by Redis' clock, with the end of the window or after returnIn.
func (h *lease) giveBack(a *ask, now time.Time) {
	if h.left == 0 || now.Before(h.until) {
		return
	}
	if h.dies.IsZero() || now.Before(h.dies) {
		a.given = h.left
		a.give = h.op(a.of, -a.given)
		// Redis' clock is not behind what it said when we heard of it and the time since.
		a.give.before = h.now + (now.Sub(h.heard) + returnIn).Microseconds()
		if h.ends > 0 {
			a.give.before = min(a.give.before, h.ends)
		}
		if now.After(h.void) {
			h.lost = 0
		}
		h.void = now.Add(2 * returnIn) // even if clocks are not equally fast
		h.giving += a.given
	}
	h.left = 0
}

// pending returns how many hits may be on their way back.
func (h *lease) pending(now time.Time) int64 {
	if now.After(h.void) {
		return h.giving
	}
	return h.giving + h.lost
}

// wish returns how many hits to take: what should last for leaseAhead at the
// recent rate, but no more than may be held, and less the nearer the limit is.
func (h *lease) wish(now time.Time, replicas int64) int64 {
	n := min(int64(h.rate*leaseAhead.Seconds()), h.answer.Remaining/(2*replicas), h.most-h.pending(now)) - h.left - h.asked
	if n < 2 {
		return 0
	}
	return n
}

// settle takes note of what became of the call, of which we have just heard.
func (l *leases) settle(a *ask, sent, now time.Time, err error) {
	s := l.shard(a.of)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := a.lease
	if s.held[a.of] != h {
		return // reset, or under another limit meanwhile: what was taken is nobody's
	}
	h.asked -= a.taken
	h.giving -= a.given
	if err != nil { // what was taken is nobody's, and what was given may still arrive
		h.lost += a.given
		return
	}
	if a.first != nil {
		h.hear(a.first, a.hits, sent, now)
	}
	if a.take == nil {
		return
	}
	if h.answer = a.take.out[0]; h.answer.Allowed {
		h.keep(a.take, a.taken, sent)
		h.peak = max(h.peak, h.left+h.pending(now))
	}
}

// keep adds what was taken by a call to what is left.
func (h *lease) keep(take *op, taken int64, sent time.Time) {
	until := sent.Add(leaseLife)
	if h.check.Limit.LeavesWhole() {
		// Of calls that are under way at once some may be decided in the next window.
		ends := take.now + take.out[0].ResetAfter.Microseconds()
		switch {
		case ends < h.ends:
			return
		case ends > h.ends:
			h.left = 0
		}
		h.ends, h.dies = ends, sent.Add(take.out[0].ResetAfter)
		if h.dies.Before(until) {
			until = h.dies
		}
	}
	h.left += taken
	h.until = until
}

// hear takes note of what requests for so many hits were told.
func (h *lease) hear(o *op, hits int64, sent, now time.Time) {
	if since := sent.Sub(h.sent).Seconds(); !h.sent.IsZero() && since > 0 {
		weight := since / (since + leaseAhead.Seconds())
		h.rate += (float64(h.spent+hits)/since - h.rate) * weight
	}
	h.spent = 0
	h.answer, h.sent, h.now, h.heard = o.out[0], sent, o.now, now
}

// end has what is held of a counter go back: hits of it were given back, and
// what is known of it no longer holds.
func (l *leases) end(of keys.ID) {
	s := l.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.held[of]; h != nil {
		h.until = time.Time{}
	}
}

// expire has all that is held go back.
func (l *leases) expire(now time.Time) {
	l.each(func(_ keys.ID, h *lease) { h.until = now })
}

// overdue returns the returns of leases that have expired, and forgets leases
// that have not been asked for in a while.
func (l *leases) overdue(now time.Time) (list []*ask) {
	l.each(func(of keys.ID, h *lease) {
		a := &ask{of: of, lease: h}
		if h.giveBack(a, now); a.give != nil {
			list = append(list, a)
		}
		if h.left == 0 && h.asked == 0 && h.pending(now) == 0 && now.Sub(h.sent) > forgetLease {
			delete(l.shard(of).held, of)
		}
	})
	return list
}

// total returns how many hits are held, and the most of one counter that were at once.
func (l *leases) total(now time.Time) (held, peak int64) {
	l.each(func(_ keys.ID, h *lease) {
		held += h.left + h.pending(now)
		peak = max(peak, h.peak)
	})
	return held, peak
}

// each calls do for each lease, whose shard is locked meanwhile.
func (l *leases) each(do func(of keys.ID, h *lease)) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for of, h := range s.held {
			do(of, h)
		}
		s.mu.Unlock()
	}
}

// forget drops what is held of a counter, which then is nobody's.
func (l *leases) forget(of keys.ID) {
	s := l.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, of)
}
