package algo

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// maxCount is where counts saturate: the largest integer that a Lua number
// still tells from its neighbours.
const maxCount = 1<<53 - 1

// A stepper is the arithmetic of one algorithm with its parameters. All methods
// but words and settle want a state that settle has brought to now, and n > 0;
// fits and wait also take n = 0, which asks whether the limit is not exceeded.
type stepper interface {
	// words is the fixed length of the state, or grows.
	words() int
	// adopt makes s, all zero and of words(), what another layout of the same
	// algorithm holds; other may be of no such layout and is then passed over.
	adopt(s, other State, now int64)
	// settle brings s to now in place: expired hits leave, and what no sequence
	// of calls could have produced (a clock that stepped back, damage) is cut to
	// what could. What was used under other parameters stays used.
	settle(s State, now int64)
	// fits says whether n more hits pass.
	fits(s State, now, n int64) bool
	// charge adds n hits, whether or not they fit, up to the bound on debt.
	charge(s State, now, n int64) State
	// refund takes n hits back, the newest first, never beyond full.
	refund(s State, now, n int64) State
	// left returns how many single hits would pass and after how many
	// microseconds the counter resets.
	left(s State, now int64) (remaining, reset int64)
	// wait returns after how many microseconds n hits would pass; never if they
	// cannot.
	wait(s State, now, n int64) int64
	// expiry returns the microsecond from which s equals "never used".
	expiry(s State) int64
}

const (
	never = math.MaxInt64 // the wait for more hits than a limit can hold
	grows = -1            // the words of a state without a fixed length
)

// Limit is one limit ready to decide: validated parameters with everything that
// does not depend on the call computed once. It is immutable.
type Limit struct {
	stepper
	params   Params
	denied   DeniedHits // never DeniedDefault
	capacity int64
}

// New validates p and prepares the limit. The error says which parameter is
// wrong and what it may be.
func New(p Params) (*Limit, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	l := &Limit{params: p, denied: p.DeniedHits, capacity: int64(p.Limit)}
	if l.denied == DeniedDefault {
		l.denied = Drop
		if p.Algorithm == FixedWindow {
			l.denied = Count
		}
	}
	debt := l.denied == Count
	switch p.Algorithm {
	case FixedWindow:
		l.stepper = &fixedWindow{limit: int64(p.Limit), window: p.Window.Microseconds()}
	case SlidingWindow:
		l.stepper = newSliding(p, debt)
	case SlidingLog:
		l.stepper = newSlidingLog(int(p.Limit), p.Window.Microseconds(), debt)
	default:
		b, err := newBucket(p, debt)
		if err != nil {
			return nil, err
		}
		l.stepper, l.capacity = b, b.capacity
		if p.Algorithm == Hybrid {
			l.stepper = &hybrid{bucket: b, window: newSliding(p, debt)}
			l.capacity = min(b.capacity, int64(p.Limit))
		}
	}
	return l, nil
}

// check says what is wrong with p; newBucket says the rest.
func (p Params) check() error {
	if int(p.Algorithm) >= len(algorithmNames) {
		return fmt.Errorf("unknown algorithm %d", p.Algorithm)
	}
	isBucket := p.Algorithm == TokenBucket || p.Algorithm == LeakyBucket || p.Algorithm == Hybrid
	isSliding := p.Algorithm == SlidingWindow || p.Algorithm == Hybrid
	switch {
	case p.DeniedHits > Drain:
		return fmt.Errorf("unknown denied_hits %d", p.DeniedHits)
	case p.Burst != 0 && !isBucket:
		return fmt.Errorf("%s has no burst", p.Algorithm)
	case p.Refill != (Rate{}) && p.Algorithm != Hybrid:
		return fmt.Errorf("%s has no refill rate of its own", p.Algorithm)
	case p.Refill.Hits == 0 && p.Refill.Per != 0:
		return fmt.Errorf("a refill rate of 0 never refills: use at least 1")
	case p.Strict && !isSliding:
		return fmt.Errorf("%s has no strict mode", p.Algorithm)
	case p.SubWindows != 0 && !p.Strict:
		return fmt.Errorf("sub windows belong to strict mode")
	case p.SubWindows < 0 || p.SubWindows > MaxSubWindows:
		return fmt.Errorf("%d sub windows: use 1 to %d", p.SubWindows, MaxSubWindows)
	case p.Algorithm == SlidingLog && p.Limit > MaxLogLimit:
		return fmt.Errorf("a sliding_log keeps 8 bytes for each of its %d hits: at most %d; use sliding_window with strict instead", p.Limit, MaxLogLimit)
	}
	if err := checkPeriod("window", p.Window); err != nil {
		return err
	}
	if p.Refill != (Rate{}) {
		return checkPeriod("refill period", p.Refill.Per)
	}
	return nil
}

func checkPeriod(name string, d time.Duration) error {
	switch {
	case d < MinWindow:
		return fmt.Errorf("a %s of %v is too short: use at least %v", name, d, MinWindow)
	case d > MaxWindow:
		return fmt.Errorf("a %s of %v is too long: use at most %v (366 days)", name, d, MaxWindow)
	case d%time.Microsecond != 0:
		return fmt.Errorf("a %s of %v is not a whole number of microseconds", name, d)
	}
	return nil
}

// newSliding returns the window of SlidingWindow and Hybrid: two counters, or
// sub-windows when strict.
func newSliding(p Params, debt bool) stepper {
	limit, window := int64(p.Limit), p.Window.Microseconds()
	bound := limit
	if debt {
		bound = 2 * limit
	}
	if !p.Strict {
		return &slidingWindow{limit: limit, window: window, bound: bound}
	}
	parts := int64(p.SubWindows)
	if parts == 0 {
		parts = DefaultSubWindows
	}
	return &strictWindow{limit: limit, window: window, bound: bound, parts: parts, part: (window + parts - 1) / parts}
}

// Params returns what the limit was made of.
func (l *Limit) Params() Params { return l.params }

// DeniedHits returns what a denied call charges, the default resolved: never
// DeniedDefault.
func (l *Limit) DeniedHits() DeniedHits { return l.denied }

// Capacity is the most hits that can ever pass in one call.
func (l *Limit) Capacity() int64 { return l.capacity }

// Words is the length of the limit's states in words; 0 when states grow
// (SlidingLog).
func (l *Limit) Words() int { return max(0, l.words()) }

// Layout numbers the limit's layout of states among those of its counter, from 1
// to [Layouts]: a state of layout n has n − Layout() more words than one of this
// limit, which Settle reads all the same. 0: there is no other layout.
func (l *Limit) Layout() int {
	w := l.stepper
	if h, ok := w.(*hybrid); ok {
		w = h.window
	}
	switch w := w.(type) {
	case *slidingWindow:
		return 1
	case *strictWindow:
		return 1 + int(w.parts)
	}
	return 0
}

const (
	// Layouts is the highest number of a layout.
	Layouts = 1 + MaxSubWindows
	// WindowWords is how many words a state of SlidingWindow has beside the number
	// of its layout.
	WindowWords = 2
	// HybridWords is the same of Hybrid.
	HybridWords = WindowWords + bucketWords
)

// Step is the definition of a decision: what one call with so many hits at now
// (microseconds since the epoch, from 0 to 2^52) answers and leaves behind.
// hits > 0 charges, hits < 0 gives back, and hits = 0 only looks: the state
// stays as it is, so that a look heals it for itself alone. The state may have
// been left under other parameters of the same algorithm and window; one of
// another algorithm counts as never used if its length tells. s is not changed.
func (l *Limit) Step(s State, now, hits int64) (State, Decision) {
	t := l.Settle(slices.Clone(s), now, nil)
	allowed := true
	switch {
	case hits == 0:
		return s, l.Report(t, now, 0, l.Look(t, now))
	case hits < 0:
		t = l.Refund(t, now, -max(hits, -math.MaxInt64))
	case l.Fits(t, now, hits):
		t = l.Charge(t, now, hits)
	default:
		allowed = false
		t = l.Deny(t, now, hits)
	}
	return t, l.Report(t, now, hits, allowed)
}

// The methods below are the parts of Step, for stores that decide several
// limits together. They work in place. All but Settle want a settled state, and
// all but Expiry one that is settled to the same now.

// Settle returns s as it is at now: expired hits have left, and what cannot be
// (after a clock that stepped back, or damage) has healed. It works in place,
// but for a state of another length (none, or one that was left under other
// parameters): that is read, and the settled one appended to spare[:0].
func (l *Limit) Settle(s State, now int64, spare State) State {
	if w := l.words(); w != len(s) && w != grows {
		settled := spare[:0]
		for range w {
			settled = append(settled, 0)
		}
		l.adopt(settled, s, now)
		s = settled
	}
	l.settle(s, now)
	return s
}

// Fits says whether so many more hits (> 0) would pass.
func (l *Limit) Fits(s State, now, hits int64) bool { return l.fits(s, now, hits) }

// Look reports what a call with 0 hits answers: whether one hit would pass or,
// when denied hits count, whether the limit has not been exceeded. A limit of 0
// refuses looks too.
func (l *Limit) Look(s State, now int64) bool { return l.fits(s, now, l.lookHits()) }

// lookHits is how many hits a look needs room for.
func (l *Limit) lookHits() int64 {
	if l.denied == Count && l.capacity > 0 {
		return 0
	}
	return 1
}

// Charge adds hits (> 0) whether or not they fit, up to the bound on debt. The
// returned state is s, but for SlidingLog, which may have outgrown it.
func (l *Limit) Charge(s State, now, hits int64) State { return l.charge(s, now, hits) }

// Refund gives hits (> 0) back, never beyond full. It needs no room.
func (l *Limit) Refund(s State, now, hits int64) State { return l.refund(s, now, hits) }

// Deny charges what a denied call with so many hits (> 0) charges.
func (l *Limit) Deny(s State, now, hits int64) State {
	switch l.denied {
	case Count:
		return l.charge(s, now, hits)
	case Drain:
		if remaining, _ := l.left(s, now); remaining > 0 {
			return l.charge(s, now, remaining)
		}
	}
	return s
}

// Report reads the answer off the state that the call left behind.
func (l *Limit) Report(s State, now, hits int64, allowed bool) Decision {
	remaining, reset := l.left(s, now)
	d := Decision{Allowed: allowed, Remaining: remaining, ResetAfter: time.Duration(reset) * time.Microsecond}
	if allowed {
		return d
	}
	if hits == 0 {
		hits = l.lookHits()
	}
	if wait := l.wait(s, now, hits); wait == never {
		d.RetryAfter = Never
	} else {
		d.RetryAfter = time.Duration(wait) * time.Microsecond
	}
	return d
}

// Expiry returns the time (microseconds since the epoch) from which s equals
// "never used" and need not be kept. It already does when that is not after now.
func (l *Limit) Expiry(s State) int64 { return l.expiry(s) }
