// Package lease owns hits that this replica has charged ahead of the requests that
// will spend them, where a rule asks for that: how many to take, how long to hold
// them, and what goes back. Calls to Redis are left to the caller.
//
// This is where the hits of one counter are. The lease owns them, under the lock of
// its shard. Between Begin and End the Trip owns them, and the caller owns the Trip.
//
//	   lease                            Trip, in a call of the caller
//	  ┌────────┐
//	  │ asked  │ ──Begin─────────────────> Take ─┐
//	  └────────┘                                 │ Redis charges them
//	  ┌────────┐                                 │
//	┌─│ left   │ <─End───────────────────────────┘
//	│ │        │
//	│ │ expired│ ──Begin, Overdue────────> Give ─┐
//	│ └────────┘                                 │ Redis takes them back
//	│ ┌────────┐                                 │
//	│ │ giving │ ──End, when Redis has answered──┴> no longer held
//	│ └────────┘ ──End, when the call has failed───┐
//	│ ┌────────┐                                   │
//	│ │ lost   │ <─────────────────────────────────┘ arrived or not, until void
//	│ └────────┘
//	└──Spend──> a request is decided, without a call
//
// Hits that are left, on the way back or lost count as held. Together they are no more
// than the rule's share. Hits that a failed call took are charged, and never spent.
package lease

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
)

// Leases are the leases of all counters. Of each counter they hold no more than the
// rule's share of the limit, divided by the replicas. They are safe for concurrent use.
//
// A hit is charged before it is spent. A fixed window is never exceeded, because its
// leases end with it. Where hits fade, a charge fades before the hit that it pays for:
// the limit may be exceeded by the hits that are held at once, and so by no more than
// the share. If Redis loses a counter, the counter begins anew, and the hits that are
// held of it are spent all the same.
type Leases struct {
	replicas int64
	used     atomic.Bool // whether there ever was one
	shards   [64]shard
}

type shard struct {
	mu   sync.Mutex
	held map[keys.ID]*lease
}

// lease holds hits of one counter.
type lease struct {
	check backend.Check // Key is a copy
	quiet *algo.Limit   // hits are taken by it: see the function quiet
	most  int64         // to hold at once
	left  int64
	asked int64     // by calls that are under way
	until time.Time // then the rest goes back, or has died with its window

	// In a fixed window: when it ends by our clock, or a little earlier, and by Redis'.
	dies time.Time
	ends int64

	giving int64     // back, by calls that are under way
	lost   int64     // given back by calls that have failed: they may have arrived or not
	void   time.Time // from then on no hits that were given back so far can arrive

	answer algo.Decision // of the last call, and when that was sent; zero for none yet
	sent   time.Time
	now    int64     // when it was decided, by Redis' clock,
	heard  time.Time // and when we knew

	spent int64   // since the last call
	rate  float64 // hits/s, smoothed over calls
	peak  int64   // the most that was held at once
}

const (
	// ahead is for how long the hits of a lease should last.
	ahead = 50 * time.Millisecond
	// Lifetime is how long a lease lasts. Then the rest of its hits goes back.
	Lifetime = 2 * ahead
	// returnIn is how long hits may be on their way back. Later they are void.
	returnIn = time.Second
	// forgetAfter is how long a lease is kept without requests.
	forgetAfter = time.Minute
	// mostLeases bounds the leases of a shard, and mostKey their keys in bytes. Clients
	// choose how many counters there are, and how long the values in their keys.
	mostLeases = 512
	mostKey    = 1 << 10
)

// New returns the leases of one of that many replicas of the service.
func New(replicas int) *Leases {
	l := &Leases{replicas: int64(replicas)}
	for i := range l.shards {
		l.shards[i].held = map[keys.ID]*lease{}
	}
	return l
}

func (l *Leases) shard(of keys.ID) *shard { return &l.shards[of[2]%byte(len(l.shards))] }

// Serve reports whether leases may serve a request with these checks: one check that
// charges, of a rule that has leases.
func Serve(checks []backend.Check) bool {
	return len(checks) == 1 && checks[0].Lease > 0 && checks[0].Hits > 0 && !checks[0].Limit.Holds()
}

// Spend decides a check from the hits that are left, if they are enough. Serve must be true
// for the check.
func (l *Leases) Spend(of keys.ID, c *backend.Check, now time.Time) (d algo.Decision, spent bool) {
	s := l.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[of]
	if h == nil || h.left < c.Hits || !now.Before(h.until) || !h.serves(c) {
		return d, false
	}
	h.left -= c.Hits
	h.spent += c.Hits
	return algo.Decision{
		Allowed: true,
		// The charge of the lease may have faded, and denied hits may have been charged.
		Remaining:  max(h.left, min(h.answer.Remaining+h.left, c.Limit.Capacity()-c.Hits)),
		ResetAfter: max(0, h.answer.ResetAfter-now.Sub(h.sent)),
	}, true
}

// serves reports whether the lease is of the check's limit: of the same, or of one that
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

// Trip is what one call does about the lease of one counter besides deciding
// requests. It is the caller's until it is handed to End.
type Trip struct {
	// Of is the counter.
	Of keys.ID
	// Give comes before the requests of the call and Take after them, so that no
	// request is refused for it. nil for none.
	Give, Take *Transfer

	lease *lease
	hits  int64 // of all requests of the call for the counter; 0 without any
}

// Transfer is hits that a call takes or gives back.
type Transfer struct {
	// Check is to be decided like that of a request. Its Hits are negative to give back.
	Check backend.Check
	// Before is when hits that are given back are void, in µs by Redis' clock: from
	// then on the call must not give them back. 0 for never.
	Before int64
}

// hits returns how many hits are transferred.
func (t *Transfer) hits() int64 {
	if t == nil {
		return 0
	}
	return max(t.Check.Hits, -t.Check.Hits)
}

// Answer is Redis' decision on a check, and its time by Redis' clock, in µs since the epoch.
type Answer struct {
	algo.Decision
	At int64
}

// Begin returns what a call is to do about the lease of a counter. The hits are those that
// its requests ask for together; c is the check of the first of them. It is nil if the
// counter has no lease and can't get one.
func (l *Leases) Begin(of keys.ID, c *backend.Check, hits int64, now time.Time) *Trip {
	s := l.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[of]
	if h == nil && !s.makeRoom(c, now) {
		return nil
	}
	if h == nil || !h.serves(c) {
		old := h
		h = newLease(c, l.replicas)
		if old != nil {
			h.inherit(old)
		}
		s.held[of] = h
		l.used.Store(true)
	}
	t := &Trip{Of: of, Give: h.giveBack(now), lease: h, hits: hits}
	if n := h.wish(now, l.replicas); n > 0 {
		h.asked += n
		t.Take = h.transfer(n)
	}
	return t
}

// makeRoom reports whether there is room for a lease of the check's counter. Of a few others
// it forgets one that holds nothing, if need be.
func (s *shard) makeRoom(c *backend.Check, now time.Time) bool {
	if len(c.Key) > mostKey {
		return false
	}
	tried := 0
	for of, h := range s.held { // in random order
		if len(s.held) < mostLeases || tried == 8 {
			break
		}
		if tried++; h.isIdle(now) {
			delete(s.held, of)
		}
	}
	return len(s.held) < mostLeases
}

// isIdle reports whether the lease holds nothing, and no call is under way that changes that.
func (h *lease) isIdle(now time.Time) bool {
	return h.left == 0 && h.asked == 0 && h.pending(now) == 0
}

func newLease(c *backend.Check, replicas int64) *lease {
	h := &lease{check: *c, quiet: quiet(c.Limit), most: int64(c.Lease * float64(c.Limit.Capacity()) / float64(replicas))}
	h.check.Key = append([]byte(nil), c.Key...)
	h.check.Descriptor = 0
	return h
}

// quiet returns a limit of the same counter that charges a call that fits, and nothing
// otherwise.
func quiet(l *algo.Limit) *algo.Limit {
	p := l.Params()
	p.DeniedHits = algo.Drop
	if q, err := algo.New(p); err == nil { // New refuses nothing for what denied hits do
		return q
	}
	return l
}

// inherit moves the old lease's hits into h so that they are returned. Until then
// they still count as held. Hits taken by calls still in flight for the old lease
// are lost.
func (h *lease) inherit(old *lease) {
	h.left, h.dies, h.ends = old.left, old.dies, old.ends
	h.lost, h.void = old.lost+old.giving, old.void
	h.sent, h.now, h.heard = old.sent, old.now, old.heard
	h.peak = old.peak
}

func (h *lease) transfer(hits int64) *Transfer {
	t := &Transfer{Check: h.check}
	t.Check.Limit, t.Check.Hits = h.quiet, hits
	return t
}

// giveBack returns a transfer that gives back the rest of an expired lease; nil if there
// is none. In a fixed window the rest dies with the window, because it was never charged
// to the next one. So the transfer is void, by Redis' clock, at the end of the window, or
// after returnIn.
func (h *lease) giveBack(now time.Time) *Transfer {
	if h.left == 0 || now.Before(h.until) {
		return nil
	}
	rest := h.left
	h.left = 0
	if !h.dies.IsZero() && !now.Before(h.dies) {
		return nil
	}
	give := h.transfer(-rest)
	// Redis' clock is at least at the time of its last answer and the time since.
	give.Before = h.now + (now.Sub(h.heard) + returnIn).Microseconds()
	if h.ends > 0 {
		give.Before = min(give.Before, h.ends)
	}
	if now.After(h.void) {
		h.lost = 0
	}
	h.void = now.Add(2 * returnIn) // even if clocks are not equally fast
	h.giving += rest
	return give
}

// pending returns how many hits may be on their way back.
func (h *lease) pending(now time.Time) int64 {
	if now.After(h.void) {
		return h.giving
	}
	return h.giving + h.lost
}

// wish returns how many hits to take: enough to last for ahead at the recent rate, but
// no more than may be held, and fewer the nearer the limit is.
func (h *lease) wish(now time.Time, replicas int64) int64 {
	n := min(int64(h.rate*ahead.Seconds()), h.answer.Remaining/(2*replicas), h.most-h.pending(now)) - h.left - h.asked
	if n < 2 {
		return 0
	}
	return n
}

// End takes note that a call has ended. first is the answer to the first request for the
// counter, and take the answer to Trip.Take. After an error there are none: the hits taken
// are lost, and the hits given back may still arrive.
func (l *Leases) End(t *Trip, first, take Answer, sent, now time.Time, err error) {
	s := l.shard(t.Of)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := t.lease
	if s.held[t.Of] != h {
		return // reset, or under another limit meanwhile: the hits taken are lost
	}
	h.asked -= t.Take.hits()
	h.giving -= t.Give.hits()
	if err != nil {
		h.lost += t.Give.hits()
		return
	}
	if t.hits > 0 {
		h.hear(first, t.hits, sent, now)
	}
	if t.Take == nil {
		return
	}
	if h.answer = take.Decision; h.answer.Allowed {
		h.keep(take, t.Take.hits(), sent)
		h.peak = max(h.peak, h.left+h.pending(now))
	}
}

// keep adds the hits that a call took to those that are left.
func (h *lease) keep(take Answer, taken int64, sent time.Time) {
	until := sent.Add(Lifetime)
	if h.check.Limit.ResetsAtOnce() {
		// Some of the calls that are under way at once may be decided in the next window.
		ends := take.At + take.ResetAfter.Microseconds()
		switch {
		case ends < h.ends:
			return
		case ends > h.ends:
			h.left = 0
		}
		h.ends, h.dies = ends, sent.Add(take.ResetAfter)
		if h.dies.Before(until) {
			until = h.dies
		}
	}
	h.left += taken
	h.until = until
}

// hear takes note of the answer to the first of the requests for these hits.
func (h *lease) hear(first Answer, hits int64, sent, now time.Time) {
	if since := sent.Sub(h.sent).Seconds(); !h.sent.IsZero() && since > 0 {
		weight := since / (since + ahead.Seconds())
		h.rate += (float64(h.spent+hits)/since - h.rate) * weight
	}
	h.spent = 0
	h.answer, h.sent, h.now, h.heard = first.Decision, sent, first.At, now
}

// Expire marks the lease of a counter for return: hits were given back to the counter, so
// the lease's last answer is out of date.
func (l *Leases) Expire(of keys.ID) {
	s := l.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.held[of]; h != nil {
		h.until = time.Time{}
	}
}

// ExpireAll marks every lease for return.
func (l *Leases) ExpireAll(now time.Time) {
	l.each(func(_ keys.ID, h *lease) { h.until = now })
}

// Overdue returns trips that give back the rest of expired leases, and forgets leases that
// had no requests for a while.
func (l *Leases) Overdue(now time.Time) (trips []*Trip) {
	l.each(func(of keys.ID, h *lease) {
		if give := h.giveBack(now); give != nil {
			trips = append(trips, &Trip{Of: of, Give: give, lease: h})
		}
		if h.isIdle(now) && now.Sub(h.sent) > forgetAfter {
			delete(l.shard(of).held, of)
		}
	})
	return trips
}

// Held returns how many hits are held, and the most that were held of one counter at once.
func (l *Leases) Held(now time.Time) (held, peak int64) {
	l.each(func(_ keys.ID, h *lease) {
		held += h.left + h.pending(now)
		peak = max(peak, h.peak)
	})
	return held, peak
}

// each calls visit for each lease, whose shard is locked meanwhile.
func (l *Leases) each(visit func(of keys.ID, h *lease)) {
	if !l.used.Load() {
		return
	}
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for of, h := range s.held {
			visit(of, h)
		}
		s.mu.Unlock()
	}
}

// Forget drops the lease of a counter that is reset. Its hits are lost.
func (l *Leases) Forget(of keys.ID) {
	s := l.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, of)
}
