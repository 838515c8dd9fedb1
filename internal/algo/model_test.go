package algo_test

import (
	"math"
	"math/big"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// model is an algorithm said slowly: in exact rationals, without closed forms.
// What it is asked is only how many hits fit now; when a call would pass and
// when the counter is as good as new is found by trying later times.
type model interface {
	// retune puts another rule in force; its algorithm and windows are the same.
	retune(p algo.Params)
	// settle moves the clock to now, forward or back.
	settle(now int64)
	// room is how many hits fit, fractions included; negative is debt.
	room() *big.Rat
	charge(n int64)
	refund(n int64)
	// fresh says whether the counter is as good as new.
	fresh() bool
	clone() model
}

// reference decides calls on one counter with a model.
type reference struct {
	p      algo.Params
	denied algo.DeniedHits
	m      model // nil: never used, or a limit of 0 that keeps nothing
}

func (r *reference) tune(p algo.Params) {
	r.p, r.denied = p, p.DeniedHits
	if r.denied == algo.DeniedDefault {
		r.denied = algo.Drop
		if p.Algorithm == algo.FixedWindow {
			r.denied = algo.Count
		}
	}
}

// blocked says whether nothing ever passes and nothing is remembered.
func (r *reference) blocked() bool { return r.p.Limit == 0 && r.p.Algorithm != algo.FixedWindow }

func newModel(p algo.Params) model {
	var m model
	switch {
	case p.Algorithm == algo.FixedWindow:
		m = &fixedModel{}
	case p.Algorithm == algo.SlidingLog:
		m = &logModel{}
	case p.Algorithm == algo.SlidingWindow && p.Strict:
		m = &strictModel{}
	case p.Algorithm == algo.SlidingWindow:
		m = &slidingModel{}
	case p.Algorithm == algo.Hybrid:
		window := p
		window.Algorithm = algo.SlidingWindow
		m = &hybridModel{&bucketModel{level: new(big.Rat)}, newModel(window)}
	default:
		m = &bucketModel{level: new(big.Rat)}
	}
	m.retune(p)
	return m
}

// step decides one call as the package comment of algo and the design say. The
// guess only says where to look first for the times of the answer.
func (r *reference) step(now, hits int64, guess algo.Decision) algo.Decision {
	if r.blocked() {
		if hits != 0 {
			r.m = nil
		}
		if hits < 0 {
			return algo.Decision{Allowed: true}
		}
		return algo.Decision{RetryAfter: algo.Never}
	}
	var m model
	if r.m == nil {
		m = newModel(r.p)
	} else {
		m = r.m.clone()
		m.retune(r.p)
	}
	m.settle(now)
	if hits != 0 { // a look leaves all as it was
		r.m = m
	}
	fits := func(n int64) func(model) bool {
		return func(m model) bool { return rat(n).Cmp(m.room()) <= 0 }
	}
	wanted := hits
	if hits == 0 && r.denied != algo.Count {
		wanted = 1
	}
	allowed := hits < 0 || fits(wanted)(m)
	switch {
	case hits == 0:
	case hits < 0:
		m.refund(-max(hits, -math.MaxInt64))
	case allowed || r.denied == algo.Count:
		m.charge(hits)
	case r.denied == algo.Drain:
		if left := floor(m.room()); left > 0 {
			m.charge(left)
		}
	}
	d := algo.Decision{Allowed: allowed, Remaining: floor(m.room()), ResetAfter: r.reset(m, now, guess.ResetAfter)}
	if !allowed {
		d.RetryAfter = earliest(m, now, guess.RetryAfter, fits(wanted))
	}
	return d
}

func (r *reference) reset(m model, now int64, guess time.Duration) time.Duration {
	switch m := m.(type) {
	case *fixedModel:
		return micros(m.end - now)
	case *logModel:
		if len(m.hits) == 0 {
			return 0
		}
		return micros(m.hits[0].at + m.window - now)
	}
	return earliest(m, now, guess, model.fresh)
}

// horizon is beyond any wait: a bucket in debt fills in at most 2·MaxFill.
const horizon = 101 * 366 * 24 * 3600 * 1_000_000

// earliest returns the shortest wait after which ok holds if nothing else
// comes; Never if it does not within the horizon. Once true, ok stays true.
func earliest(m model, now int64, guess time.Duration, ok func(model) bool) time.Duration {
	after := func(t int64) bool {
		c := m.clone()
		c.settle(now + t)
		return ok(c)
	}
	if after(0) {
		return 0
	}
	no, yes := int64(0), int64(horizon)
	if !after(yes) {
		return algo.Never
	}
	try := func(t int64) {
		if t <= no || t >= yes {
			return
		}
		if after(t) {
			yes = t
		} else {
			no = t
		}
	}
	try(guess.Microseconds())
	try(guess.Microseconds() - 1)
	for yes-no > 1 {
		try(no + (yes-no)/2)
	}
	return micros(yes)
}

// fixedModel is the count in the window now.
type fixedModel struct {
	limit, window int64
	now, end      int64
	count         int64
}

const maxCount = 1<<53 - 1 // where a fixed window's count saturates

func (m *fixedModel) retune(p algo.Params) {
	m.limit, m.window = int64(p.Limit), p.Window.Microseconds()
}

func (m *fixedModel) settle(now int64) {
	m.now = now
	m.end = min(m.end, now+m.window)
	if now >= m.end {
		m.count = 0
	}
	m.realign()
}

func (m *fixedModel) room() *big.Rat { return rat(m.limit - m.count) }
func (m *fixedModel) charge(n int64) { m.count = saturate(rat(m.count), n, rat(maxCount)) }
func (m *fixedModel) refund(n int64) { m.count -= min(m.count, n); m.realign() }
func (m *fixedModel) fresh() bool    { return m.count == 0 }
func (m *fixedModel) clone() model   { c := *m; return &c }

// realign: windows are aligned to the epoch, but for one that a step of the
// clock has shifted.
func (m *fixedModel) realign() {
	if m.count == 0 {
		m.end = (m.now/m.window + 1) * m.window
	}
}

// slidingModel weighs the hits of the last window by how much of it is in view.
type slidingModel struct {
	limit, window, debt int64
	now, end            int64
	current, previous   int64
}

func (m *slidingModel) retune(p algo.Params) {
	m.limit, m.window, m.debt = int64(p.Limit), p.Window.Microseconds(), debt(p)
}

func (m *slidingModel) settle(now int64) {
	m.now = now
	m.end = min(m.end, now+m.window)
	if now >= m.end+m.window {
		m.current, m.previous = 0, 0
	} else if now >= m.end {
		m.current, m.previous, m.end = 0, m.current, m.end+m.window
	}
	m.current = min(m.current, m.limit+m.debt)
	m.previous = min(m.previous, m.limit+m.debt)
	m.realign()
}

func (m *slidingModel) realign() {
	if m.fresh() {
		m.end = (m.now/m.window + 1) * m.window
	}
}

func (m *slidingModel) estimate() *big.Rat {
	inView := big.NewRat(m.end-m.now, m.window)
	inView.Mul(inView, rat(m.previous))
	return inView.Add(inView, rat(m.current))
}

func (m *slidingModel) room() *big.Rat { return new(big.Rat).Sub(rat(m.limit), m.estimate()) }

// charge raises the estimate to at most the limit, or with debt twice that.
func (m *slidingModel) charge(n int64) {
	free := floor(new(big.Rat).Add(m.room(), rat(m.debt)))
	m.current += max(0, min(n, free))
}

func (m *slidingModel) refund(n int64) {
	back := min(n, m.current)
	m.current -= back
	m.previous -= min(n-back, m.previous)
	m.realign()
}

func (m *slidingModel) fresh() bool  { return m.current == 0 && m.previous == 0 }
func (m *slidingModel) clone() model { c := *m; return &c }

// strictModel remembers when each hit leaves: a whole window after its part ended.
type strictModel struct {
	limit, debt, parts, part int64
	now, end                 int64   // end of the part now
	hits                     []group // at: the end of their part; oldest first
}

// group is a number of hits at one time.
type group struct{ at, n int64 }

func (m *strictModel) retune(p algo.Params) {
	m.limit, m.debt, m.parts = int64(p.Limit), debt(p), int64(p.SubWindows)
	if m.parts == 0 {
		m.parts = algo.DefaultSubWindows
	}
	m.part = p.Window.Microseconds() / m.parts
	if m.part*m.parts < p.Window.Microseconds() {
		m.part++
	}
}

func (m *strictModel) settle(now int64) {
	m.now = now
	if back := m.end - (now + m.part); back > 0 { // the clock stepped back: shift all
		m.end -= back
		for i := range m.hits {
			m.hits[i].at -= back
		}
	}
	for len(m.hits) > 0 && m.hits[0].at+m.parts*m.part <= now {
		m.hits = m.hits[1:]
	}
	if m.end <= now && !m.fresh() {
		m.end += ((now-m.end)/m.part + 1) * m.part
	}
	m.hits = newest(m.hits, m.limit+m.debt)
	m.realign()
}

func (m *strictModel) realign() {
	if m.fresh() {
		m.end = (m.now/m.part + 1) * m.part
	}
}

func (m *strictModel) room() *big.Rat { return rat(m.limit - total(m.hits)) }

func (m *strictModel) charge(n int64) {
	if free := m.limit + m.debt - total(m.hits); free > 0 {
		m.hits = append(m.hits, group{m.end, min(n, free)})
	}
}

func (m *strictModel) refund(n int64) {
	m.hits = oldest(m.hits, total(m.hits)-min(n, total(m.hits)))
	m.realign()
}

func (m *strictModel) fresh() bool { return len(m.hits) == 0 }
func (m *strictModel) clone() model {
	c := *m
	c.hits = append([]group(nil), m.hits...)
	return &c
}

// logModel is the list of all hits in the window.
type logModel struct {
	limit, debt, window int64
	now                 int64
	hits                []group // oldest first
}

func (m *logModel) retune(p algo.Params) {
	m.limit, m.window = int64(p.Limit), p.Window.Microseconds()
	m.debt = min(1, debt(p)) // a log tells full from exceeded, no more
}

func (m *logModel) settle(now int64) {
	m.now = now
	for i := range m.hits {
		m.hits[i].at = min(m.hits[i].at, now)
	}
	m.hits = newest(m.hits, m.limit+m.debt)
	for len(m.hits) > 0 && m.hits[0].at <= now-m.window {
		m.hits = m.hits[1:]
	}
}

func (m *logModel) room() *big.Rat { return rat(m.limit - total(m.hits)) }

// charge keeps as many of the newest hits as matter.
func (m *logModel) charge(n int64) {
	m.hits = newest(append(m.hits, group{m.now, min(n, m.limit+m.debt)}), m.limit+m.debt)
}

func (m *logModel) refund(n int64) {
	m.hits = oldest(m.hits, total(m.hits)-min(n, total(m.hits)))
}

func (m *logModel) fresh() bool { return len(m.hits) == 0 }
func (m *logModel) clone() model {
	c := *m
	c.hits = append([]group(nil), m.hits...)
	return &c
}

// bucketModel is the level of a bucket that hits fill and time drains.
type bucketModel struct {
	rate     *big.Rat // hits drained per µs
	perHit   *big.Rat // µs: 1/rate
	hits     int64    // numerator of the rate
	capacity int64
	debt     int64
	now      int64
	level    *big.Rat // hits; while now is 0 the bucket is new
}

func (m *bucketModel) retune(p algo.Params) {
	hits, per, burst := p.Limit, p.Window, p.Burst
	if p.Refill != (algo.Rate{}) {
		hits, per = p.Refill.Hits, p.Refill.Per
	}
	if burst == 0 {
		burst = p.Limit
		if p.Algorithm == algo.LeakyBucket {
			burst = 1
		}
	}
	rate := big.NewRat(int64(hits), per.Microseconds())
	if m.rate != nil && m.rate.Cmp(rate) != 0 {
		m.convert(rate, int64(hits))
	}
	m.rate, m.perHit, m.hits = rate, new(big.Rat).Inv(rate), int64(hits)
	m.capacity, m.debt = int64(burst), 0
	if debt(p) > 0 {
		m.debt = m.capacity
	}
}

// convert expresses the level in hits of another rate that take the same time
// to drain. What is less than a microsecond keeps its numerator, of which the
// new rate has at most hits − 1.
func (m *bucketModel) convert(rate *big.Rat, hits int64) {
	full := new(big.Rat).Mul(m.level, m.perHit)
	whole := floor(full)
	part := new(big.Rat).Sub(full, rat(whole))
	numerator := floor(part.Mul(part, rat(m.hits)))
	left := big.NewRat(min(numerator, hits-1), hits)
	left.Add(left, rat(whole))
	m.level = left.Mul(left, rate)
}

func (m *bucketModel) settle(now int64) {
	drained := new(big.Rat).Mul(m.rate, rat(now-m.now)) // negative when the clock stepped back
	m.now = now
	m.level = new(big.Rat).Sub(m.level, drained)
	m.clamp()
}

func (m *bucketModel) clamp() {
	if m.level.Sign() < 0 {
		m.level = new(big.Rat)
	}
	if most := rat(m.capacity + m.debt); m.level.Cmp(most) > 0 {
		m.level = most
	}
}

func (m *bucketModel) room() *big.Rat { return new(big.Rat).Sub(rat(m.capacity), m.level) }
func (m *bucketModel) charge(n int64) { m.level = new(big.Rat).Add(m.level, rat(n)); m.clamp() }
func (m *bucketModel) refund(n int64) { m.level = new(big.Rat).Sub(m.level, rat(n)); m.clamp() }
func (m *bucketModel) fresh() bool    { return m.level.Sign() == 0 }
func (m *bucketModel) clone() model   { c := *m; return &c }

// hybridModel is both of its parts.
type hybridModel struct{ bucket, window model }

func (m *hybridModel) retune(p algo.Params) { m.bucket.retune(p); m.window.retune(p) }
func (m *hybridModel) settle(now int64)     { m.bucket.settle(now); m.window.settle(now) }
func (m *hybridModel) charge(n int64)       { m.bucket.charge(n); m.window.charge(n) }
func (m *hybridModel) refund(n int64)       { m.bucket.refund(n); m.window.refund(n) }
func (m *hybridModel) fresh() bool          { return m.bucket.fresh() && m.window.fresh() }
func (m *hybridModel) clone() model         { return &hybridModel{m.bucket.clone(), m.window.clone()} }
func (m *hybridModel) room() *big.Rat {
	a, b := m.bucket.room(), m.window.room()
	if a.Cmp(b) < 0 {
		return a
	}
	return b
}

// debt is how far denied hits may exceed the limit.
func debt(p algo.Params) int64 {
	if p.DeniedHits == algo.Count {
		return int64(p.Limit)
	}
	return 0
}

func rat(n int64) *big.Rat { return new(big.Rat).SetInt64(n) }

// floor rounds towards −∞; the result fits an int64.
func floor(x *big.Rat) int64 { return new(big.Int).Div(x.Num(), x.Denom()).Int64() }

// saturate returns min(x + n, most) without overflow.
func saturate(x *big.Rat, n int64, most *big.Rat) int64 {
	x = new(big.Rat).Add(x, rat(n))
	if x.Cmp(most) > 0 {
		x = most
	}
	return floor(x)
}

func total(gs []group) (n int64) {
	for _, g := range gs {
		n += g.n
	}
	return n
}

// newest returns the last n hits of gs.
func newest(gs []group, n int64) []group {
	out := append([]group(nil), gs...)
	for excess := total(gs) - n; excess > 0; {
		cut := min(excess, out[0].n)
		out[0].n -= cut
		excess -= cut
		if out[0].n == 0 {
			out = out[1:]
		}
	}
	return out
}

// oldest returns the first n hits of gs.
func oldest(gs []group, n int64) []group {
	out := append([]group(nil), gs...)
	for excess := total(gs) - n; excess > 0; {
		last := len(out) - 1
		cut := min(excess, out[last].n)
		out[last].n -= cut
		excess -= cut
		if out[last].n == 0 {
			out = out[:last]
		}
	}
	return out
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
