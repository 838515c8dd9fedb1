package algo_test

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// counter is one counter and what it has admitted.
type counter struct {
	t        tester
	limit    *algo.Limit
	state    algo.State
	admitted []group
}

func newCounter(t tester, p algo.Params) *counter {
	return &counter{t: t, limit: mustLimit(t, p)}
}

func (c *counter) hit(now, hits int64) algo.Decision {
	after, d := c.limit.Step(c.state, now, hits)
	c.state = after
	if d.Allowed && hits > 0 {
		c.admitted = append(c.admitted, group{now, hits})
	}
	return d
}

// take takes all that is left and returns how much that was.
func (c *counter) take(now int64) int64 {
	left := c.hit(now, 0).Remaining
	if left > 0 && !c.hit(now, left).Allowed {
		c.t.Fatalf("%d remain at %d but do not pass", left, now)
	}
	return max(0, left)
}

// most returns the most hits admitted in any trailing window (t − window, t].
func (c *counter) most(window int64) (most int64) {
	var sum int64
	first := 0
	for _, g := range c.admitted {
		sum += g.n
		for c.admitted[first].at <= g.at-window {
			sum -= c.admitted[first].n
			first++
		}
		most = max(most, sum)
	}
	return most
}

// checkBucket checks that every closed interval of length t has admitted at most
// capacity + t·hits/per.
func (c *counter) checkBucket(capacity int64, rate algo.Rate) {
	c.t.Helper()
	// From the i-th call to the j-th: what came up to j, less what came before i,
	// less t·rate. One pass: the worst i for each j is the least of those so far.
	var sum int64
	excess := func(at int64) *big.Rat {
		x := big.NewRat(c.admitted[0].at-at, rate.Per.Microseconds())
		return x.Mul(x, rat(int64(rate.Hits))).Add(x, rat(sum))
	}
	var least *big.Rat
	for _, g := range c.admitted {
		if before := excess(g.at); least == nil || before.Cmp(least) < 0 {
			least = before
		}
		sum += g.n
		if over := new(big.Rat).Sub(excess(g.at), least); over.Cmp(rat(capacity)) > 0 {
			c.t.Fatalf("up to %d: %s hits more than drained in some interval, the capacity is %d", g.at, over.FloatString(3), capacity)
		}
	}
}

// checkBounds checks all that the documentation promises of the rule.
func (c *counter) checkBounds() {
	c.t.Helper()
	p := c.limit.Params()
	limit := int64(p.Limit)
	bound := map[algo.Algorithm]int64{
		algo.FixedWindow: 2 * limit, algo.SlidingWindow: 2 * limit, algo.SlidingLog: limit, algo.Hybrid: 2 * limit,
	}[p.Algorithm]
	if p.Strict {
		bound = limit
	}
	if got := c.most(shortest(p)); bound != 0 && got > bound {
		c.t.Fatalf("admitted %d in a window, more than %d", got, bound)
	}
	if bound == 0 || p.Algorithm == algo.Hybrid {
		c.checkBucket(bucketOf(p))
	}
}

// bucketOf returns the capacity and rate of a rule's bucket.
func bucketOf(p algo.Params) (int64, algo.Rate) {
	rate := p.Refill
	if rate == (algo.Rate{}) {
		rate = algo.Rate{Hits: p.Limit, Per: p.Window}
	}
	switch {
	case p.Burst != 0:
		return int64(p.Burst), rate
	case p.Algorithm == algo.LeakyBucket:
		return 1, rate
	}
	return int64(p.Limit), rate
}

// However a caller times its calls, and whatever denied calls charge, it gets no
// more than the bounds.
func TestNobodyGetsMoreThanTheBound(t *testing.T) {
	every(t, func(t *rapid.T, p algo.Params) {
		c := newCounter(t, p)
		call := caller{p: p, now: epoch}
		for range rapid.IntRange(1, 80).Draw(t, "calls") {
			before := call.now
			now, hits := call.draw(t)
			call.now = max(before, now) // here the clock only goes forward
			if rapid.Bool().Draw(t, "all that is left") {
				hits = call.last.Remaining
			}
			call.last = c.hit(call.now, max(0, hits))
		}
		c.checkBounds()
	})
}

// A caller that takes whatever it can at every moment that matters: around the
// ends of windows, when something leaves, and as soon as a denied call may pass.
func TestGreedyCallersGetNoMoreThanTheBound(t *testing.T) {
	for i, name := range algo.Algorithms() {
		for _, limit := range []uint32{1, 2, 7, 1000} {
			for _, strict := range []bool{false, true} {
				p := algo.Params{Algorithm: algo.Algorithm(i), Limit: limit, Window: time.Second, Strict: strict}
				if _, err := algo.New(p); err != nil || p.Algorithm.AlwaysHolds() {
					continue // has no strict mode, or bounds no window
				}
				t.Run(name, func(t *testing.T) {
					rng := rand.New(rand.NewPCG(1, uint64(limit)))
					for range 20 {
						c := newCounter(t, p)
						now := int64(epoch) + rng.Int64N(2_000_000)
						for range 200 {
							if rng.IntN(3) > 0 {
								c.take(now)
							} else {
								c.hit(now, 1+rng.Int64N(int64(limit)))
							}
							next := []int64{
								now + 1,
								now + c.hit(now, 0).RetryAfter.Microseconds(),
								now + max(1, c.hit(now, 0).ResetAfter.Microseconds()),
								(now/1_000_000+1)*1_000_000 - 1,
								(now/1_000_000 + 1) * 1_000_000,
								now + rng.Int64N(1_000_000),
							}
							now = max(now, next[rng.IntN(len(next))])
						}
						c.checkBounds()
					}
				})
			}
		}
	}
}

// The bounds are not slack: callers that know the algorithm reach them.
func TestBoundsAreReached(t *testing.T) {
	const w = 60_000_000
	start := int64(epoch) // a multiple of w
	minute := func(a algo.Algorithm) algo.Params {
		return algo.Params{Algorithm: a, Limit: 100, Window: time.Minute}
	}
	strict := minute(algo.SlidingWindow)
	strict.Strict = true
	smooth, bursty := minute(algo.Hybrid), minute(algo.Hybrid)
	smooth.Burst, smooth.Refill = 30, algo.Rate{Hits: 1, Per: time.Second}
	bursty.Burst = 300
	for _, c := range []struct {
		name   string
		params algo.Params
		at     []int64
		most   int64
	}{
		{"fixed_window: both sides of a boundary", minute(algo.FixedWindow), []int64{w - 1, w}, 200},
		{"sliding_window: before a boundary, and what seeps through", minute(algo.SlidingWindow), []int64{w - 1, 2*w - 2}, 200},
		{"sliding_window strict", strict, []int64{w - 1, w, 2*w - 2, 2 * w, 3 * w}, 100},
		{"sliding_log", minute(algo.SlidingLog), []int64{w - 1, w, 2*w - 2, 2*w - 1}, 100},
		// From a full bucket: 100 at once and one every 0.6 s, the last within the minute after 59.4 s.
		{"token_bucket", minute(algo.TokenBucket), []int64{0, w - 1}, 199},
		// One at 0 and one every 0.6 s.
		{"leaky_bucket", minute(algo.LeakyBucket), every600ms(), 100},
		// 30 at once and one every second, the last within the minute after 59 s.
		{"hybrid: the bucket is the smaller", smooth, every600ms(), 89},
		{"hybrid: the window is the smaller", bursty, []int64{w - 1, 2*w - 2}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newCounter(t, c.params)
			for _, at := range c.at {
				k.take(start + at)
			}
			if got := k.most(w); got != c.most {
				t.Errorf("got %d in a window, want %d", got, c.most)
			}
			k.checkBounds()
		})
	}
}

func every600ms() (at []int64) {
	for i := range int64(200) {
		at = append(at, i*600_000)
	}
	return at
}

// A strict window gives back what was taken after at most one part more than
// the window.
func TestStrictWindowsPriceIsOnePart(t *testing.T) {
	for _, parts := range []int{1, 2, 10, algo.MaxSubWindows} {
		rapid.Check(t, func(t *rapid.T) {
			p := algo.Params{Algorithm: algo.SlidingWindow, Strict: true, SubWindows: parts, Limit: 10, Window: time.Minute}
			c := newCounter(t, p)
			now := epoch + rapid.Int64Range(0, 60_000_000).Draw(t, "start")
			c.take(now)
			retry := c.hit(now, 1).RetryAfter
			if part := time.Minute / time.Duration(parts); retry <= time.Minute || retry > time.Minute+part {
				t.Fatalf("retry after %v, want more than a minute and at most %v more", retry, part)
			}
		})
	}
}

// A bucket drained once and then whenever something has dripped in has admitted
// exactly its capacity and k·limit after k windows, however the drips fall.
func TestBucketsDoNotDrift(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name   string
		limit  uint32
		window time.Duration
		widest int64 // µs between calls: less than the bucket takes to fill
	}{
		{"1 per year", 1, 365 * day, 30 * 24 * 3600 * 1_000_000},
		{"7 per year", 7, 365 * day, 30 * 24 * 3600 * 1_000_000},
		{"3 per second", 3, time.Second, 300_000},
		{"10,000 per second", 10_000, time.Second, 5000},
		{"700,000 per second", 700_000, time.Second, 5000},
		{"4,294,967,295 per second", 4_294_967_295, time.Second, 5000},
		{"999,983 per 1.000003 s", 999_983, 1_000_003 * time.Microsecond, 5000},
	} {
		t.Run(c.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, 7))
			k := newCounter(t, algo.Params{Algorithm: algo.TokenBucket, Limit: c.limit, Window: c.window})
			limit, window := int64(c.limit), c.window.Microseconds()
			got := k.take(epoch)
			now := int64(epoch)
			for windows := int64(1); windows <= 5; windows++ {
				for end := epoch + windows*window; now < end; {
					now = min(end, now+1+rng.Int64N(c.widest))
					got += k.take(now)
				}
				if want := limit + windows*limit; got != want {
					t.Fatalf("%d admitted after %d windows, want %d", got, windows, want)
				}
			}
		})
	}
}

// Windows have no drift to have, at either extreme.
func TestWindowsDoNotDrift(t *testing.T) {
	for _, limit := range []uint32{1, 7, 65_536, 700_000, 4_294_967_295} {
		for _, window := range []time.Duration{time.Second, 365 * 24 * time.Hour} {
			for _, a := range []algo.Algorithm{algo.FixedWindow, algo.SlidingLog} {
				if a == algo.SlidingLog && limit > algo.MaxLogLimit {
					continue
				}
				c := newCounter(t, algo.Params{Algorithm: a, Limit: limit, Window: window})
				now := int64(epoch)
				now -= now % window.Microseconds()
				for k := range int64(20) {
					if got := c.take(now + k*window.Microseconds()); got != int64(limit) {
						t.Fatalf("%s, %d per %v: %d in window %d", a, limit, window, got, k)
					}
				}
			}
		}
	}
}

// clocksMove is the most that changes of clocks make windows longer or shorter, in µs.
const clocksMove = 2 * 3600 * 1e6

// shortest returns the length of the rule's shortest window, in µs.
func shortest(p algo.Params) int64 {
	days := map[algo.Period]int64{algo.EveryDay: 1, algo.EveryWeek: 7, algo.EveryMonth: 28, algo.EveryQuarter: 90, algo.EveryYear: 365}
	if n := days[p.Calendar.Every]; n > 0 {
		return n*24*3600*1e6 - clocksMove
	}
	return p.Window.Microseconds()
}

// longest returns the longest that a rule ever lets a caller wait, in µs, be its
// state what it may.
func longest(p algo.Params) int64 {
	window := p.Window.Microseconds()
	parts := int64(p.SubWindows)
	if parts == 0 {
		parts = algo.DefaultSubWindows
	}
	full := func() int64 {
		if p.Limit == 0 {
			return furthestAhead // by the rule that the state was left by
		}
		capacity, rate := bucketOf(p)
		if p.DeniedHits == algo.Count {
			capacity *= 2
		}
		x := big.NewRat(rate.Per.Microseconds(), int64(rate.Hits))
		x.Mul(x, rat(capacity))
		return floor(x) + 1
	}
	sliding := 2 * window
	if p.Strict {
		part := (window + parts - 1) / parts
		sliding = (parts + 1) * part
	}
	switch p.Algorithm {
	case algo.FixedWindow, algo.SlidingLog:
		if !p.Calendar.IsZero() {
			return 2*p.Length().Microseconds() + clocksMove
		}
		return window
	case algo.SlidingWindow:
		return sliding
	case algo.Hybrid:
		return max(sliding, full())
	}
	return full()
}

// Denied hits that count are a debt of at most one more capacity, and end.
func TestDebtIsBounded(t *testing.T) {
	every(t, func(t *rapid.T, p algo.Params) {
		p.DeniedHits = algo.Count
		c := newCounter(t, p)
		call := caller{p: p, now: epoch}
		for range 40 {
			before := call.now
			now, hits := call.draw(t)
			call.now = max(before, now)
			d := c.hit(call.now, hits)
			if p.Algorithm != algo.FixedWindow && d.Remaining < -mostDebt(p) {
				t.Fatalf("remaining %d: more debt than %d", d.Remaining, mostDebt(p))
			}
			if longest := micros(longest(p)); d.RetryAfter != algo.Never && d.RetryAfter > longest || d.ResetAfter > longest {
				t.Fatalf("%s: longer than %v", show(d), longest)
			}
			call.last = d
		}
	})
}

// mostDebt returns by how much denied hits may exceed a limit. A fixed window
// counts on, and the end of the window forgives.
func mostDebt(p algo.Params) int64 {
	capacity, _ := bucketOf(p)
	switch p.Algorithm {
	case algo.SlidingLog:
		return 1
	case algo.SlidingWindow:
		return int64(p.Limit)
	case algo.Hybrid:
		return max(capacity, int64(p.Limit))
	}
	return capacity
}
