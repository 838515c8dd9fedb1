package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// What a run is held to, besides the limits.
const (
	// recovery is how long after the end of a fault of the store requests may still
	// be answered without it. At a REDIS_TIMEOUT of 2 s a connection that is dead is
	// given up after 4 s, calls are suspended for up to 1.25 s, and a call that was
	// made just before takes 2 s.
	recovery = 8 * time.Second
	// reconnect is how long after a replica serves again its clients may fail to
	// reach it.
	reconnect = 2 * time.Second
	// stall is for how long a process that wants to run may have to wait on a machine
	// that is not too busy to tell anything by what takes long.
	stall = 200 * time.Millisecond
	// late is how long after a fault what was sent before may still arrive.
	late = 2 * time.Second
	// slack is by how much clocks may be corrected in a window.
	slack = 2 * time.Millisecond
	// returning is for how long after a replica was killed hits of its leases may still
	// be given back. Then that is void.
	returning = time.Second
	// leaving is for how long after all replicas have another limit some may hold a lease
	// of the old one: its life, and until it is then found, twice 100 ms, and sent.
	leaving = 200*time.Millisecond + stall
)

// finding is something that must not have happened.
type finding struct {
	what  string
	calls []*call // that show it
}

func (f finding) String() string {
	var b strings.Builder
	b.WriteString(f.what)
	for _, c := range f.calls {
		b.WriteString("\n    " + c.String())
	}
	return b.String()
}

// verdict is what the oracle found, and how much there was to find it in.
type verdict struct {
	findings []finding
	counters int
	admitted int64         // hits, by the store
	refused  int           // descriptors
	errors   int           // calls
	without  int           // calls that were visibly answered without the store
	leased   int           // calls that were decided from leases, as the replicas say
	ahead    int64         // the most hits by which leases let a limit be exceeded in some span
	fullest  float64       // the most of what a limit may admit in some span that it did
	stalls   int           // of the machine
	recovery time.Duration // the longest from the end of a fault to the last answer without the store
	slowest  *call         // that answer
}

func (v *verdict) add(calls []*call, format string, args ...any) {
	v.findings = append(v.findings, finding{fmt.Sprintf(format, args...), calls})
}

// judge checks a record.
func (r *record) judge() *verdict {
	v := &verdict{}
	r.settleChanges()
	for _, f := range r.faults {
		if f.kind == machineStall {
			v.stalls++
		}
	}
	counters := map[counterName]*counter{}
	for i := range r.calls {
		c := &r.calls[i]
		switch {
		case c.code != codes.OK:
			r.judgeError(v, c)
		case len(c.answers) != len(c.asks):
			v.add([]*call{c}, "%d answers to %d descriptors", len(c.answers), len(c.asks))
			continue
		case !r.judgeVersions(v, c):
			continue
		}
		r.count(v, counters, c)
	}
	r.judgeOrder(v)
	v.counters = len(counters)
	for _, name := range sortedNames(counters) {
		r.judgeMost(v, counters[name])
		r.judgeLeast(v, counters[name])
	}
	return v
}

// settleChanges has a change of rules end when the last request has that may have
// seen what was before.
func (r *record) settleChanges() {
	for d := range r.rules {
		for i := range r.rules[d].changes {
			ch := &r.rules[d].changes[i]
			confirmed := ch.to
			for j := range r.calls {
				if c := &r.calls[j]; c.domain == d && c.sent <= confirmed {
					ch.to = max(ch.to, c.got)
				}
			}
		}
	}
}

// troubled says whether the store may not have decided a call: a fault of it was
// not over for long enough.
func (r *record) troubled(c *call) bool {
	for _, f := range r.faults {
		if (span{f.from, f.to + recovery.Microseconds()}).touches(span{c.sent, c.got}) {
			return true
		}
	}
	return false
}

// judgeError checks that there was a reason for an error.
func (r *record) judgeError(v *verdict, c *call) {
	v.errors++
	if c.code == codes.Unavailable && !strings.Contains(c.text, "different slots") { // for which there is no reason
		for _, o := range r.outages {
			if o.replica == c.replica && (span{o.from, o.to + reconnect.Microseconds()}).touches(span{c.sent, c.got}) {
				return
			}
		}
		if strings.Contains(c.text, "backend did not decide") && r.mayFail(c) && r.troubled(c) {
			r.noteRecovery(v, c)
			return
		}
	}
	v.add([]*call{c}, "an error without a reason")
}

// mayFail says whether a rule that may have applied asks for an error when the
// store does not decide.
func (r *record) mayFail(c *call) bool {
	d := r.plan.domains[c.domain]
	for _, a := range c.asks {
		for _, i := range d.chain(a.rule) {
			if m := d.rules[i].mode; m == noFailure || m == "error" {
				return true
			}
		}
	}
	return false
}

// chain returns the rules that may apply to what is asked of a rule.
func (d *domain) chain(rule int) (list []int) {
	for list = []int{rule}; rule < siblings-1; list = append(list, rule) {
		rule++
	}
	return list
}

// noteRecovery takes note of a call that the store did not decide.
func (r *record) noteRecovery(v *verdict, c *call) {
	v.without++
	var last int64
	for _, f := range r.faults {
		if f.from <= c.got {
			last = max(last, f.to)
		}
	}
	if last == 0 {
		return // a finding, then
	}
	if took := time.Duration(c.got-last) * time.Microsecond; took > v.recovery {
		v.recovery, v.slowest = took, c
	}
}

// judgeVersions checks that a call was decided by the rules of one version, which
// the replica may have had in force.
func (r *record) judgeVersions(v *verdict, c *call) bool {
	d, file := r.plan.domains[c.domain], &r.rules[c.domain]
	least := 1
	for _, k := range file.confirmed {
		if k.replica == c.replica && k.at <= c.sent {
			least = max(least, k.version)
		}
	}
	greatest := least
	for n := least + 1; n < len(file.wrote) && file.wrote[n] <= c.got; n++ {
		greatest = n
	}
	from, to := least, greatest
	for i, a := range c.answers {
		if a.name == "" {
			continue
		}
		ref, err := d.parse(a.name)
		if err != nil {
			v.add([]*call{c}, "%v", err)
			return false
		}
		if ref.version < from || ref.version > to {
			v.add([]*call{c}, "%s: its version should be %d to %d", a.name, from, to)
			return false
		}
		from, to = ref.version, ref.version
		if landed := d.lands(ref.version, c.asks[i].rule); landed != ref.rule {
			v.add([]*call{c}, "%s: rule %d applies", a.name, landed)
			return false
		}
		p := d.versions[ref.version][ref.rule][ref.limit]
		if a.limit != p.Limit {
			v.add([]*call{c}, "%s: the limit is %d", a.name, p.Limit)
			return false
		}
		if !a.ok && d.rules[ref.rule].shadow {
			v.add([]*call{c}, "%s: a shadow refuses", a.name)
		}
	}
	for n := from; n <= to; n++ {
		if r.unlimited(c, n) {
			return true
		}
	}
	v.add([]*call{c}, "no version from %d to %d leaves these descriptors without a limit", from, to)
	return false
}

// unlimited says whether the version has no limit for just the descriptors for
// which none was reported.
func (r *record) unlimited(c *call, version int) bool {
	d := r.plan.domains[c.domain]
	for i, a := range c.asks {
		if (d.lands(version, a.rule) < 0) != (c.answers[i].name == "") {
			return false
		}
	}
	return true
}

// judgeOrder checks that no replica goes back to older rules.
func (r *record) judgeOrder(v *verdict) {
	type seen struct {
		c       *call
		version int
	}
	type place struct{ replica, domain int }
	all := map[place][]seen{}
	for i := range r.calls {
		c := &r.calls[i]
		for _, a := range c.answers {
			if ref, err := r.plan.domains[c.domain].parse(a.name); err == nil {
				at := place{c.replica, c.domain}
				all[at] = append(all[at], seen{c, ref.version})
				break
			}
		}
	}
	for _, list := range all {
		bySent := slices.Clone(list)
		slices.SortFunc(bySent, func(a, b seen) int { return cmp.Compare(a.c.sent, b.c.sent) })
		slices.SortFunc(list, func(a, b seen) int { return cmp.Compare(a.c.got, b.c.got) })
		newest, next := seen{}, 0
		for _, s := range bySent {
			for ; next < len(list) && list[next].c.got < s.c.sent; next++ {
				if list[next].version > newest.version {
					newest = list[next]
				}
			}
			if s.version < newest.version {
				v.add([]*call{newest.c, s.c}, "version %d after version %d", s.version, newest.version)
			}
		}
	}
}

// counterName says what requests count in: values are joined, replica is -1 where
// all share it.
type counterName struct {
	domain, rule, limit, replica int
	values                       string
}

// counter is all that may have been charged to a counter, and what was refused.
type counter struct {
	name     counterName
	rule     *rule
	admitted []hit // for certain, by the store
	charged  []hit // perhaps
	refunds  []hit
	refused  []hit
}

// hit is a part of a call. It took effect between sent and till.
type hit struct {
	span
	n    int64
	p    algo.Params
	call *call
}

func (r *record) counter(all map[counterName]*counter, c *call, a ask, rule, limit int) *counter {
	d := r.plan.domains[c.domain]
	name := counterName{domain: c.domain, rule: rule, limit: limit, replica: -1}
	if !d.rules[rule].shares {
		name.values = fmt.Sprintf("%q", a.values)
	}
	if r.plan.topology == inMemory {
		name.replica = c.replica
	}
	k := all[name]
	if k == nil {
		k = &counter{name: name, rule: d.rules[rule]}
		all[name] = k
	}
	return k
}

// count enters a call into the counters that it may have charged.
func (r *record) count(v *verdict, all map[counterName]*counter, c *call) {
	d := r.plan.domains[c.domain]
	troubled := r.troubled(c)
	for i, a := range c.asks {
		if a.hits == 0 {
			continue
		}
		if c.answers == nil {
			for _, rule := range d.chain(a.rule) {
				for limit, p := range d.rules[rule].limits {
					r.counter(all, c, a, rule, limit).perhaps(r, c, a.hits, p)
				}
			}
			continue
		}
		said := c.answers[i]
		if said.name == "" {
			continue
		}
		ref, _ := d.parse(said.name) // as judgeVersions has checked
		variant, rule := d.versions[ref.version][ref.rule], d.rules[ref.rule]
		passed := said.ok && !(d.allOrNothing && c.over)
		without := a.hits > 0 && passed && !rule.shadow && rule.mode == "allow" && int64(said.remaining) == capacity(variant[ref.limit])
		if without {
			if !troubled {
				v.add([]*call{c}, "%s: answered without the store, which was well", said.name)
			}
			r.noteRecovery(v, c)
		}
		if !said.ok {
			v.refused++
		}
		for limit, p := range variant {
			k := r.counter(all, c, a, ref.rule, limit)
			h := hit{span{c.sent, c.got}, a.hits, p, c}
			switch {
			case a.hits > 0 && passed && !without && !rule.shadow && !r.staleAnswer(c):
				k.admitted = append(k.admitted, h)
				v.admitted += h.n
			case a.hits > 0 && !said.ok && limit == ref.limit:
				k.refused = append(k.refused, h)
			}
			// What a request gives back it does even when it is refused.
			if passed || troubled || a.hits < 0 || p.DeniedHits != algo.Drop {
				k.perhaps(r, c, a.hits, p)
			}
		}
	}
}

// staleAnswer says whether a call may have been decided by a master whose place
// another had already taken.
func (r *record) staleAnswer(c *call) bool {
	return slices.ContainsFunc(r.stale, func(s span) bool { return s.touches(span{c.sent, c.got}) })
}

// perhaps enters hits that may have been charged or given back.
func (k *counter) perhaps(r *record, c *call, hits int64, p algo.Params) {
	h := hit{span{c.sent, c.got}, hits, p, c}
	if c.answers == nil || r.troubled(c) {
		// The store may have got it when nobody waited for it any more.
		for _, f := range r.faults {
			if f.touches(h.span) {
				h.to = max(h.to, f.to)
			}
		}
		h.to += late.Microseconds()
	}
	if hits < 0 {
		h.n = -hits
		k.refunds = append(k.refunds, h)
		return
	}
	if p.DeniedHits == algo.Drain {
		h.n = 1 << 40 // all that was left
	}
	k.charged = append(k.charged, h)
}

// cuts returns when the counter was not bound by what was before.
func (r *record) cutsOf(k *counter) (list []cut) {
	for _, c := range r.cuts {
		if c.replica < 0 || c.replica == k.name.replica {
			list = append(list, c)
		}
	}
	// A lowered limit cuts what is charged, and a higher one that follows could not
	// know; nor could replicas that for a moment have different limits.
	d := r.plan.domains[k.name.domain]
	for _, ch := range r.rules[k.name.domain].changes {
		for n := ch.first; n <= ch.last; n++ {
			if !slices.Equal(d.versions[n][k.name.rule], d.versions[n-1][k.name.rule]) {
				list = append(list, cut{span: r.untilReturned(k, ch.span), replica: -1})
				break
			}
		}
	}
	return list
}

// untilReturned draws a change out until nobody holds a lease of what was before. Given
// back by the old limit, a lease has the counter as that would.
func (r *record) untilReturned(k *counter, ch span) span {
	if k.rule.lease == 0 || r.plan.topology == inMemory {
		return ch
	}
	long := span{ch.from, ch.to + leaving.Microseconds()}
	for _, f := range r.faults { // calls take longer
		if f.touches(long) {
			long.to = max(long.to, f.to+late.Microseconds())
		}
	}
	return long
}

// judgeMost checks that between the moment that any call was sent and that any
// later one was answered no more was admitted than the limit allows: what was both
// sent and answered in between took effect in between.
func (r *record) judgeMost(v *verdict, k *counter) {
	cuts := r.cutsOf(k)
	segments := map[int][]hit{}
	for _, h := range k.admitted {
		if n, whole := segment(cuts, h.span); whole {
			segments[n] = append(segments[n], h)
		}
	}
	for _, n := range sortedKeys(segments) {
		hits := segments[n]
		slices.SortFunc(hits, func(a, b hit) int { return cmp.Compare(a.from, b.from) })
		if !r.judgeSegment(v, k, hits) {
			return // one finding for a counter is enough
		}
	}
}

// segment returns between which cuts the span lies, and whether as a whole.
func segment(cuts []cut, s span) (n int, whole bool) {
	for _, c := range cuts {
		switch {
		case c.to <= s.from:
			n++
		case c.from < s.to:
			return 0, false
		}
	}
	return n, true
}

func (r *record) judgeSegment(v *verdict, k *counter, hits []hit) bool {
	p := hits[0].p
	for _, h := range hits {
		if h.p != p {
			v.add([]*call{hits[0].call, h.call}, "%+v: %+v became %+v, and no change of rules says so", k.name, p, h.p)
			return false
		}
	}
	window := p.Window.Microseconds()
	for i, first := range hits {
		var within []hit
		for _, h := range hits[i:] {
			if h.from > first.from+3*window {
				break
			}
			within = append(within, h)
		}
		slices.SortFunc(within, func(a, b hit) int { return cmp.Compare(a.to, b.to) })
		var sum int64
		for _, last := range within {
			sum += last.n
			over := span{first.from, last.to}
			length := over.to - over.from + slack.Microseconds()
			if p.Algorithm == algo.FixedWindow { // of which one that was drawn out cuts the next short
				length += r.drift(span{over.from - window, over.to})
			}
			held := r.held(k, p, over)
			bound := most(p, length) + r.more(k, p, over) + held
			v.ahead = max(v.ahead, sum-bound+held)
			v.fullest = max(v.fullest, float64(sum)/float64(bound))
			if sum > bound {
				v.add(r.around(k, over), "%+v: %d hits admitted within %d µs, more than the %d that %+v may", k.name, sum, over.to-over.from, bound, p)
				return false
			}
		}
	}
	if r.plan.topology == clocked || p.Algorithm != algo.FixedWindow && p.Algorithm != algo.SlidingWindow || p.Strict {
		return true
	}
	return r.judgeAligned(v, k, hits)
}

// judgeAligned checks the windows that begin at multiples of their length, in which
// no more than the limit passes.
func (r *record) judgeAligned(v *verdict, k *counter, hits []hit) bool {
	p := hits[0].p
	window := p.Window.Microseconds()
	windows := map[int64][]hit{}
	for _, h := range hits {
		late := r.drift(span{h.from - 2*window, h.to})
		if p.Algorithm == algo.SlidingWindow && len(r.moves) > 0 && h.to >= r.moves[0].from {
			continue // its windows go on from where a move has shifted them
		}
		n := (h.from - slack.Microseconds() - late) / window
		if (h.to+slack.Microseconds())/window == n {
			windows[n] = append(windows[n], h)
		}
	}
	for n, in := range windows {
		var sum int64
		for _, h := range in {
			sum += h.n
		}
		within := span{n * window, (n+1)*window - 1}
		if bound := int64(p.Limit) + r.more(k, p, within) + r.held(k, p, within); sum > bound {
			v.add(r.around(k, within), "%+v: %d hits admitted in the window from %s, more than the %d that %+v may", k.name, sum, clockTime(n*window), bound, p)
			return false
		}
	}
	return true
}

// more returns what may be admitted in a span beyond the limit, for reasons that
// rules give.
func (r *record) more(k *counter, p algo.Params, over span) (n int64) {
	for _, h := range k.refunds {
		if h.touches(over) {
			n += h.n
		}
	}
	for _, c := range r.cuts {
		// The window that a step back draws out ends at no multiple, and the next is short.
		if c.back > 0 && p.Algorithm == algo.FixedWindow && c.from <= over.to && c.to+2*p.Window.Microseconds() >= over.from {
			n += int64(p.Limit)
		}
	}
	if k.rule.mode != "local" || r.plan.topology == inMemory {
		return n
	}
	for _, f := range r.faults {
		if (span{f.from, f.to + recovery.Microseconds()}).touches(over) {
			return n + r.locally(p, over)
		}
	}
	return n
}

// drift returns by how much slots that were moved in the span may have made counters
// late: Redis passes on how much longer a key is to live, in whole milliseconds.
func (r *record) drift(over span) (n int64) {
	for _, m := range r.moves {
		if m.touches(over) {
			n += m.to - m.from + 1000
		}
	}
	return n
}

// part is how many hits of a counter one of n replicas may hold: its part of the share
// that the rule states. Less than two it does not take ahead.
func part(lease float64, p algo.Params, n int) int64 {
	if hits := int64(lease * float64(capacity(p)) / float64(n)); hits >= 2 {
		return hits
	}
	return 0
}

// part is the same of a counter in the run: where counters live in memory there are no leases.
func (r *record) part(k *counter, p algo.Params) int64 {
	if r.plan.topology == inMemory {
		return 0
	}
	return part(k.rule.lease, p, r.plan.replicas)
}

// held returns what leases add to what may be admitted in a span.
//
// A hit that is spent was charged before. So whatever is admitted in the span was
// charged in it, which the limit bounds, or was held when it began. What is given
// back in it makes room: if it was charged in the span it was never admitted, and
// else it was held when the span began. Of what was held a hit is spent or given back,
// not both, so that all of this comes to what was held: of all replicas together no
// more than the share. Of a replica that was killed there may be its part again: what
// it was giving back may arrive when its successor holds as much.
//
// In a fixed window what is held was charged in the same window, and is void with its
// end; unless the counter was lost in between.
func (r *record) held(k *counter, p algo.Params, over span) int64 {
	window := p.Window.Microseconds()
	bears := p.Algorithm != algo.FixedWindow
	for _, c := range r.cutsOf(k) {
		bears = bears || c.from <= over.to && c.to+window >= over.from
	}
	if !bears {
		return 0
	}
	n := int64(r.plan.replicas)
	for _, o := range r.outages {
		if (span{o.from, o.from + returning.Microseconds()}).touches(over) {
			n++
		}
	}
	return n * r.part(k, p)
}

// unspent returns how many hits leases may have charged that nobody has spent, and
// whether that can be told: not when a call may have charged and nobody heard of it,
// or with the change of a limit, when what calls take meanwhile is nobody's.
func (r *record) unspent(k *counter, p algo.Params, over span) (n int64, known bool) {
	part := r.part(k, p)
	if k.rule.lease == 0 || r.plan.topology == inMemory {
		return 0, true
	}
	for _, f := range r.faults {
		if (span{f.from, f.to + late.Microseconds()}).touches(over) {
			return 0, false
		}
	}
	for _, c := range r.cutsOf(k) {
		if c.touches(over) {
			return 0, false
		}
	}
	n = int64(r.plan.replicas)
	for _, o := range r.outages { // what it held is nobody's
		if o.from <= over.to && over.from <= o.from {
			n++
		}
	}
	return n * part, true
}

// locally returns what replicas may admit by themselves. One that was killed has
// forgotten what it had admitted.
func (r *record) locally(p algo.Params, over span) int64 {
	stores := int64(r.plan.replicas)
	for _, o := range r.outages {
		if o.touches(over) {
			stores++
		}
	}
	return stores * most(share(p, r.plan.replicas), over.to-over.from+slack.Microseconds())
}

// share is the part of a limit that one of n replicas admits by itself: a hit in a
// longer time where there is less than one.
func share(p algo.Params, n int) algo.Params {
	if p.Burst > 0 {
		p.Burst = max(1, p.Burst/uint32(n))
	}
	if p.Limit >= uint32(n) {
		p.Limit /= uint32(n)
	} else {
		p.Limit, p.Window = 1, p.Window*time.Duration(n)/time.Duration(p.Limit)
	}
	return p
}

// judgeLeast checks that a refusal had a reason: that what may have been charged,
// and not been forgotten yet, left too little room.
func (r *record) judgeLeast(v *verdict, k *counter) {
	remembers := int64(0)
	for _, version := range r.plan.domains[k.name.domain].versions {
		if version != nil && version[k.name.rule] != nil {
			remembers = max(remembers, memory(version[k.name.rule][k.name.limit]))
		}
	}
	for _, h := range k.refused {
		if m := k.rule.mode; (m == "deny" || m == "local") && r.troubled(h.call) {
			continue // refused without the store
		}
		room := capacity(h.p)
		if h.n > room {
			continue
		}
		since, stepped := h.from-remembers-slack.Microseconds(), false
		since -= r.drift(span{since, h.to})
		for i := len(r.cuts) - 1; i >= 0; i-- {
			// What was charged before a step back may stay until that is made up for. A key
			// that was used last when it was about to be forgotten still holds all that
			// it remembered then.
			if c := r.cuts[i]; c.back > 0 && c.from <= h.to && c.to+c.back.Microseconds()+2*remembers >= since {
				since, stepped = min(since, c.from-2*remembers), true
			}
		}
		used, known := r.unspent(k, h.p, span{since, h.to})
		if !known {
			continue
		}
		for _, a := range h.call.asks { // which may all count in the same counter
			used += max(0, a.hits)
		}
		for _, o := range k.charged {
			switch {
			case o.call == h.call || o.from > h.to || o.to < since:
			case stepped && h.p.Burst != 0: // by the step, too, a bucket is later to be full
				used += room
			default:
				used += o.weight(h.p)
			}
		}
		if used <= room {
			v.add(r.around(k, span{since, h.to}), "%+v: refused, though at most %d hits were in use of the %d that %+v may", k.name, used-h.n, room, h.p)
			return
		}
	}
}

// weight is for how many hits of the limit p those of h may count: a bucket, which
// keeps times, that was charged at a slower rate is later to be full.
func (h hit) weight(p algo.Params) int64 {
	slower := max(1, int64(h.p.Limit)) // 0: the version is not known
	if p.Burst == 0 || int64(p.Limit) <= slower {
		return h.n
	}
	return (h.n*int64(p.Limit) + slower - 1) / slower
}

// around returns the calls that may have charged the counter in the span.
func (r *record) around(k *counter, over span) (list []*call) {
	d := r.plan.domains[k.name.domain]
	for i := range r.calls {
		c := &r.calls[i]
		if c.domain != k.name.domain || !over.touches(span{c.sent, c.got}) || k.name.replica >= 0 && c.replica != k.name.replica {
			continue
		}
		for _, a := range c.asks {
			if slices.Contains(d.chain(a.rule), k.name.rule) && (k.rule.shares || fmt.Sprintf("%q", a.values) == k.name.values) {
				list = append(list, c)
				break
			}
		}
	}
	slices.SortFunc(list, func(a, b *call) int { return cmp.Compare(a.sent, b.sent) })
	return list
}

func sortedKeys[V any](m map[int]V) (keys []int) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func sortedNames(m map[counterName]*counter) (names []counterName) {
	for n := range m {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b counterName) int {
		return cmp.Or(cmp.Compare(a.domain, b.domain), cmp.Compare(a.rule, b.rule), cmp.Compare(a.limit, b.limit),
			cmp.Compare(a.replica, b.replica), cmp.Compare(a.values, b.values))
	})
	return names
}
