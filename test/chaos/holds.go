package chaos

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// grant is a call that may have been granted a hold. Sure ones were, by the store.
type grant struct {
	hit
	id   string
	sure bool
}

// ending is a call that may have ended what its request held. Sure ones were decided by
// the store.
type ending struct {
	span
	sure bool
}

// takes returns how many hits a call would hold that asks for these hits.
func takes(p algo.Params, hits int64) int64 {
	if p.Algorithm.AlwaysHolds() {
		return min(hits, 1)
	}
	return hits
}

// costs returns how many hits a settlement charges at most and at least: nobody is charged
// more than a counter can owe.
func costs(p algo.Params, hits int64) (least, most int64) {
	if hits = max(hits, 0); p.Algorithm.AlwaysHolds() {
		return 0, 0
	}
	least, most = hits, 0
	if drains(p) {
		least, most = min(least, int64(mostOwed(p))), min(hits, int64(mostOwed(p)))
	}
	if windowed(p) {
		least, most = min(least, mostCounted(p)), max(most, min(hits, mostCounted(p)))
	}
	return least, most
}

// countHeld adds the answer to a descriptor of a request that holds, or of its settlement,
// to its counter. It took effect if the store decided it.
func (r *record) countHeld(v *verdict, k *counter, said report, a ask, decided, undone bool) {
	c, h := said.call, said.hit
	stale, troubled := r.staleAnswer(c), r.troubled(c)
	sure := decided && !stale && !troubled
	if a.settles {
		k.ends(a.id, ending{r.reach(h), sure})
		said.settles, said.n = true, 0
		least, most := costs(h.p.Params, a.hits)
		said.own, said.owned = least, most
		if h.n = most; most > 0 {
			k.perhaps(r, h)
		}
		if h.n = least; sure && least > 0 {
			k.certain = append(k.certain, h)
		}
	} else if a.hits > 0 {
		h.n = takes(h.p.Params, a.hits)
		said.n = h.n
		granted := sure && said.ok && !undone
		if granted {
			v.granted++
		}
		if granted || troubled || stale {
			g := grant{h, a.id, granted}
			g.span = r.reach(h)
			k.grants = append(k.grants, g)
		}
	}
	said.id, said.undone = a.id, undone
	k.said = append(k.said, said)
}

// perhapsHeld adds a call without an answer to a counter under a rule that holds.
func (r *record) perhapsHeld(k *counter, h hit, a ask) {
	if a.settles {
		k.ends(a.id, ending{r.reach(h), false})
		if _, h.n = costs(h.p.Params, a.hits); h.n > 0 {
			k.perhaps(r, h)
		}
		return
	}
	if h.n = takes(h.p.Params, a.hits); h.n > 0 {
		g := grant{h, a.id, false}
		g.span = r.reach(h)
		k.grants = append(k.grants, g)
	}
}

// ends notes a call that may have ended what a request held.
func (k *counter) ends(id string, e ending) {
	if k.endings == nil {
		k.endings = map[string][]ending{}
	}
	k.endings[id] = append(k.endings[id], e)
}

// soonest returns when a request that was granted a hold in the span may lose it without
// settling: a version with a shorter time cuts it.
func (r *record) soonest(k *counter, g grant, at int64) int64 {
	least := expires(g.p.Params)
	for _, p := range r.limits(k, span{g.from, at}) {
		least = min(least, expires(p.Params))
	}
	return g.from + least.Microseconds() - slack.Microseconds()
}

// latest returns until when the request may have held. A clock that steps back revives what
// had expired, until the next call cuts it.
func (r *record) latest(k *counter, g grant) int64 {
	longest := expires(g.p.Params)
	if !g.sure {
		longest = r.longest(k)
	}
	until := g.to + longest.Microseconds() + slack.Microseconds()
	for _, c := range r.cutsOf(k) {
		if c.back == 0 || c.to < g.from {
			continue
		}
		found := int64(math.MaxInt64 / 2)
		for _, s := range k.said {
			if s.decided && s.ok && s.n > 0 && s.from >= c.to {
				found = min(found, s.to)
			}
		}
		until = max(until, found+r.longest(k).Microseconds()+slack.Microseconds())
	}
	return until
}

// longest returns the longest time in any version after which a hold expires.
func (r *record) longest(k *counter) (most time.Duration) {
	for _, p := range r.limits(k, span{0, math.MaxInt64}) {
		most = max(most, expires(p.Params))
	}
	return most
}

// mayHaveEnded reports whether the request may have settled after it was granted its hold
// and before that moment.
func (k *counter) mayHaveEnded(g grant, at int64) bool {
	return slices.ContainsFunc(k.endings[g.id], func(e ending) bool { return e.to >= g.from && e.from <= at })
}

// hasEnded reports whether the request certainly has settled, after any moment at which it
// may have been granted its hold and before h. What the next master had not heard of is
// not certain.
func (r *record) hasEnded(k *counter, g grant, h hit) bool {
	return slices.ContainsFunc(k.endings[g.id], func(e ending) bool {
		return e.sure && e.from >= g.to && e.to <= h.from &&
			!slices.ContainsFunc(r.cutsOf(k), func(c cut) bool {
				return (span{c.from - late.Microseconds(), c.to}).touches(e.span) && c.from <= h.to
			})
	})
}

// heldBy returns how many hits other requests than that of s held when it was decided, or
// how many its own did.
func (r *record) heldBy(k *counter, s report, others bool) (least, most int64) {
	type both struct{ least, most int64 }
	each := map[string]both{}
	for _, g := range k.grants {
		if g.call == s.call || g.from > s.to || (g.id == s.id) == others {
			continue
		}
		n := each[g.id]
		if g.to > s.from || !r.hasEnded(k, g, s.hit) && r.latest(k, g) >= s.from {
			n.most = max(n.most, g.n)
		}
		if _, whole := segment(r.cutsOf(k), span{g.from, s.to}); whole && g.sure && g.to <= s.from && !k.mayHaveEnded(g, s.to) && r.soonest(k, g, s.to) > s.to {
			n.least = k.leastOf(g, s.to)
		}
		each[g.id] = n
	}
	for _, n := range each {
		least, most = least+n.least, most+n.most
	}
	return least, most
}

// leastOf returns the fewest hits that a request which asks several times may hold.
func (k *counter) leastOf(g grant, at int64) int64 {
	least := g.n
	for _, o := range k.grants {
		if o.id == g.id && o.from <= at {
			least = min(least, o.n)
		}
	}
	return least
}

// holding returns how many hits were held after s, by its own request and by others.
func (r *record) holding(k *counter, s report) (least, most int64) {
	if !k.rule.holds {
		return 0, 0
	}
	least, most = r.heldBy(k, s, true)
	switch {
	case s.settles:
	case s.ok && s.n > 0 && !s.undone:
		least, most = least+s.n, most+s.n
	default:
		l, m := r.heldBy(k, s, false)
		least, most = least+l, most+m
	}
	return least, most
}

// judgeHeld checks that requests never held more at once than the limit. The last of them
// was granted its hold beside all others, within its own limit.
func (r *record) judgeHeld(v *verdict, k *counter) {
	type life struct {
		grant
		end int64
	}
	var lives []life
	for _, g := range k.grants {
		if !g.sure {
			continue
		}
		l := life{grant: g, end: math.MaxInt64}
		for _, e := range k.endings[g.id] {
			if e.to >= g.from {
				l.end = min(l.end, e.from)
			}
		}
		for _, c := range r.cutsOf(k) {
			if c.to >= g.from {
				l.end = min(l.end, c.from)
			}
		}
		for _, p := range r.limits(k, span{g.from, min(l.end, g.from+expires(g.p.Params).Microseconds())}) {
			l.end = min(l.end, g.from+expires(p.Params).Microseconds()-slack.Microseconds())
		}
		lives = append(lives, l)
	}
	slices.SortFunc(lives, func(a, b life) int { return cmp.Compare(a.to, b.to) })
	for i, l := range lives {
		if l.end <= l.to {
			continue
		}
		limit, held := int64(0), map[string]int64{}
		calls := []*call{}
		for _, o := range lives[:i+1] {
			if o.end > l.to {
				limit = max(limit, capacity(o.p.Params))
				held[o.id] = k.leastOf(o.grant, l.to)
				calls = append(calls, o.call)
			}
		}
		sum := int64(0)
		for _, n := range held {
			sum += n
		}
		v.inFlight = max(v.inFlight, len(held))
		if sum > limit {
			v.add(calls, "%+v: %d requests hold %d hits at %s, more than the %d of any of their limits", k.name, len(held), sum, clockTime(l.to), limit)
			return
		}
	}
}

// judgeHoldWait checks that a request that is refused for others in flight comes back in a
// second, and not when they expire.
func judgeHoldWait(v *verdict, k *counter) {
	for _, s := range k.said {
		if s.decided && !s.ok && !s.settles && s.n > 0 && s.p.Algorithm.AlwaysHolds() && s.p.Limit > 0 && s.wait != 1 {
			v.add([]*call{s.call}, "%+v: a request that others in flight refuse must come back in 1 s", k.name)
			return
		}
	}
}
