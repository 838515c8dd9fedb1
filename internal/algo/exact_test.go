package algo_test

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// history leaves a counter in a state that calls can lead to, steps of the clock
// included, and returns the time of the last one and its answer.
func history(t *rapid.T, c *counter) (now, hits int64, last algo.Decision) {
	p := c.limit.Params()
	call := caller{p: p, now: epoch + rapid.Int64Range(0, 2*p.Length().Microseconds()).Draw(t, "start")}
	for range rapid.IntRange(1, 20).Draw(t, "calls") {
		now, hits = call.draw(t)
		call.last = c.hit(now, hits)
	}
	// Had the last call looked, a state to be healed would not be: looks write nothing.
	c.state = c.limit.Settle(c.state, now, nil)
	return now, hits, call.last
}

// A denied call passes after RetryAfter and not a microsecond earlier; Never is
// for calls beyond the capacity and for them alone.
func TestRetryAfterIsExact(t *testing.T) {
	every(t, func(t *rapid.T, p algo.Params) {
		c := newCounter(t, p)
		now, hits, d := history(t, c)
		switch {
		case d.Allowed:
			if d.RetryAfter != 0 {
				t.Fatalf("allowed, but retry after %v", d.RetryAfter)
			}
		case d.RetryAfter == algo.Never:
			if hits <= c.limit.Capacity() {
				t.Fatalf("%d hits are within the capacity of %d: never is wrong", hits, c.limit.Capacity())
			}
			if _, fresh := c.limit.Step(nil, now, hits); fresh.Allowed {
				t.Fatalf("%d hits pass on a new counter: never is wrong", hits)
			}
		default:
			if _, early := c.limit.Step(c.state, now+d.RetryAfter.Microseconds()-1, hits); early.Allowed {
				t.Fatalf("%d hits pass before %v", hits, d.RetryAfter)
			}
			if _, due := c.limit.Step(c.state, now+d.RetryAfter.Microseconds(), hits); !due.Allowed {
				t.Fatalf("%d hits do not pass after %v", hits, d.RetryAfter)
			}
		}
	})
}

// Remaining hits pass, one by one or at once, and not one more.
func TestRemainingIsExact(t *testing.T) {
	every(t, func(t *rapid.T, p algo.Params) {
		c := newCounter(t, p)
		now, _, d := history(t, c)
		left := max(0, d.Remaining)
		if _, more := c.limit.Step(c.state, now, left+1); more.Allowed {
			t.Fatalf("%d remain but %d pass", d.Remaining, left+1)
		}
		if left == 0 {
			return
		}
		if after, all := c.limit.Step(c.state, now, left); !all.Allowed || all.Remaining != 0 {
			t.Fatalf("%d remain: taken at once they leave %s on %v", left, show(all), after)
		}
		for ; left > 0 && left <= 100; left-- {
			if got := c.hit(now, 1); !got.Allowed || got.Remaining != left-1 {
				t.Fatalf("%d remain: the next one leaves %s", left, show(got))
			}
		}
	})
}

// A counter equals an unused one at its expiry and not a microsecond earlier, and
// ResetAfter says the same (but for a sliding log's oldest hit and a fixed
// window's end).
func TestExpiryAndResetAfterAreExact(t *testing.T) {
	every(t, func(t *rapid.T, p algo.Params) {
		c := newCounter(t, p)
		now, _, _ := history(t, c)
		d := c.limit.Report(c.state, now, -1, true)
		expiry := max(now, c.limit.Expiry(c.state))
		if !asNew(c.limit, c.state, expiry) {
			t.Fatalf("%v is not as new at its expiry %d, %d µs from now", c.state, expiry, expiry-now)
		}
		if expiry > now && asNew(c.limit, c.state, expiry-1) {
			t.Fatalf("%v is as new before its expiry", c.state)
		}
		reset := now + d.ResetAfter.Microseconds()
		switch p.Algorithm {
		case algo.FixedWindow:
			if reset <= now || reset > now+longest(p) || expiry > now && reset != expiry {
				t.Fatalf("reset after %v is not the end of the window", d.ResetAfter)
			}
		case algo.SlidingLog:
			left := func(now int64) int64 {
				_, d := c.limit.Step(c.state, now, 0)
				return d.Remaining
			}
			if expiry > now && (left(reset) <= d.Remaining || left(reset-1) != d.Remaining) {
				t.Fatalf("reset after %v is not when the oldest hit leaves", d.ResetAfter)
			}
		default:
			if reset != expiry {
				t.Fatalf("reset after %v, expiry after %d µs", d.ResetAfter, expiry-now)
			}
		}
	})
}

// asNew reports whether settling s to now makes it a state that was never used.
func asNew(l *algo.Limit, s algo.State, now int64) bool {
	s, fresh := l.Settle(slices.Clone(s), now, nil), l.Settle(nil, now, nil)
	if l.Params().Algorithm == algo.SlidingLog {
		return l.Expiry(s) == 0 // its ring stays where it is
	}
	if l.Holds() { // how many holds have expired is for statistics
		_, d := l.Step(s, now, 0)
		return d.Held == 0 && d.Remaining == l.Capacity()
	}
	return slices.Equal(s, fresh)
}

// A clock that steps back un-charges nothing, and makes nobody wait for longer
// than the rule ever does; of a calendar, until the window ends that was charged.
func TestClockStepsBack(t *testing.T) {
	every(t, func(t *rapid.T, p algo.Params) {
		c := newCounter(t, p)
		now, _, before := history(t, c)
		back := rapid.OneOf(
			rapid.Int64Range(1, 3*p.Length().Microseconds()),
			rapid.SampledFrom([]int64{1, now % p.Length().Microseconds(), p.Length().Microseconds(), now - 1}),
		).Draw(t, "step back")
		now = max(1, now-back)
		d := c.hit(now, 1)
		if d.Remaining > before.Remaining {
			t.Fatalf("a clock that stepped back by %d µs un-charged: %s after %s", back, show(d), show(before))
		}
		longest := longest(p)
		if d.ResetAfter > micros(longest) || d.RetryAfter != algo.Never && d.RetryAfter > micros(longest) {
			t.Fatalf("after a step back by %d µs: %s, longer than %v", back, show(d), micros(longest))
		}
		if !asNew(c.limit, c.state, now+longest) {
			t.Fatalf("after a step back by %d µs: still charged after %v", back, micros(longest))
		}
	})
}

// Where refused calls charge nothing, nobody is ever in debt, but for a clock that steps
// back: two counters of a sliding window then weigh the last window as they did at that
// time. That is over when the clock is where it was, or after a window.
func TestAStepOfTheClockIsDebtForNoLongerThanTheStep(t *testing.T) {
	every(t, func(t *rapid.T, p algo.Params) {
		c := newCounter(t, p)
		now, _, before := history(t, c)
		if c.limit.DeniedHits() == algo.Count || c.limit.Holds() || before.Remaining < 0 {
			return
		}
		back := rapid.OneOf(rapid.Int64Range(1, 3*p.Length().Microseconds()), rapid.SampledFrom([]int64{1, now - 1})).Draw(t, "step back")
		stepped := max(1, now-back)
		s := c.limit.Settle(slices.Clone(c.state), stepped, nil)
		if _, d := c.limit.Step(s, stepped+min(back, longest(p)), 0); d.Remaining < 0 {
			t.Fatalf("a clock that stepped back by %d µs is debt still: %s after %s", back, show(d), show(before))
		}
	})
}

// Capacity is what a new counter admits at once, and not one hit more.
func TestCapacityPassesAtOnce(t *testing.T) {
	every(t, func(t *rapid.T, p algo.Params) {
		l := mustLimit(t, p)
		if _, d := l.Step(nil, epoch, l.Capacity()); !d.Allowed || d.Remaining != 0 {
			t.Fatalf("the capacity, %d, on a new counter: %s", l.Capacity(), show(d))
		}
		if _, d := l.Step(nil, epoch, l.Capacity()+1); d.Allowed || d.RetryAfter != algo.Never {
			t.Fatalf("one more than the capacity, %d, on a new counter: %s", l.Capacity(), show(d))
		}
	})
}

// The parts of Step, used in place as stores do, are Step.
func TestPartsAreStep(t *testing.T) {
	every(t, func(t *rapid.T, p algo.Params) {
		l := mustLimit(t, p)
		var state, inPlace algo.State
		call := caller{p: p, now: epoch}
		for range rapid.IntRange(1, 20).Draw(t, "calls") {
			now, hits := call.draw(t)
			if hits == 0 {
				continue // settling in place would be a write
			}
			var want, got algo.Decision
			state, want = l.Step(state, now, hits)
			inPlace = l.Settle(inPlace, now, nil)
			allowed := hits < 0 || l.Fits(inPlace, now, hits)
			switch {
			case hits < 0:
				inPlace = l.Refund(inPlace, now, hits)
			case allowed:
				inPlace = l.Charge(inPlace, now, hits)
			default:
				inPlace = l.Deny(inPlace, now, hits)
			}
			if got = l.Report(inPlace, now, hits, allowed); got != want {
				t.Fatalf("%d hits at %d: parts %s, Step %s", hits, now, show(got), show(want))
			}
			call.last = got
		}
	})
}

// Whatever words a state holds, a step answers something that the rule could,
// and the counter is as new after the longest wait.
func FuzzStep(f *testing.F) {
	add := func(p algo.Params, now, hits int64, state ...uint64) {
		f.Add(uint8(p.Algorithm), p.Limit, p.Window.Microseconds(), p.Burst, p.Refill.Hits, p.Refill.Per.Microseconds(),
			p.Strict, uint8(p.SubWindows), uint8(p.DeniedHits), pack(state), now, hits)
	}
	for a := range algo.Algorithms() {
		p := algo.Params{Algorithm: algo.Algorithm(a), Limit: 3, Window: time.Second}
		add(p, epoch, 1)
		add(p, epoch, 2, slices.Repeat([]uint64{1 << 63}, 8)...)
		add(p, epoch, math.MinInt64, slices.Repeat([]uint64{math.MaxUint64}, 8)...)
		add(p, epoch, math.MaxInt64, slices.Repeat([]uint64{epoch + 1}, 8)...)
	}
	fixed := algo.Params{Limit: 3, Window: time.Second}
	add(fixed, epoch, 1, epoch+1000, math.MaxUint64-4)
	log := algo.Params{Algorithm: algo.SlidingLog, Limit: 3, Window: time.Second, DeniedHits: algo.Count}
	add(log, epoch, 2, 3, 1, 1<<60, 1<<60, epoch-1<<40) // not ascending
	add(log, epoch, 0, 3, 3, 1<<60, 1<<60, epoch-1<<40) // the newest has left
	strict := algo.Params{Algorithm: algo.SlidingWindow, Limit: 7, Window: time.Second, Strict: true, SubWindows: 3, DeniedHits: algo.Count}
	add(strict, epoch, 1, 1<<63, 9, 9, 9, 9)
	hybrid := algo.Params{Algorithm: algo.Hybrid, Limit: math.MaxUint32, Window: algo.MaxWindow, Burst: 9,
		Refill: algo.Rate{Hits: 2, Per: time.Second}, Strict: true, SubWindows: 60, DeniedHits: algo.Drain}
	add(hybrid, 1<<52, math.MaxInt64, slices.Repeat([]uint64{math.MaxUint64}, 64)...)
	add(strict, epoch, 1, epoch+1000, 1<<62, 1<<62) // a sum that overflows
	f.Fuzz(func(t *testing.T, a uint8, limit uint32, window int64, burst, refill uint32, per int64, strict bool, parts, denied uint8, raw []byte, now, hits int64) {
		const longestPeriod = math.MaxInt64 / int64(time.Microsecond)
		p := algo.Params{
			Algorithm: algo.Algorithm(a), Limit: limit, Window: micros(window % longestPeriod),
			Burst: burst, Refill: algo.Rate{Hits: refill, Per: micros(per % longestPeriod)},
			Strict: strict, SubWindows: int(int8(parts)), DeniedHits: algo.DeniedHits(denied),
		}
		l, err := algo.New(p)
		if err != nil {
			return
		}
		now &= 1<<52 - 1
		s := unpack(raw)
		if l.Words() > 0 && len(s) > 0 { // spend no tries on states of a wrong length
			s = append(s, make(algo.State, l.Words())...)[:l.Words()]
		}
		before := slices.Clone(s)
		after, d := l.Step(s, now, hits)
		if !slices.Equal(s, before) {
			t.Fatalf("Step changed its argument from %v to %v", before, s)
		}
		longest := longest(p)
		if p.Algorithm.Takes(algo.TakesBurst) {
			longest = max(longest, furthestAhead) // the state may be that of a slower rule
		}
		checkSane(t, l, d, micros(longest))
		if _, again := l.Step(after, now, hits); hits == 0 && again != d {
			t.Fatalf("a look, %s, and another, %s", show(d), show(again))
		}
		later := now + longest
		after = l.Settle(slices.Clone(after), now, nil) // a look may have left a wrong length
		if !asNew(l, after, later) {
			t.Fatalf("%v at %d became %v, which still blocks at %d", before, now, after, later)
		}
	})
}

// checkSane fails if the rule could not have answered d in any state, be it left
// by another rule for the same counter.
func checkSane(t *testing.T, l *algo.Limit, d algo.Decision, longest time.Duration) {
	t.Helper()
	p := l.Params()
	const mostCounted = (algo.MaxSubWindows + 1) * 2 * math.MaxUint32
	switch {
	case d.Remaining > l.Capacity() || p.Algorithm != algo.FixedWindow && d.Remaining < -mostCounted:
		t.Fatalf("%+v: remaining %d", p, d.Remaining)
	case d.ResetAfter < 0 || d.ResetAfter > longest:
		t.Fatalf("%+v: reset after %v, the longest is %v", p, d.ResetAfter, longest)
	case d.RetryAfter < 0 || d.RetryAfter > longest && d.RetryAfter != algo.Never:
		t.Fatalf("%+v: retry after %v, the longest is %v", p, d.RetryAfter, longest)
	case d.Allowed && d.RetryAfter != 0:
		t.Fatalf("%+v: allowed, but retry after %v", p, d.RetryAfter)
	}
}

// pack makes a state what the fuzzer can vary: bytes.
func pack(s []uint64) (raw []byte) {
	for _, w := range s {
		raw = binary.LittleEndian.AppendUint64(raw, w)
	}
	return raw
}

func unpack(raw []byte) (s algo.State) {
	for ; len(raw) >= 8; raw = raw[8:] {
		s = append(s, binary.LittleEndian.Uint64(raw))
	}
	return s
}
