package chaos

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// usage bounds how much of a counter was in use, given the hits that were possibly charged
// and those that certainly were, whatever its limits were.
//
// A bucket holds the more, the later it was charged and the slower it drained. So the upper
// bound assumes the latest charges and the slowest rate that may have been on record, and
// the lower bound the opposite. A window counts the hits that lie in it.
type usage struct {
	r *record
	k *counter

	charged  []hit   // in order of their ends
	owed     []debt  // at most, by a bucket, after each of charged and each step back
	remember int64   // µs after which the window of any version has forgotten a hit
	lives    int64   // µs that a counter lives at most; for a bucket, until it is full
	revived  []span  // from a step back until a bucket is cut to the most that it can owe
	shifts   []span  // in which a window's counts may have moved into its newest part
	slowest  float64 // rate of any version
	fastest  float64
	most     float64 // that any version is charged

	certain []hit // in order of their ends
}

// debt is how many hits are owed at a time.
type debt struct {
	at    int64
	owed  float64
	since int64 // the counter was charged by a version of that time or later
}

// rounding is how many hits the rounding of times may add up to, over the thousands of
// changes of a counter.
const rounding = 0.01

func (r *record) usageOf(k *counter) *usage {
	u := &usage{r: r, k: k, slowest: math.Inf(1)}
	u.charged = slices.Clone(k.charged)
	byEnd := func(a, b hit) int { return cmp.Compare(a.to, b.to) }
	slices.SortStableFunc(u.charged, byEnd)
	u.certain = slices.Clone(k.certain)
	slices.SortStableFunc(u.certain, byEnd)
	for _, p := range r.limits(k, span{0, math.MaxInt64}) {
		u.remember = max(u.remember, memory(p.Params))
		u.most = max(u.most, mostOwed(p.Params))
		if of := rate(p.Params); of > 0 {
			u.slowest, u.fastest = min(u.slowest, of), max(u.fastest, of)
		}
	}
	u.most = max(u.most, mostOwed(r.widest(k)))
	u.lives = u.remember
	if drains(k.rule.limits[k.name.limit]) {
		u.lives = max(u.lives, int64(u.most/u.slowest))
		u.follow()
	}
	u.findShifts()
	return u
}

// rates returns the slowest and the fastest rate at which a bucket may have drained in the
// span. Each rate on record is that of a charge.
func (u *usage) rates(s span) (slowest, fastest float64) {
	slowest = math.Inf(1)
	for _, p := range u.r.limits(u.k, s) {
		if of := rate(p.Params); of > 0 {
			slowest, fastest = min(slowest, of), max(fastest, of)
		}
	}
	if fastest == 0 {
		return u.slowest, u.fastest
	}
	return slowest, fastest
}

// follow lists how many hits a bucket owes at most.
func (u *usage) follow() {
	var steps []cut
	for _, c := range u.r.cutsOf(u.k) {
		if c.back > 0 {
			steps = append(steps, c)
		}
	}
	slices.SortFunc(steps, func(a, b cut) int { return cmp.Compare(a.to, b.to) })
	now := debt{since: 0}
	step := func() {
		c := steps[0]
		steps = steps[1:]
		if !slices.ContainsFunc(u.charged, func(h hit) bool { return h.from <= c.to }) {
			return
		}
		// The next request finds that the bucket would be full only much later, and cuts its
		// debt to the most that it can owe then.
		until := c.to + c.back.Microseconds()
		for _, h := range u.certain {
			if h.from >= c.to {
				until = min(until, h.to)
			}
		}
		u.revived = append(u.revived, span{c.from, until})
		now = debt{at: until, owed: u.most, since: now.since}
		u.owed = append(u.owed, now)
	}
	next := 0 // of certain
	for i, h := range u.charged {
		for len(steps) > 0 && steps[0].to <= h.to {
			step()
		}
		for ; next < len(u.certain) && u.certain[next].to <= h.from; next++ {
			if u.certain[next].p.Limit > 0 {
				now.since = max(now.since, u.certain[next].from)
			}
		}
		now.owed = u.drained(now, h.to)
		now.at = max(now.at, h.to)
		now.owed = max(now.owed, min(now.owed+float64(h.n), u.clamp(i)))
		u.owed = append(u.owed, now)
	}
	for len(steps) > 0 {
		step()
	}
}

// drained returns how many hits a bucket with that debt owes later, at most.
func (u *usage) drained(l debt, at int64) float64 {
	if l.owed == 0 {
		return 0
	}
	slowest, _ := u.rates(span{l.since, at})
	return max(0, l.owed-slowest*float64(max(0, at-l.at)))
}

// clamp returns the most hits to which the i-th of charged may have charged a bucket: by its
// own limit, or by that of another at the same time, in either order.
func (u *usage) clamp(i int) float64 {
	h := u.charged[i]
	most := mostOwed(h.p.Params)
	for j := i + 1; j < len(u.charged) && j < i+200; j++ {
		if o := u.charged[j]; o.from <= h.to {
			most = max(most, mostOwed(o.p.Params))
		}
	}
	for j := i - 1; j >= 0 && u.charged[j].to >= h.from; j-- {
		most = max(most, mostOwed(u.charged[j].p.Params))
	}
	return most
}

// mostOwed returns how many hits a bucket owed at most when h was decided, without the
// charge of h.
func (u *usage) mostOwed(h hit) float64 {
	for _, s := range u.revived {
		if s.touches(h.span) {
			return u.most
		}
	}
	owed := 0.0
	if n := sort.Search(len(u.owed), func(i int) bool { return u.owed[i].at > h.from }); n > 0 {
		last := u.owed[n-1]
		last.owed += rounding
		moved := u.r.drift(span{h.from - u.lives, h.to})
		owed = u.drained(last, max(last.at, h.from-slack.Microseconds()-moved))
	}
	for i := sort.Search(len(u.charged), func(i int) bool { return u.charged[i].to > h.from }); i < len(u.charged); i++ {
		if o := u.charged[i]; o.call != h.call && o.from <= h.to {
			owed += min(float64(o.n), mostOwed(o.p.Params))
		}
	}
	for _, o := range u.k.brief {
		if o.call != h.call && o.touches(h.span) {
			owed += float64(o.n)
		}
	}
	return owed
}

// findShifts lists the times in which the state of a window was read in another layout,
// which counts all of its hits as new.
func (u *usage) findShifts() {
	if !slides(u.k.rule.limits[u.k.name.limit]) {
		return
	}
	d := u.r.plan.domains[u.k.name.domain]
	layout := int64(-1)
	for _, ch := range u.r.rules[u.k.name.domain].changes {
		other := false
		for n := ch.first - 1; n <= ch.last; n++ {
			if p := d.limitAt(n, u.k.name.rule, u.k.name.limit); p != nil {
				other = other || layout >= 0 && layout != parts(p.Params)
				layout = parts(p.Params)
			}
		}
		if !other {
			continue
		}
		s := u.r.untilReturned(u.k, ch.span)
		ended := int64(math.MaxInt64)
		for _, h := range u.certain {
			if h.from > s.to {
				ended = min(ended, h.to)
			}
		}
		u.shifts = append(u.shifts, span{s.from, ended})
	}
}

// counts returns how many hits a window may have counted when h was decided, without
// those of h's call.
func (u *usage) counts(h hit) (n int64) {
	since := h.from - memory(h.p.Params) - slack.Microseconds()
	since -= u.r.drift(span{since, h.to})
	exact := u.r.plan.topology != clocked && len(u.r.moves) == 0
	for i := len(u.shifts) - 1; i >= 0; i-- {
		if s := u.shifts[i]; s.from <= h.to && s.to >= since {
			since, exact = min(since, s.from-u.remember), false
		}
	}
	for i := len(u.r.cuts) - 1; i >= 0; i-- {
		// Charges from before a step back may stay until the clock has caught up. A key that
		// was last used when it was about to be forgotten still holds everything that it
		// remembered then.
		if c := u.r.cuts[i]; c.back > 0 && c.from <= h.to && c.to+c.back.Microseconds()+2*u.lives >= since {
			since = min(since, c.from-2*u.lives)
		}
	}
	for _, o := range u.k.brief {
		if o.call != h.call && o.touches(h.span) {
			n += o.n
		}
	}
	if p := h.p; exact && !p.Strict && (p.Algorithm == algo.FixedWindow || slides(p.Params)) {
		return n + u.countAligned(h)
	}
	for i := sort.Search(len(u.charged), func(i int) bool { return u.charged[i].to >= since }); i < len(u.charged); i++ {
		if o := u.charged[i]; o.call != h.call && o.from <= h.to {
			n += min(o.n, mostCounted(o.p.Params))
		}
	}
	return n
}

// countAligned is counts for windows that begin at multiples of their length.
func (u *usage) countAligned(h hit) (most int64) {
	window, off := h.p.Window.Microseconds(), slack.Microseconds()
	for k := (h.from - off) / window; k <= (h.to+off)/window; k++ {
		begin := k * window
		in := func(o hit, begin int64) bool { return o.touches(span{begin - off, begin + window - 1 + off}) }
		var now, before int64
		for i := sort.Search(len(u.charged), func(i int) bool { return u.charged[i].to >= begin-window-off }); i < len(u.charged); i++ {
			o := u.charged[i]
			switch n := min(o.n, mostCounted(o.p.Params)); {
			case o.call == h.call || o.from > h.to:
			case in(o, begin):
				now += n
			case slides(h.p.Params) && in(o, begin-window):
				before += n
			}
		}
		left := min(window, begin+window-h.from+off)
		most = max(most, now+int64(float64(before)*float64(left)/float64(window)))
	}
	return most
}

// leastOwed returns how many hits a bucket owed at least when h was decided, without the
// charge of h.
func (u *usage) leastOwed(h hit, since int64) (owed float64) {
	at := int64(0)
	first := sort.Search(len(u.certain), func(i int) bool { return u.certain[i].to > h.from-2*u.lives })
	for _, o := range u.certain[first:] {
		if o.to > h.from {
			break
		}
		if o.from <= since || o.call == h.call {
			continue
		}
		_, fastest := u.rates(span{since, o.to})
		owed = max(0, owed-fastest*float64(max(0, o.to-max(at, 0))))
		at = o.to
		drained := fastest * float64(o.to-o.from) // if it was charged as soon as it was sent
		owed = max(owed, min(owed+max(0, float64(o.n)-drained), mostOwed(o.p.Params)-drained))
	}
	_, fastest := u.rates(span{since, h.to})
	return max(0, owed-fastest*float64(h.to-at+slack.Microseconds())-rounding)
}

// leastCounted is leastOwed for a window.
func (u *usage) leastCounted(h hit, since int64) (n int64) {
	window, off := h.p.Window.Microseconds(), slack.Microseconds()
	aligned := !h.p.Strict && (h.p.Algorithm == algo.FixedWindow || slides(h.p.Params))
	from := h.to - window + off
	if aligned {
		if u.r.plan.topology == clocked || (h.from-off)/window != (h.to+off)/window {
			return 0
		}
		from = h.from/window*window + off
	}
	for _, s := range u.shifts { // hits that had faded below one then are forgotten
		if s.from <= h.to {
			since = max(since, min(s.to, h.to))
		}
	}
	for i := sort.Search(len(u.certain), func(i int) bool { return u.certain[i].to > from }); i < len(u.certain); i++ {
		o := u.certain[i]
		if o.to > h.from {
			break
		}
		// Except in a fixed window, a charge beyond the limit ends at a bound.
		if o.from > max(from, since) && o.call != h.call && (o.fits || h.p.Algorithm == algo.FixedWindow) {
			n += o.n
		}
	}
	return n
}

// judgeCounter checks the reports about a counter. A refusal needs a reason: the hits that
// may have been charged and are not forgotten left too little room. No request passes for
// which there is no room. Exactly as much remains as must. A client that was given a time to
// retry passes then, and not before.
func (r *record) judgeCounter(v *verdict, k *counter) {
	u := r.usageOf(k)
	slices.SortStableFunc(k.said, func(a, b report) int { return cmp.Compare(a.from, b.from) })
	for _, s := range k.said {
		if !r.judgeRefusal(v, u, s) || !r.judgeRoom(v, u, s) {
			return // one finding for a counter is enough
		}
	}
	r.judgeWaits(v, u)
}

// judgeRefusal checks that a refusal has a reason.
func (r *record) judgeRefusal(v *verdict, u *usage, s report) bool {
	k, room := u.k, capacity(s.p.Params)
	if s.ok || s.n <= 0 && !s.settles || s.n > room || r.staleAnswer(s.call) {
		return true
	}
	if m := k.rule.mode; (m == "deny" || m == "local") && r.troubled(s.call) {
		return true // refused without the store
	}
	longest := u.lives
	others, known := r.unspent(k, span{s.from - longest - slack.Microseconds(), s.to})
	if !known {
		return true
	}
	p := s.p.Params
	if k.rule.holds {
		_, held := r.heldBy(k, s, true)
		others += s.n + held
		if s.settles {
			others += s.owned
		}
	} else {
		for _, a := range s.call.asks { // which may all count in the same counter
			others += max(0, a.hits)
		}
	}
	owed, counted := 0.0, int64(0)
	if drains(p) {
		owed = u.mostOwed(s.hit) + float64(others)
	}
	if windowed(p) {
		counted = u.counts(s.hit) + others
	}
	burst := float64(p.Burst)
	if p.Limit == 0 {
		burst = 0
	}
	if owed > burst && drains(p) || counted > int64(p.Limit) && windowed(p) {
		return true
	}
	v.add(r.around(k, span{s.from - max(longest, p.Window.Microseconds()), s.to}),
		"%+v: %s refused, though at most %.2f hits were owed and %d counted, with its own, of the %d that %+v may", k.name, s.call, owed, counted, room, s.p)
	return false
}

// judgeRoom checks how many hits remained after an answer of the store.
func (r *record) judgeRoom(v *verdict, u *usage, s report) bool {
	k, p := u.k, s.p.Params
	if !s.decided {
		return true
	}
	var asked int64
	for _, a := range s.call.asks {
		asked += max(0, a.hits)
	}
	leastHeld, mostHeld := r.holding(k, s)
	if k.rule.holds {
		asked = s.owned + mostHeld
	} else {
		asked += s.owned - max(0, s.n) // this descriptor counts with its charge
	}
	least := float64(capacity(p))
	if drains(p) {
		least = min(least, math.Floor(float64(p.Burst)-u.mostOwed(s.hit)-float64(asked)))
	}
	if windowed(p) {
		least = min(least, float64(int64(p.Limit)-u.counts(s.hit)-asked))
	}
	around := func() []*call { return r.around(k, span{s.from - max(u.remember, p.Window.Microseconds()), s.to}) }
	if float64(s.remaining) < least {
		v.add(around(), "%+v: %s must leave %g of %+v", k.name, s.call, least, s.p)
		return false
	}
	if _, whole := segment(r.cutsOf(k), s.span); !whole || len(k.refunds) > 0 || len(r.moves) > 0 || len(u.k.brief) > 0 {
		return true
	}
	var since int64
	for _, c := range r.cutsOf(k) {
		if c.to <= s.from {
			since = max(since, c.to)
		}
	}
	greatest := float64(capacity(p))
	if drains(p) {
		greatest = min(greatest, math.Floor(float64(p.Burst)-u.leastOwed(s.hit, since)-float64(s.own+leastHeld)+rounding))
	}
	if windowed(p) {
		greatest = min(greatest, float64(int64(p.Limit)-u.leastCounted(s.hit, since)-s.own-leastHeld))
	}
	switch {
	case (s.fits && s.n > 0 || s.settles && s.ok) && greatest < 0:
		v.add(around(), "%+v: %s admitted, though %g more was used than %+v may", k.name, s.call, -greatest, s.p)
		return false
	case float64(s.remaining) > max(0, greatest):
		v.add(around(), "%+v: %s can't leave more than %g of %+v", k.name, s.call, max(0, greatest), s.p)
		return false
	}
	return true
}

// judgeWaits checks that a refusal named the time when the same request would pass.
func (r *record) judgeWaits(v *verdict, u *usage) {
	k := u.k
	if k.rule.holds { // others may give back at any time
		judgeHoldWait(v, k)
		return
	}
	if len(k.refunds) > 0 || k.rule.lease > 0 || len(u.k.brief) > 0 {
		return
	}
	for i, s := range k.said {
		if s.ok || !s.decided || s.n <= 0 || s.n > capacity(s.p.Params) {
			continue
		}
		wait := s.wait * 1_000_000
		for _, o := range k.said[i+1:] {
			if o.from > s.to+wait+1_000_000 {
				break
			}
			if _, whole := segment(r.cutsOf(k), span{s.from, o.to}); !whole || !o.decided || !slices.Equal(o.of, s.of) || len(r.limits(k, span{s.from, o.to})) > 1 {
				break
			}
			switch {
			case o.from < s.to: // either may have been decided first
			case o.fits && o.n >= s.n && o.to < s.from+wait-1_000_000-slack.Microseconds():
				v.add([]*call{s.call, o.call}, "%+v: passes before the time that a refusal named", k.name)
				return
			case len(s.of) == 1 && !o.ok && 0 < o.n && o.n <= s.n && o.from > s.to+wait+slack.Microseconds() && !u.chargedBetween(s, o):
				v.add([]*call{s.call, o.call}, "%+v: refused after the time that a refusal named", k.name)
				return
			}
		}
	}
}

// chargedBetween reports whether any other hit may have been charged between the decisions
// on s and o.
func (u *usage) chargedBetween(s, o report) bool {
	for _, a := range [...]*call{s.call, o.call} {
		if len(a.asks) > 1 { // which may all count in the same counter
			return true
		}
	}
	for i := sort.Search(len(u.charged), func(i int) bool { return u.charged[i].to >= s.from }); i < len(u.charged); i++ {
		if h := u.charged[i]; h.from <= o.to && h.call != s.call && h.call != o.call {
			return true
		}
	}
	return false
}
