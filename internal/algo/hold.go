package algo

import (
	"fmt"
	"slices"
	"time"
)

// MaxHeld is the most requests that can hold in one counter. A state takes 24 bytes
// for each in memory, twice that after it has grown, and 19 in Redis.
const MaxHeld = 1000

// HoldRetry is the least wait of a call that is refused because of what others hold:
// that may go back at any time.
const HoldRetry = time.Second

// Hold says for which request a call asks under a limit that holds, and whether that
// request is over. The zero Hold is of no request: what it asks for is held until it
// expires.
type Hold struct {
	// ID is the request's ID, hashed; 0: none.
	ID uint64
	// Settles gives back what the request holds and then charges the hits of the
	// call, whether or not there is room. Negative hits charge nothing. If the request
	// holds nothing, nothing is given back.
	Settles bool
}

// Held is a limit as the calls of one request meet it: its methods are those of
// Limit, for that request. Under a limit that does not hold they are the same.
type Held struct {
	*Limit
	Hold
}

// For returns the limit as the calls with that hold meet it.
func (l *Limit) For(h Hold) Held { return Held{l, h} }

// Holds reports whether what a call is granted is held, until it is settled or
// expires.
func (l *Limit) Holds() bool { return l.hold != nil }

// Holding reports whether the request holds anything.
func (h Held) Holding(s State) bool {
	return h.hold != nil && h.ID != 0 && h.hold.find(s, h.ID) >= 0
}

// Fits reports whether the hits (> 0) would pass beside what is used and what other
// requests hold.
func (h Held) Fits(s State, now, hits int64) bool {
	if h.hold == nil {
		return h.Limit.Fits(s, now, hits)
	}
	return h.hold.fitsFor(s, now, hits, h.ID)
}

// Look is [Limit.Look].
func (h Held) Look(s State, now int64) bool { return h.Fits(s, now, h.lookHits()) }

// Charge makes the request hold the hits (> 0) in place of what it held.
func (h Held) Charge(s State, now, hits int64) State {
	if h.hold == nil {
		return h.Limit.Charge(s, now, hits)
	}
	return h.hold.put(s, now, hits, h.ID)
}

// Refund gives hits (< 0) back: first those that the request holds. If the call
// settles, Refund settles the request instead. It needs no room.
func (h Held) Refund(s State, now, hits int64) State {
	switch {
	case h.hold == nil:
		return h.Limit.Refund(s, now, hits)
	case h.Settles:
		return h.hold.settleFor(s, now, hits, h.ID)
	}
	return h.hold.refundFor(s, now, negated(hits), h.ID)
}

// Report is [Limit.Report]. For a settlement, allowed reports whether the request held
// anything, and Decision.Allowed whether the limit is not exceeded now.
func (h Held) Report(s State, now, hits int64, allowed bool) Decision {
	if h.hold == nil {
		return h.Limit.Report(s, now, hits, allowed)
	}
	return h.report(h.hold.sum(s), now, hits, allowed)
}

// Decide is [Limit.Decide], which has a switch of its own: most limits hold nothing,
// and by way of this one their decisions would take 12 to 40 ns more than 76 to 125.
func (h Held) Decide(s State, now, hits int64) (State, Decision) {
	if h.hold == nil {
		return h.Limit.Decide(s, now, hits)
	}
	allowed := true
	switch {
	case h.Settles:
		allowed = h.Holding(s)
		s = h.Refund(s, now, hits)
	case hits == 0:
		allowed = h.Look(s, now)
	case hits < 0:
		s = h.Refund(s, now, hits)
	case h.Fits(s, now, hits):
		s = h.Charge(s, now, hits)
	default:
		allowed = false
		s = h.Deny(s, now, hits)
	}
	return s, h.Report(s, now, hits, allowed)
}

// Step is [Limit.Step].
func (h Held) Step(s State, now, hits int64) (State, Decision) {
	t, d := h.Decide(h.Settle(slices.Clone(s), now, nil), now, hits)
	if hits == 0 && !h.Settles {
		return s, d
	}
	return t, d
}

// Answer is [Limit.Answer].
func (h Held) Answer(now, hits int64, allowed bool, next func() int64) Decision {
	if h.hold == nil {
		return h.Limit.Answer(now, hits, allowed, next)
	}
	return h.report(h.hold.read(next), now, hits, allowed)
}

// report answers from a sum. A call that is refused for what is held comes back after
// HoldRetry, not when that expires: most requests end long before.
func (h Held) report(t held, now, hits int64, allowed bool) Decision {
	inner := h.hold.inner
	remaining, reset := h.hold.leftOf(t, now)
	d := Decision{
		Allowed: allowed, Remaining: remaining, ResetAfter: micros(reset),
		Held: uint16(t.requests), Expired: uint16(t.expired),
	}
	if h.Settles {
		d.Settled, d.Allowed = allowed, inner.fits(t.inner, now, t.hits)
		hits = 0
	} else if hits == 0 {
		hits = h.lookHits()
	}
	if d.Allowed {
		return d
	}
	wait := inner.wait(t.inner, now, h.hold.cost(hits))
	switch {
	case wait == never:
		d.RetryAfter = Never
	case t.requests > 0:
		d.RetryAfter = max(micros(wait), HoldRetry)
	default:
		d.RetryAfter = micros(wait)
	}
	return d
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// negated returns how many hits a call with negative hits gives back.
func negated(hits int64) int64 { return -max(hits, -never) }

// holding adds holds to the arithmetic of another stepper. A request that asks is granted
// what fits beside all that is used and held, and holds it: nothing is used yet. When it
// ends it settles: what it holds goes back, and what it cost is used. A request that never
// settles gives back what it holds when that expires.
//
// State: a word with the length of the inner state and the number of requests that
// hold; the hits that they hold; when requests were last found expired and how many;
// the inner state; and of each request its ID, when it expires (µs since the epoch)
// and its hits, the first to expire first. There may be room for more at the end.
type holding struct {
	inner   stepper
	expires int64 // µs
	once    bool  // a request holds one hit, whatever it costs
}

const (
	heldHead    = iota // the inner state's words · 2^32 + the number of requests, and unused
	heldHits           // of all of them
	heldExpired        // how many · 2^52 + when, in µs since the epoch
	heldInner          // where the inner state is

	heldID    = 0 // of each request
	heldUntil = 1
	heldCost  = 2
	heldEach  = 3

	expiredBits = 52

	// unused in heldHead says that nothing was used when the state was left. Without it,
	// some inner states would look used after the clock has stepped back.
	unused = 1 << 63

	// lostAfter is how long a state is kept after its last hold has expired, in µs: until
	// then a call may find the expired requests and count them.
	lostAfter = 60_000_000
)

// held is what a decision is made of.
type held struct {
	inner                   State
	hits, requests, expired int64
	last                    int64 // when the last hold expires; 0 without any
}

// Cost returns the hits that the limit charges for a call with hits. Under concurrency
// a request is in flight once, whatever it costs elsewhere. The other methods take hits as
// calls have them.
func (l *Limit) Cost(hits int64) int64 {
	if l.hold != nil {
		return l.hold.cost(hits)
	}
	return hits
}

func (h *holding) cost(hits int64) int64 {
	if h.once {
		return max(-1, min(hits, 1))
	}
	return hits
}

func (*holding) words() int        { return grows }
func (h *holding) capacity() int64 { return h.inner.capacity() }
func (*holding) program() string   { return "hold" }

// appendNumbers appends when holds expire, the most requests, the program of what is
// used, and its numbers.
func (h *holding) appendNumbers(dst []float64) []float64 {
	dst = append(dst, float64(h.expires), MaxHeld, float64(programOf(h.inner)))
	return h.inner.appendNumbers(dst)
}

// first returns where the requests begin in a state.
func (h *holding) first() int { return heldInner + h.inner.words() }

func requests(s State) int { return int(uint32(s[heldHead])) }

func (h *holding) setRequests(s State, n int) {
	s[heldHead] = s[heldHead]&unused | uint64(h.inner.words())<<32 | uint64(n)
}

// mark notes whether anything is used.
func (h *holding) mark(s State, now int64) {
	s[heldHead] &^= unused
	if h.inner.expiry(h.innerOf(s)) <= now {
		s[heldHead] |= unused
	}
}

func (h *holding) innerOf(s State) State { return s[heldInner:h.first()] }

// request returns the i-th request of a state.
func (h *holding) request(s State, i int) State {
	at := h.first() + heldEach*i
	return s[at : at+heldEach : at+heldEach]
}

// fit returns s in a state that has the inner state's length: s, but for one that is
// new, was left under other parameters or is damaged.
func (h *holding) fit(s State, now int64) State {
	had, n := -1, 0
	if len(s) >= heldInner {
		had, n = int(min(s[heldHead]&^unused>>32, uint64(len(s)))), requests(s)
	}
	if had == h.inner.words() && h.first()+heldEach*n <= len(s) {
		return s
	}
	if had < 0 || heldInner+had+heldEach*n > len(s) {
		had, n = 0, 0
	}
	t := make(State, h.first()+heldEach*n)
	if n > 0 || had > 0 {
		t[heldHead], t[heldExpired] = s[heldHead]&unused, s[heldExpired]
		copy(t[h.first():], s[heldInner+had:heldInner+had+heldEach*n])
	}
	if a, ok := h.inner.(adopter); ok && had > 0 {
		a.adopt(h.innerOf(t), s[heldInner:heldInner+had], now)
	}
	h.setRequests(t, n)
	return t
}

// settle wants a state that fits.
func (h *holding) settle(s State, now int64) {
	if s[heldHead]&unused != 0 {
		clear(h.innerOf(s))
	}
	h.inner.settle(h.innerOf(s), now)
	h.mark(s, now)
	if int64(s[heldExpired]&(1<<expiredBits-1)) != now {
		s[heldExpired] = 0 // it would be counted again if the clock stepped to that time
	}
	n, kept, sum := requests(s), 0, uint64(0)
	lost := h.last(s)+lostAfter <= now // by then the state may have been forgotten
	for i := range n {
		r := h.request(s, i)
		if int64(r[heldUntil]) <= now && r[heldUntil] <= 1<<expiredBits {
			continue
		}
		// Nobody holds for longer than the rule lets them: the clock stepped back, the
		// rule was changed, or it is damage.
		r[heldUntil] = min(r[heldUntil], uint64(now+h.expires))
		r[heldCost] = min(r[heldCost], mostOwed)
		sum += r[heldCost]
		copy(h.request(s, kept), r)
		kept++
	}
	if gone := n - kept; gone > 0 {
		h.setRequests(s, kept)
		if !lost {
			s[heldExpired] = uint64(min(expired(s)+int64(gone), MaxHeld))<<expiredBits | uint64(now)
		}
	}
	s[heldHits] = sum
}

// expired returns how many requests were found expired when s was settled, or before at
// the same time.
func expired(s State) int64 { return int64(s[heldExpired] >> expiredBits) }

// find returns which request of a state has the ID; -1 if none has.
func (h *holding) find(s State, id uint64) int {
	for i := range requests(s) {
		if h.request(s, i)[heldID] == id {
			return i
		}
	}
	return -1
}

// remove takes the i-th request out.
func (h *holding) remove(s State, i int) {
	n := requests(s)
	s[heldHits] -= h.request(s, i)[heldCost]
	at := h.first() + heldEach*i
	copy(s[at:], s[at+heldEach:h.first()+heldEach*n])
	h.setRequests(s, n-1)
}

func (h *holding) fitsFor(s State, now, n int64, id uint64) bool {
	n = h.cost(n)
	own := int64(0)
	i := -1
	if id != 0 {
		if i = h.find(s, id); i >= 0 {
			own = int64(h.request(s, i)[heldCost])
		}
	}
	if n > 0 && i < 0 && requests(s) >= MaxHeld || n > h.capacity() { // else the sum could overflow
		return false
	}
	return h.inner.fits(h.innerOf(s), now, n+int64(s[heldHits])-own)
}

// put makes the request hold n hits and nothing else. A request without an ID holds
// them beside what others without an ID hold.
func (h *holding) put(s State, now, n int64, id uint64) State {
	n = h.cost(n)
	if id != 0 {
		if i := h.find(s, id); i >= 0 {
			h.remove(s, i)
		}
	}
	have, until := requests(s), uint64(now+h.expires)
	if end := h.first() + heldEach*have; end+heldEach > len(s) {
		grown := make(State, h.first()+heldEach*max(1, min(2*have, MaxHeld)))
		copy(grown, s[:end])
		s = grown
	}
	h.setRequests(s, have+1)
	r := h.request(s, have) // the last to expire: settle lets nobody hold for longer
	r[heldID], r[heldUntil], r[heldCost] = id, until, uint64(n)
	s[heldHits] += uint64(n)
	return s
}

// settleFor gives back what the request holds and charges the hits, if they are > 0.
func (h *holding) settleFor(s State, now, hits int64, id uint64) State {
	if i := h.find(s, id); i >= 0 && id != 0 {
		h.remove(s, i)
	}
	if hits > 0 {
		h.inner.charge(h.innerOf(s), now, hits)
		h.mark(s, now)
	}
	return s
}

// refundFor gives n hits back: of what the request holds first, then of what is used.
func (h *holding) refundFor(s State, now, n int64, id uint64) State {
	for n = min(h.cost(n), maxCount); n > 0; {
		i := h.find(s, id)
		if i < 0 {
			h.inner.refund(h.innerOf(s), now, n)
			h.mark(s, now)
			break
		}
		r := h.request(s, i)
		if back := uint64(n); back < r[heldCost] {
			r[heldCost] -= back
			s[heldHits] -= back
			break
		}
		n -= int64(r[heldCost])
		h.remove(s, i)
	}
	return s
}

func (h *holding) fits(s State, now, n int64) bool    { return h.fitsFor(s, now, n, 0) }
func (h *holding) refund(s State, now, n int64) State { return h.refundFor(s, now, n, 0) }

// charge charges what a denied call does: that is used, not held.
func (h *holding) charge(s State, now, n int64) State {
	h.inner.charge(h.innerOf(s), now, n)
	h.mark(s, now)
	return s
}

func (h *holding) left(s State, now int64) (remaining, reset int64) { return h.leftOf(h.sum(s), now) }

func (h *holding) leftOf(t held, now int64) (remaining, reset int64) {
	remaining, reset = h.inner.left(t.inner, now)
	remaining -= t.hits
	if t.requests >= MaxHeld {
		remaining = min(remaining, 0)
	}
	return remaining, max(reset, t.last-now)
}

func (h *holding) wait(s State, now, n int64) int64 {
	return h.inner.wait(h.innerOf(s), now, h.cost(n))
}

func (h *holding) expiry(s State) int64 {
	if len(s) < h.first() {
		return 0
	}
	at := h.inner.expiry(h.innerOf(s))
	if last := h.last(s); last > 0 {
		at = max(at, last+lostAfter)
	}
	if found := int64(s[heldExpired] & (1<<expiredBits - 1)); found > 0 {
		at = max(at, found+1) // the call that found it says so
	}
	return at
}

// last returns when the last hold expires; 0 without any.
func (h *holding) last(s State) int64 {
	if n := requests(s); n > 0 {
		return int64(h.request(s, n-1)[heldUntil])
	}
	return 0
}

func (h *holding) sum(s State) held {
	return held{inner: h.innerOf(s), hits: int64(s[heldHits]), requests: int64(requests(s)), expired: expired(s), last: h.last(s)}
}

// read reads a sum as the program answers it: the inner state, the hits held, by how
// many requests and until when the last holds, and how many have expired.
func (h *holding) read(next func() int64) held {
	t := held{inner: appendState(nil, h.inner, next)}
	t.hits, t.requests, t.last, t.expired = next(), next(), next(), next()
	return t
}

// CanHold reports whether there can be a hold around the algorithm; if not, why.
func (a Algorithm) CanHold() (why string, can bool) {
	why = kinds[a].noHold
	return why, why == ""
}

// AlwaysHolds reports whether the algorithm limits nothing but what is held: its
// Window is when holds expire.
func (a Algorithm) AlwaysHolds() bool { return a.known() && kinds[a].alwaysHolds }

// checkHold says what is wrong with the hold of p.
func (p Params) checkHold() error {
	if p.Hold == 0 {
		return nil
	}
	if kinds[p.Algorithm].alwaysHolds {
		return &ParamError{"hold", fmt.Sprintf("%s holds for its window, and for nothing else", p.Algorithm), "leave the hold's own time out"}
	}
	if !p.Calendar.IsZero() {
		return &ParamError{"hold", "windows of a calendar can't hold: a settlement could come in another month", "use a unit or a duration, or leave the hold out"}
	}
	if why, can := p.Algorithm.CanHold(); !can {
		return &ParamError{"hold", fmt.Sprintf("%s can't hold: %s", p.Algorithm, why), "use " + holders()}
	}
	return checkPeriod("expires", "hold", p.Hold)
}

// holders returns the names of the algorithms that can hold, as a sentence lists them.
func holders() string {
	return listOf(func(a Algorithm) bool { _, can := a.CanHold(); return can })
}
