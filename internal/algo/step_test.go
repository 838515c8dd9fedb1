package algo_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/algo/algotest"
)

func TestVectors(t *testing.T) {
	vectors, err := algotest.Vectors()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.File+"/"+v.Name, func(t *testing.T) {
			var state algo.State
			var model reference
			for i, s := range v.Steps {
				limit := mustLimit(t, s.Params)
				if !limit.Holds() { // TestHoldsAreTheModel has a model of those that do
					model.tune(s.Params)
					if d := model.step(s.Now, s.Hits, s.Want); d != s.Want {
						t.Errorf("step %d: %d hits at %d: the model says\n\t%s, the vector\n\t%s", i, s.Hits, s.Now, show(d), show(s.Want))
					}
				}
				var d algo.Decision
				if state, d = limit.For(s.Hold).Step(state, s.Now, s.Hits); d != s.Want {
					t.Errorf("step %d: %d hits at %d: got\n\t%s, want\n\t%s", i, s.Hits, s.Now, show(d), show(s.Want))
				}
			}
		})
	}
}

// show writes a decision as vector files do.
func show(d algo.Decision) string {
	retry := d.RetryAfter.Microseconds()
	if d.RetryAfter == algo.Never {
		retry = -1
	}
	text := fmt.Sprintf(`"allowed": %t, "remaining": %d, "reset_after": %d, "retry_after": %d`,
		d.Allowed, d.Remaining, d.ResetAfter.Microseconds(), retry)
	if d.Settled || d.Held+d.Expired != 0 {
		text += fmt.Sprintf(`, "settled": %t, "held": %d, "expired": %d`, d.Settled, d.Held, d.Expired)
	}
	return text
}

// tester is a *testing.T, *rapid.T or *testing.F.
type tester interface {
	Helper()
	Errorf(string, ...any)
	Fatalf(string, ...any)
}

func mustLimit(t tester, p algo.Params) *algo.Limit {
	t.Helper()
	l, err := algo.New(p)
	if err != nil {
		t.Fatalf("%+v: %v", p, err)
	}
	return l
}

// every runs a property for each algorithm, the strict windows, and those of calendars.
func every(t *testing.T, property func(*rapid.T, algo.Params)) {
	for i, name := range algo.Algorithms() {
		for _, strict := range []bool{false, true} {
			a := algo.Algorithm(i)
			if a.AlwaysHolds() {
				continue // see hold_test.go
			}
			if strict {
				if a != algo.SlidingWindow && a != algo.Hybrid {
					continue
				}
				name += " strict"
			}
			t.Run(name, func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) { property(t, drawParams(t, a, strict)) })
			})
		}
	}
	t.Run("fixed_window calendar", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) { property(t, drawRates(t, algo.Params{Calendar: drawCalendar(t)})) })
	})
}

func drawParams(t *rapid.T, a algo.Algorithm, strict bool) algo.Params {
	p := algo.Params{Algorithm: a, Strict: strict}
	p.Window = drawPeriod(t, "window")
	if strict {
		p.SubWindows = rapid.SampledFrom([]int{0, 1, 2, 3, 7, algo.MaxSubWindows}).Draw(t, "sub windows")
	}
	if a == algo.Hybrid && rapid.Bool().Draw(t, "own refill") {
		p.Refill.Per = drawPeriod(t, "refill period")
	}
	return drawRates(t, p)
}

func drawPeriod(t *rapid.T, label string) time.Duration {
	return rapid.OneOf(
		rapid.SampledFrom([]time.Duration{
			algo.MinWindow, time.Second, time.Minute, time.Hour, 24 * time.Hour, 365 * 24 * time.Hour, algo.MaxWindow,
		}),
		rapid.Map(rapid.Int64Range(1000, 10_000_000), micros),
	).Draw(t, label)
}

// drawChange draws another rule for the same counter: a reload may change all but
// the algorithm and the window of an algorithm that has windows.
func drawChange(t *rapid.T, p algo.Params) algo.Params {
	switch p.Algorithm {
	case algo.TokenBucket, algo.LeakyBucket:
		if rapid.Bool().Draw(t, "another window") {
			p.Window = drawPeriod(t, "window")
		}
	case algo.SlidingWindow, algo.Hybrid:
		if rapid.Bool().Draw(t, "another layout") {
			p.Strict, p.SubWindows = rapid.Bool().Draw(t, "strict"), 0
		}
		if p.Strict && rapid.Bool().Draw(t, "other parts") {
			p.SubWindows = rapid.SampledFrom([]int{0, 1, 2, 3, 7, algo.MaxSubWindows}).Draw(t, "sub windows")
		}
		if p.Algorithm == algo.Hybrid && rapid.Bool().Draw(t, "another refill") {
			p.Refill.Per = drawPeriod(t, "refill period")
		}
	}
	return drawRates(t, p)
}

// drawRates draws the numbers of hits in a rule.
func drawRates(t *rapid.T, p algo.Params) algo.Params {
	most := uint32(math.MaxUint32)
	if p.Algorithm == algo.SlidingLog {
		most = algo.MaxLogLimit
	}
	p.Limit = drawCount(t, "limit", most)
	p.DeniedHits = rapid.SampledFrom([]algo.DeniedHits{algo.DeniedDefault, algo.Count, algo.Drop, algo.Drain}).Draw(t, "denied hits")
	if p.Refill.Per != 0 {
		p.Refill.Hits = drawCount(t, "refill", most)
	}
	if p.Algorithm == algo.TokenBucket || p.Algorithm == algo.LeakyBucket || p.Algorithm == algo.Hybrid {
		p.Burst = rapid.OneOf(rapid.Just(uint32(0)), rapid.Custom(func(t *rapid.T) uint32 { return drawCount(t, "burst", most) })).Draw(t, "burst")
	}
	if _, err := algo.New(p); err != nil { // takes too long to fill
		p.Burst = 1
	}
	return p
}

func drawCount(t *rapid.T, label string, most uint32) uint32 {
	return rapid.OneOf(
		rapid.Uint32Range(1, 12),
		rapid.SampledFrom([]uint32{1, 7, 100, 1000, 65536, min(700_000, most), most}),
		rapid.Uint32Range(1, most),
	).Draw(t, label)
}

// caller draws calls that seek out the edges of a limit.
type caller struct {
	p    algo.Params
	now  int64
	last algo.Decision
}

func (c *caller) draw(t *rapid.T) (now, hits int64) {
	window := c.p.Length().Microseconds()
	perHit := window / max(1, int64(c.p.Limit))
	waits := []int64{
		0, 1, perHit, perHit + 1, window / 10, window / 2, window - 1, window, window + 1, 3 * window,
		window - c.now%window - 1, window - c.now%window,
		c.last.ResetAfter.Microseconds(), max(0, c.last.ResetAfter.Microseconds()-1),
		-1, -perHit, -window / 2, -2 * window,
	}
	if c.last.RetryAfter != algo.Never {
		waits = append(waits, c.last.RetryAfter.Microseconds(), max(0, c.last.RetryAfter.Microseconds()-1))
	}
	wait := rapid.OneOf(rapid.Just(int64(0)), rapid.SampledFrom(waits), rapid.Int64Range(0, 2*window)).Draw(t, "wait")
	c.now = min(max(c.now+wait, 1), 1<<52)

	limit := int64(c.p.Limit)
	left := c.last.Remaining
	hits = rapid.OneOf(
		rapid.SampledFrom([]int64{1, 1, 1, 0, 2, left, left + 1, limit, limit + 1, limit / 2, int64(c.p.Burst), -1, -left, -limit,
			math.MaxUint32, math.MaxInt64, math.MinInt64}),
		rapid.Int64Range(-limit, 2*limit),
	).Draw(t, "hits")
	return c.now, hits
}

const epoch = 1_800_000_000_000_000 // a time in 2027, in µs

// Every field of every decision is what the model says, whatever the clock, the
// callers and the rule do.
func TestStepIsTheModel(t *testing.T) {
	every(t, func(t *rapid.T, p algo.Params) {
		limit := mustLimit(t, p)
		var model reference
		model.tune(p)
		var state algo.State
		c := caller{p: p, now: epoch + rapid.Int64Range(0, 2*p.Length().Microseconds()).Draw(t, "start")}
		for range rapid.IntRange(1, 80).Draw(t, "calls") {
			if rapid.IntRange(0, 9).Draw(t, "change the rule") == 9 {
				p = drawChange(t, p)
				if rapid.IntRange(0, 9).Draw(t, "to 0") == 9 {
					p.Limit, p.Burst = 0, 0
				}
				limit, c.p = mustLimit(t, p), p
				model.tune(p)
			}
			now, hits := c.draw(t)
			before := slices.Clone(state)
			after, d := limit.Step(state, now, hits)
			if !slices.Equal(before, state) {
				t.Fatalf("Step changed its argument from %v to %v", before, state)
			}
			if hits == 0 && !slices.Equal(before, after) {
				t.Fatalf("a look changed the state from %v to %v", before, after)
			}
			if want := model.step(now, hits, d); d != want {
				t.Fatalf("%d hits at %d on %v: got\n\t%s, want\n\t%s", hits, now, before, show(d), show(want))
			}
			state, c.last = after, d
		}
	})
}
