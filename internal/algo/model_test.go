package algo_test

import (
	"math"
	"math/big"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// model is the slow form of an algorithm: in exact rationals, without closed forms.
// It only computes how many hits fit now. When a call would pass, and when the
// counter is whole again, is found by trying later times.
type model interface {
	// retuned returns the model with another rule in force, settled to the same
	// time. The rule's algorithm is the same, and the window of an algorithm with
	// windows.
	retuned(p algo.Params) model
	// settle moves the clock to now, forward or back.
	settle(now int64)
	// room returns how many hits fit, fractions included; negative is debt.
	room() *big.Rat
	charge(n int64)
	refund(n int64)
	// fresh reports whether the counter equals an unused one.
	fresh() bool
	clone() model
}

// reference decides calls on one counter with a model.
type reference struct {
	p      algo.Params
	denied algo.DeniedHits
	m      model // nil: never used
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

func newModel(p algo.Params) model {
	var m model
	switch p.Algorithm {
	case algo.FixedWindow:
		m = &fixedModel{}
		if !p.Calendar.IsZero() {
			m = &calendarModel{calendar: p.Calendar}
		}
	case algo.SlidingLog:
		m = &logModel{}
	case algo.SlidingWindow:
		m = newWindowModel(p)
	case algo.Hybrid:
		window := p
		window.Algorithm = algo.SlidingWindow
		m = &hybridModel{&bucketModel{level: new(big.Rat)}, newModel(window)}
	default:
		m = &bucketModel{level: new(big.Rat)}
	}
	return m.retuned(p)
}

// newWindowModel returns the model of a sliding window.
func newWindowModel(p algo.Params) model {
	if p.Strict {
		return &strictModel{}
	}
	return &slidingModel{}
}

// step decides one call as the package comment of algo describes. The guess only
// sets where the search for the times of the answer starts.
func (r *reference) step(now, hits int64, guess algo.Decision) algo.Decision {
	var m model
	if r.m == nil {
		m = newModel(r.p)
		m.settle(now)
	} else {
		m = r.m.clone()
		m.settle(now) // used hits drain by the rule under which they were charged
		m = m.retuned(r.p)
	}
	if hits != 0 { // a look leaves all as it was
		r.m = m
	}
	fits := func(n int64) func(model) bool {
		return func(m model) bool { return rat(n).Cmp(m.room()) <= 0 }
	}
	wanted := hits
	if hits == 0 && (r.denied != algo.Count || r.p.Limit == 0) {
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
	case *calendarModel:
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

// earliest returns the shortest wait after which ok holds if no other call
// comes; Never if ok does not hold within the horizon. Once true, ok stays true.
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

func (m *fixedModel) retuned(p algo.Params) model {
	m.limit, m.window = int64(p.Limit), p.Window.Microseconds()
	m.realign()
	return m
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

// realign: windows are aligned to the epoch, except one that a step of the
// clock has shifted.
func (m *fixedModel) realign() {
	if m.count == 0 && m.window > 0 {
		m.end = (m.now/m.window + 1) * m.window
	}
}

// slidingModel weights the hits of the last window by the share of it that is in
// view, and counts them in whole hits.
type slidingModel struct {
	limit, window, debt int64
	now, end            int64
	current, previous   int64
}

func (m *slidingModel) retuned(p algo.Params) model {
	if p.Strict {
		// The latest that a hit can have come: just before the window's end, or now.
		return adopting(&strictModel{}, p, m.now, []group{{m.end - m.window - 1, m.previous}, {m.now, m.current}})
	}
	m.limit, m.window, m.debt = int64(p.Limit), p.Window.Microseconds(), debt(p)
	m.realign()
	return m
}

// adopting returns the model of a sliding window of the rule. Hits came at these
// times, or earlier, within the resolution of the window that was then in force.
func adopting(m model, p algo.Params, now int64, hits []group) model {
	m = m.retuned(p)
	m.settle(now)
	const most = 2 * math.MaxUint32 // no limit allows more
	for _, g := range hits {
		switch m := m.(type) {
		case *slidingModel:
			switch {
			case g.at >= m.end-m.window:
				m.current = min(m.current+g.n, most)
			case g.at >= m.end-2*m.window:
				m.previous = min(m.previous+g.n, most)
			}
		case *strictModel:
			end := (g.at/m.part + 1) * m.part
			if last := len(m.hits) - 1; last >= 0 && m.hits[last].at == end {
				m.hits[last].n = min(m.hits[last].n+g.n, most)
			} else if g.n > 0 && end+m.parts*m.part > now {
				m.hits = append(m.hits, group{end, g.n})
			}
		}
	}
	if m, ok := m.(*slidingModel); ok {
		m.realign()
	}
	return m
}

func (m *slidingModel) settle(now int64) {
	m.now = now
	m.end = min(m.end, now+m.window)
	if now >= m.end+m.window {
		m.current, m.previous = 0, 0
	} else if now >= m.end {
		m.current, m.previous, m.end = 0, m.current, m.end+m.window
	}
	m.realign()
}

// realign drops hits that have faded below one. When none are left it also drops
// the windows' phase.
func (m *slidingModel) realign() {
	if m.window == 0 {
		return // not a rule's yet
	}
	if m.fading() == 0 {
		m.previous = 0
	}
	if m.fresh() {
		m.end = (m.now/m.window + 1) * m.window
	}
}

// fading returns how many hits of the last window still count.
func (m *slidingModel) fading() int64 {
	inView := big.NewRat(m.end-m.now, m.window)
	return floor(inView.Mul(inView, rat(m.previous)))
}

func (m *slidingModel) room() *big.Rat { return rat(m.limit - m.current - m.fading()) }

// charge raises the estimate to at most the limit, or with debt twice that.
func (m *slidingModel) charge(n int64) {
	m.current += max(0, min(n, floor(m.room())+m.debt))
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

func (m *strictModel) retuned(p algo.Params) model {
	if !p.Strict {
		return adopting(&slidingModel{}, p, m.now, m.latest())
	}
	parts := int64(p.SubWindows)
	if parts == 0 {
		parts = algo.DefaultSubWindows
	}
	if m.parts != 0 && m.parts != parts {
		return adopting(&strictModel{}, p, m.now, m.latest())
	}
	m.limit, m.debt, m.parts = int64(p.Limit), debt(p), parts
	m.part = p.Window.Microseconds() / m.parts
	if m.part*m.parts < p.Window.Microseconds() {
		m.part++
	}
	m.realign()
	return m
}

// latest returns the latest time at which the hits can have come.
func (m *strictModel) latest() (hits []group) {
	for _, g := range m.hits {
		hits = append(hits, group{min(g.at-1, m.now), g.n})
	}
	return hits
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
	m.realign()
}

func (m *strictModel) realign() {
	if m.fresh() && m.part > 0 {
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

func (m *logModel) retuned(p algo.Params) model {
	m.limit, m.window = int64(p.Limit), p.Window.Microseconds()
	m.debt = min(1, debt(p)) // a log distinguishes full from exceeded, no more
	return m
}

func (m *logModel) settle(now int64) {
	m.now = now
	for i := range m.hits {
		m.hits[i].at = min(m.hits[i].at, now)
	}
	for len(m.hits) > 0 && m.hits[0].at <= now-m.window {
		m.hits = m.hits[1:]
	}
}

func (m *logModel) room() *big.Rat { return rat(m.limit - total(m.hits)) }

// charge keeps the newest hits that matter, and no fewer than before.
func (m *logModel) charge(n int64) {
	if m.limit == 0 {
		return
	}
	most := max(m.limit+m.debt, total(m.hits))
	m.hits = newest(append(m.hits, group{m.now, min(n, m.limit+m.debt)}), most)
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
	hits, per int64 // the rate at which the level drains; hits are 0 while there is none
	capacity  int64
	most      int64 // the level to which a charge fills it at most
	reached   int64 // the highest level that was possible, earlier capacities included
	now       int64
	level     *big.Rat // hits
}

func (m *bucketModel) retuned(p algo.Params) model {
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
	if p.Limit == 0 { // its content drains as before
		m.capacity, m.most = 0, 0
		if m.fresh() {
			m.hits = 0
		}
		return m
	}
	before := m.per
	m.hits, m.per = int64(hits), per.Microseconds()
	if m.fresh() || m.per != before { // in units of 1/hits µs, rounded up
		units := new(big.Rat).Mul(m.level, rat(m.per))
		m.level = new(big.Rat).Quo(ceilingRat(units), rat(m.per))
	}
	m.clampTime()
	m.capacity, m.most = int64(burst), int64(burst)
	if debt(p) > 0 {
		m.most = 2 * m.capacity
	}
	m.reached = max(m.most, ceiling(m.level))
	return m
}

// furthestAhead is the longest time to drain that a bucket can hold, in µs.
const furthestAhead = 2 * int64(algo.MaxFill/time.Microsecond)

func (m *bucketModel) clampTime() {
	if most := big.NewRat(m.hits, m.per); m.level.Cmp(most.Mul(most, rat(furthestAhead))) > 0 {
		m.level = most
	}
}

func (m *bucketModel) settle(now int64) {
	back := rat(m.now - now) // positive when the clock stepped back: the level rises
	m.now = now
	if m.hits == 0 {
		return
	}
	m.level = new(big.Rat).Add(m.level, back.Mul(back, big.NewRat(m.hits, m.per)))
	m.clamp(m.reached)
	m.clampTime()
}

func (m *bucketModel) clamp(most int64) {
	if m.level.Sign() < 0 {
		m.level = new(big.Rat)
	}
	if most := rat(most); m.level.Cmp(most) > 0 {
		m.level = most
	}
}

func (m *bucketModel) charge(n int64) {
	if m.level.Cmp(rat(m.most)) < 0 {
		m.level = new(big.Rat).Add(m.level, rat(n))
		m.clamp(m.most)
	}
}

func (m *bucketModel) room() *big.Rat { return new(big.Rat).Sub(rat(m.capacity), m.level) }
func (m *bucketModel) refund(n int64) {
	m.level = new(big.Rat).Sub(m.level, rat(n))
	m.clamp(math.MaxInt64)
	if m.capacity > 0 {
		m.reached = max(m.most, ceiling(m.level))
	}
}
func (m *bucketModel) fresh() bool  { return m.level.Sign() == 0 }
func (m *bucketModel) clone() model { c := *m; return &c }

// hybridModel is both of its parts.
type hybridModel struct{ bucket, window model }

func (m *hybridModel) retuned(p algo.Params) model {
	window := p
	window.Algorithm = algo.SlidingWindow
	return &hybridModel{m.bucket.retuned(p), m.window.retuned(window)}
}
func (m *hybridModel) settle(now int64) { m.bucket.settle(now); m.window.settle(now) }
func (m *hybridModel) charge(n int64)   { m.bucket.charge(n); m.window.charge(n) }
func (m *hybridModel) refund(n int64)   { m.bucket.refund(n); m.window.refund(n) }
func (m *hybridModel) fresh() bool      { return m.bucket.fresh() && m.window.fresh() }
func (m *hybridModel) clone() model     { return &hybridModel{m.bucket.clone(), m.window.clone()} }
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

// ceiling rounds towards +∞; the result fits an int64.
func ceiling(x *big.Rat) int64 { return floor(ceilingRat(x)) }

func ceilingRat(x *big.Rat) *big.Rat {
	up := new(big.Int).Add(x.Num(), new(big.Int).Sub(x.Denom(), big.NewInt(1)))
	return new(big.Rat).SetInt(up.Div(up, x.Denom()))
}

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
