package algo

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// maxCount is where counts saturate: the largest integer that a Lua number still
// distinguishes from its neighbours.
const maxCount = 1<<53 - 1

// A stepper is the arithmetic of one algorithm with its parameters. All methods
// but words and settle want a state that settle has brought to now, and n > 0;
// fits and wait also take n = 0, which asks whether the limit is not exceeded.
type stepper interface {
	// capacity is the most hits that can ever pass in one call.
	capacity() int64
	// words is the fixed length of the state, or grows.
	words() int
	// settle brings s to now in place: expired hits leave, and what no sequence
	// of calls could have produced (a clock that stepped back, damage) is cut to
	// what could. What was used under other parameters stays used.
	settle(s State, now int64)
	// fits reports whether n more hits pass.
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

	// program names the Lua file that follows this arithmetic.
	program() string
	// appendNumbers appends what program's params reads: whole numbers from 0 to
	// 2^53, times in microseconds.
	appendNumbers(dst []float64) []float64
}

// What some steppers are besides.
type (
	// adopter has states of another layout than others for the same counter.
	adopter interface {
		// layout is the number of the layout: see [Limit.Layout].
		layout() int
		// adopt makes s, all zero and of words(), what another layout holds; other
		// may be of no layout at all and is then passed over.
		adopt(s, other State, now int64)
	}
	// packer has a program that answers states in other numbers than their words.
	packer interface {
		appendState(dst State, next func() int64) State
	}
	// answerer has a program that does not answer whole states, which grow, but what
	// a decision is made of.
	answerer interface {
		answer(now, hits int64, allowed bool, next func() int64) Decision
	}
	// whole is a stepper all of whose charges leave at once.
	whole interface{ leavesWhole() }
)

const (
	never = math.MaxInt64 // the wait for more hits than a limit can hold
	grows = -1            // the words of a state without a fixed length
)

// Limit is one limit ready to decide: validated parameters with everything that
// does not depend on the call computed once. It is immutable.
type Limit struct {
	stepper
	params Params
	denied DeniedHits // never DeniedDefault
	most   int64      // capacity
	number Program
	inPart bool     // see AnswersInPart
	hold   *holding // the stepper, if it is one; else nil
}

// New validates p and prepares the limit. The error is a *ParamError.
func New(p Params) (*Limit, error) {
	p.Calendar = p.Calendar.withDefaults()
	if err := p.check(); err != nil {
		return nil, err
	}
	k := &kinds[p.Algorithm]
	l := &Limit{params: p, denied: p.DeniedHits}
	holds := p.Hold != 0 || k.alwaysHolds
	if l.denied == DeniedDefault {
		l.denied = Drop
		if k.countsDenied && !holds { // its settlement says what a request has cost
			l.denied = Count
		}
	}
	var err error
	if l.stepper, err = k.new(p, l.denied == Count || holds); err != nil { // a settlement may take it beyond its limit
		return nil, err
	}
	if holds {
		l.hold = &holding{inner: l.stepper, expires: cmp.Or(p.Hold, p.Window).Microseconds(), once: k.alwaysHolds}
		l.stepper = l.hold
	}
	l.most, l.number = l.capacity(), programOf(l.stepper)
	_, l.inPart = l.stepper.(answerer)
	l.inPart = l.inPart || holds
	return l, nil
}

// check says what is wrong with p; the constructor says the rest.
func (p Params) check() error {
	if !p.Algorithm.known() {
		return &ParamError{"algorithm", fmt.Sprintf("unknown algorithm %d", p.Algorithm), "write one of " + strings.Join(Algorithms(), ", ")}
	}
	k := &kinds[p.Algorithm]
	foreign := func(param, what string, t Takes) error {
		return &ParamError{param, fmt.Sprintf("%s has no %s", p.Algorithm, what), "remove it, or write algorithm: " + AlgorithmsWith(t)}
	}
	switch {
	case p.DeniedHits > Drain:
		return &ParamError{"denied_hits", fmt.Sprintf("unknown denied_hits %d", p.DeniedHits), "write count, drop or drain"}
	case p.Burst != 0 && !p.Algorithm.Takes(TakesBurst):
		return foreign("burst", "burst", TakesBurst)
	case p.Refill != (Rate{}) && !p.Algorithm.Takes(TakesRefill):
		return foreign("refill_rate", "refill rate of its own", TakesRefill)
	case p.Refill.Hits == 0 && p.Refill.Per != 0:
		return &ParamError{"refill_rate", "a refill rate of 0 never refills", "use at least 1"}
	case p.Strict && !p.Algorithm.Takes(TakesStrict):
		return foreign("strict", "strict mode", TakesStrict)
	case p.SubWindows != 0 && !p.Strict:
		return &ParamError{"sub_windows", "sub windows belong to strict mode", "write strict: true, or remove it"}
	case p.SubWindows < 0 || p.SubWindows > MaxSubWindows:
		return &ParamError{"sub_windows", fmt.Sprintf("%d sub windows", p.SubWindows), fmt.Sprintf("use 1 to %d", MaxSubWindows)}
	case !p.Calendar.IsZero() && !p.Algorithm.Takes(TakesCalendar):
		return foreign("window", "calendar windows", TakesCalendar)
	case !p.Calendar.IsZero() && p.Window != 0:
		return &ParamError{"window", "a calendar and a length", "write one of them"}
	case k.maxLimit != 0 && p.Limit > k.maxLimit:
		return &ParamError{"requests_per_unit", fmt.Sprintf(k.whyNoMore, p.Limit), fmt.Sprintf("write at most %d, or use %s", k.maxLimit, k.try)}
	}
	if !p.Calendar.IsZero() {
		if err := p.Calendar.check(); err != nil {
			return err
		}
		return p.checkHold()
	}
	if err := checkPeriod("window", "window", p.Window); err != nil {
		return err
	}
	if p.Refill != (Rate{}) {
		if err := checkPeriod("refill_rate", "refill period", p.Refill.Per); err != nil {
			return err
		}
	}
	return p.checkHold()
}

func checkPeriod(param, name string, d time.Duration) error {
	switch {
	case d < MinWindow:
		return &ParamError{param, fmt.Sprintf("a %s of %v is too short", name, d), fmt.Sprintf("use at least %v", MinWindow)}
	case d > MaxWindow:
		return &ParamError{param, fmt.Sprintf("a %s of %v is too long", name, d), fmt.Sprintf("use at most %v (366 days)", MaxWindow)}
	case d%time.Microsecond != 0:
		return &ParamError{param, fmt.Sprintf("a %s of %v is not a whole number of microseconds", name, d), "round it"}
	}
	return nil
}

// Params returns what the limit was made of, the defaults of a calendar written out.
func (l *Limit) Params() Params { return l.params }

// DeniedHits returns what a denied call charges, the default resolved: never
// DeniedDefault.
func (l *Limit) DeniedHits() DeniedHits { return l.denied }

// Capacity is the most hits that can ever pass in one call.
func (l *Limit) Capacity() int64 { return l.most }

// Words is the length of the limit's states in words; 0 when states grow
// (SlidingLog, and whatever holds).
func (l *Limit) Words() int { return max(0, l.words()) }

// Layout numbers the limit's layout of states among those of its counter, from 1
// to [Layouts]: a state of layout n has n − Layout() more words than one of this
// limit, which Settle reads all the same. 0: there is no other layout.
func (l *Limit) Layout() int {
	if a, ok := l.stepper.(adopter); ok {
		return a.layout()
	}
	return 0
}

// ResetsAtOnce reports whether all that a counter has been charged leaves at once,
// at the end of its window.
func (l *Limit) ResetsAtOnce() bool {
	_, ok := l.stepper.(whole)
	return ok
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

// Step is the definition of a decision: what one call with these hits at now
// (microseconds since the epoch, from 0 to 2^52) answers and leaves behind.
// hits > 0 charges, hits < 0 gives back, and hits = 0 only looks: the state
// stays as it is, so that a look heals it for itself alone. The state may have
// been left under other parameters of the same algorithm and window; one of
// another algorithm counts as never used if its length gives it away. s is not changed.
func (l *Limit) Step(s State, now, hits int64) (State, Decision) {
	t, d := l.Decide(l.Settle(slices.Clone(s), now, nil), now, hits)
	if hits == 0 {
		return s, d
	}
	return t, d
}

// Decide is Step on a state that Settle has brought to now, in place: what a store
// does for a check that stands alone. A look leaves the state settled.
func (l *Limit) Decide(s State, now, hits int64) (State, Decision) {
	allowed := true
	switch {
	case hits == 0:
		allowed = l.Look(s, now)
	case hits < 0:
		s = l.Refund(s, now, hits)
	case l.Fits(s, now, hits):
		s = l.Charge(s, now, hits)
	default:
		allowed = false
		s = l.Deny(s, now, hits)
	}
	return s, l.Report(s, now, hits, allowed)
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
		if a, ok := l.stepper.(adopter); ok {
			a.adopt(settled, s, now)
		}
		s = settled
	}
	if l.hold != nil {
		s = l.hold.fit(s, now)
	}
	l.settle(s, now)
	return s
}

// Fits reports whether the hits (> 0) would pass.
func (l *Limit) Fits(s State, now, hits int64) bool { return l.fits(s, now, hits) }

// Look reports what a call with 0 hits answers: whether one hit would pass or,
// when denied hits count, whether the limit has not been exceeded. A limit of 0
// refuses looks too.
func (l *Limit) Look(s State, now int64) bool { return l.fits(s, now, l.lookHits()) }

// lookHits is how many hits a look needs room for.
func (l *Limit) lookHits() int64 {
	if l.denied == Count && l.most > 0 {
		return 0
	}
	return 1
}

// Charge adds hits (> 0) whether or not they fit, up to the bound on debt. The
// returned state is s, but for states that grow, which may have outgrown it.
func (l *Limit) Charge(s State, now, hits int64) State {
	if l.hold != nil {
		return l.hold.put(s, now, hits, 0)
	}
	return l.charge(s, now, hits)
}

// Refund gives hits (< 0, as a call has them) back, never beyond full. It needs no
// room.
func (l *Limit) Refund(s State, now, hits int64) State {
	return l.refund(s, now, negated(hits))
}

// Deny charges what a denied call with these hits (> 0) charges.
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
	if l.hold != nil {
		return l.For(Hold{}).Report(s, now, hits, allowed)
	}
	remaining, reset := l.left(s, now)
	d := Decision{Allowed: allowed, Remaining: remaining, ResetAfter: micros(reset)}
	if allowed {
		return d
	}
	if hits == 0 {
		hits = l.lookHits()
	}
	if wait := l.wait(s, now, hits); wait == never {
		d.RetryAfter = Never
	} else {
		d.RetryAfter = micros(wait)
	}
	return d
}

// Expiry returns the time (microseconds since the epoch) from which s equals
// "never used" and need not be kept. It already does when that is not after now.
func (l *Limit) Expiry(s State) int64 { return l.expiry(s) }
