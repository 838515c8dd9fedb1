package chaos

import (
	"cmp"
	"fmt"
	"math"
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
		r.judgeCounter(v, counters[name])
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
		of := d.versions[ref.version][ref.rule]
		switch p := of[ref.limit]; {
		case a.limit != p.Limit:
			v.add([]*call{c}, "%s: the limit is %d", a.name, p.Limit)
			return false
		case p.shadow && !of.rehearsed():
			v.add([]*call{c}, "%s: a limit in shadow mode is reported beside one that is not", a.name)
			return false
		case p.shadow && !a.ok:
			v.add([]*call{c}, "%s: a limit in shadow mode refuses", a.name)
		case !a.ok && !(d.allOrNothing && c.over) && int64(a.remaining) >= max(1, c.asks[i].hits): // of what was not undone
			v.add([]*call{c}, "%s: refused, and as much remains", a.name)
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

// counter is all that may have been charged to a counter, and what was said of it.
type counter struct {
	name     counterName
	rule     *rule
	admitted []hit // for certain, by the store
	certain  []hit // charged for certain, admitted or not
	charged  []hit // perhaps
	brief    []hit // the same, and given back within the call
	refunds  []hit
	said     []report
}

// hit is a part of a call. It took effect between sent and till.
type hit struct {
	span
	n    int64
	p    limit
	call *call
	fits bool // there was room for it
}

// report is what an answer said of a counter after hits, of which at least own were
// charged, and at most owned.
type report struct {
	hit
	answer
	own, owned int64
	decided    bool // by the store, and all of it by one state of the counter
	of         variant
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
	for i, a := range c.asks {
		switch {
		case c.answers == nil:
			for _, rule := range d.chain(a.rule) {
				for at := range d.rules[rule].limits {
					k := r.counter(all, c, a, rule, at)
					k.perhaps(r, hit{span: span{c.sent, c.got}, n: a.hits, p: limit{Params: r.widest(k)}, call: c})
				}
			}
		case c.answers[i].name != "":
			r.countAnswer(v, all, c, i)
		}
	}
}

// countAnswer enters what was answered of a descriptor.
func (r *record) countAnswer(v *verdict, all map[counterName]*counter, c *call, i int) {
	d, a, said := r.plan.domains[c.domain], c.asks[i], c.answers[i]
	ref, _ := d.parse(said.name) // as judgeVersions has checked
	of, rule := d.versions[ref.version][ref.rule], d.rules[ref.rule]
	troubled, undone := r.troubled(c), d.allOrNothing && c.over
	passed := said.ok && !undone
	without := passed && r.showsNoStore(c, i, of[ref.limit].Params) && !of.rehearsed()
	if without {
		if !troubled {
			v.add([]*call{c}, "%s: answered without the store, which was well", said.name)
		}
		r.noteRecovery(v, c)
	}
	if !said.ok {
		v.refused++
	}
	for at, p := range of {
		k := r.counter(all, c, a, ref.rule, at)
		h := hit{span: span{c.sent, c.got}, n: a.hits, p: p, call: c, fits: said.ok && !p.shadow}
		if of.rehearsed() { // a refusal leaves less than what it refused
			h.fits = len(of) == 1 && !undone && !troubled && int64(said.remaining) >= a.hits
		}
		// Of two stores that decide a descriptor's limits one may be away.
		unsaid := troubled && at != ref.limit && of.inTwoStores(r.plan.topology)
		said := report{hit: h, answer: said, of: of}
		said.decided = at == ref.limit && !troubled && !without && !undone && !said.vague && rule.lease == 0 && !r.staleAnswer(c)
		switch {
		case a.hits <= 0:
			k.perhaps(r, h) // what a request gives back it does even when it is refused
		case p.DeniedHits == algo.Count || h.fits && passed:
			said.own, said.owned = a.hits, a.hits
			if h.fits && passed && !without && !unsaid && !r.staleAnswer(c) {
				k.admitted = append(k.admitted, h)
				v.admitted += h.n
			}
			if !troubled && !without && !r.staleAnswer(c) {
				k.certain = append(k.certain, h)
			}
		case h.fits: // and was undone
		case p.DeniedHits == algo.Drain: // all that was left
			said.owned = capacity(p.Params)
		case p.shadow && passed:
			said.owned = a.hits
		}
		if at == ref.limit {
			k.said = append(k.said, said)
		}
		if troubled && !h.fits {
			said.owned = max(said.owned, a.hits)
		}
		switch h.n = said.owned; {
		case a.hits > 0 && h.n > 0:
			k.perhaps(r, h)
		case a.hits > 0 && of.apart(d, r.plan.topology):
			h.n = a.hits
			k.brief = append(k.brief, h)
		}
	}
}

// showsNoStore reports whether an answer says of a descriptor what no store does: that
// it has charged it and all is left. With mode allow that is an answer; with an error it
// is what comes beside another descriptor's refusal, which outweighs the error.
func (r *record) showsNoStore(c *call, i int, p algo.Params) bool {
	if c.asks[i].hits <= 0 || int64(c.answers[i].remaining) != capacity(p) {
		return false
	}
	ref, _ := r.plan.domains[c.domain].parse(c.answers[i].name) // as judgeVersions has checked
	switch r.plan.domains[c.domain].rules[ref.rule].mode {
	case "allow":
		return true
	case "error", noFailure:
		return c.over
	}
	return false
}

// widest returns what of all versions of a limit is charged the most.
func (r *record) widest(k *counter) algo.Params {
	d := r.plan.domains[k.name.domain]
	w := k.rule.limits[k.name.limit]
	w.DeniedHits = algo.Count
	for n := range d.versions {
		if p := d.limitAt(n, k.name.rule, k.name.limit); p != nil {
			w.Limit, w.Burst = max(w.Limit, p.Limit), max(w.Burst, p.Burst)
		}
	}
	return w
}

// limitAt returns a limit of a version; nil if that leaves it out.
func (d *domain) limitAt(version, rule, at int) *limit {
	if v := d.versions[version]; v != nil && at < len(v[rule]) {
		return &v[rule][at]
	}
	return nil
}

// during returns the versions of a domain that may have been in force at some moment of
// the span.
func (r *record) during(domain int, s span) (first, last int) {
	file := &r.rules[domain]
	first = 1
	for _, ch := range file.changes {
		if ch.to < s.from {
			first = ch.last
		}
	}
	last = first
	for last+1 < len(file.wrote) && file.wrote[last+1] <= s.to {
		last++
	}
	return first, last
}

// limits returns the versions of the counter's limit that may have been in force at some
// moment of the span.
func (r *record) limits(k *counter, s span) (list []*limit) {
	d := r.plan.domains[k.name.domain]
	if k.rule.lease > 0 { // what is held of one goes back by its limit
		s.from -= leaving.Microseconds()
	}
	first, last := r.during(k.name.domain, s)
	for n := first; n <= last; n++ {
		if p := d.limitAt(n, k.name.rule, k.name.limit); p != nil && (len(list) == 0 || *list[len(list)-1] != *p) {
			list = append(list, p)
		}
	}
	return list
}

// staleAnswer says whether a call may have been decided by a master whose place
// another had already taken.
func (r *record) staleAnswer(c *call) bool {
	return slices.ContainsFunc(r.stale, func(s span) bool { return s.touches(span{c.sent, c.got}) })
}

// perhaps enters hits that may have been charged or given back.
func (k *counter) perhaps(r *record, h hit) {
	if h.call.answers == nil || r.troubled(h.call) {
		// The store may have got it when nobody waited for it any more.
		for _, f := range r.faults {
			if f.touches(h.span) {
				h.to = max(h.to, f.to)
			}
		}
		h.to += late.Microseconds()
	}
	switch {
	case h.n < 0:
		h.n = -h.n
		k.refunds = append(k.refunds, h)
	case h.n > 0:
		k.charged = append(k.charged, h)
	}
}

// cutsOf returns when the counter was not bound by what was before. A change of rules
// is no such time: what was used stays used.
func (r *record) cutsOf(k *counter) (list []cut) {
	for _, c := range r.cuts {
		if c.replica < 0 || c.replica == k.name.replica {
			list = append(list, c)
		}
	}
	return list
}

// reloads returns the times in which the counter's limit changed.
func (r *record) reloads(k *counter) (list []span) {
	d := r.plan.domains[k.name.domain]
	for _, ch := range r.rules[k.name.domain].changes {
		for n := ch.first; n <= ch.last; n++ {
			if !slices.Equal(d.versions[n][k.name.rule], d.versions[n-1][k.name.rule]) {
				list = append(list, r.untilReturned(k, ch.span))
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
	longest := p.Window
	for _, h := range hits {
		longest = max(longest, h.p.Window)
	}
	window := longest.Microseconds()
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
		b := bounds{r: r, k: k}
		for _, last := range within {
			sum += last.n
			b.add(last)
			over := span{first.from, last.to}
			length := over.to - over.from + slack.Microseconds()
			if p.Algorithm == algo.FixedWindow { // of which one that was drawn out cuts the next short
				length += r.drift(span{over.from - window, over.to})
			}
			held := r.held(k, over)
			b.reloaded(over)
			bound := b.most(length) + r.more(k, over) + held
			v.ahead = max(v.ahead, sum-bound+held)
			v.fullest = max(v.fullest, float64(sum)/float64(bound))
			if sum > bound {
				v.add(r.around(k, over), "%+v: %d hits admitted within %d µs, more than the %d that %+v may", k.name, sum, over.to-over.from, bound, last.p)
				return false
			}
		}
	}
	if r.plan.topology == clocked || p.Algorithm != algo.FixedWindow && p.Algorithm != algo.SlidingWindow {
		return true
	}
	return r.judgeAligned(v, k, hits)
}

// bounds follows the limits of hits that were admitted. Each of them, and so the last,
// found all that was used before within a limit of its own, whatever the limits of the
// others were.
type bounds struct {
	r       *record
	k       *counter
	hits    []hit // in order of their ends
	started int64 // the latest beginning of any

	greatest    float64 // limit
	plain       bool    // there was a version since with a window that is not strict
	fastest     float64 // rate of draining since the first
	first, last int     // the versions that fastest is of
}

func (b *bounds) add(h hit) {
	b.hits = append(b.hits, h)
	b.started = max(b.started, h.from)
	b.greatest = max(b.greatest, float64(h.p.Limit))
	b.plain = b.plain || !h.p.Strict
}

// reloaded notes which versions there were in the span: how fast a bucket may have
// drained, and whether a window may have faded.
func (b *bounds) reloaded(over span) {
	if first, last := b.r.during(b.k.name.domain, over); first != b.first || last != b.last {
		b.first, b.last = first, last
		for _, p := range b.r.limits(b.k, over) {
			b.fastest = max(b.fastest, rate(p.Params))
			b.plain = b.plain || !p.Strict
		}
	}
}

// ofLast returns the greatest limit and burst of the hits that may have been the last.
func (b *bounds) ofLast() (limit, burst float64) {
	for i := len(b.hits) - 1; i >= 0 && b.hits[i].to >= b.started; i-- {
		limit, burst = max(limit, float64(b.hits[i].p.Limit)), max(burst, float64(b.hits[i].p.Burst))
	}
	return limit, burst
}

// most returns the most hits that are admitted in a span as long, if these were.
func (b *bounds) most(length int64) int64 {
	limit, burst := b.ofLast()
	p := b.hits[len(b.hits)-1].p
	windows := float64(length / p.Window.Microseconds())
	exact := windows*b.greatest + limit
	most := exact
	switch {
	case p.Algorithm == algo.FixedWindow, slides(p.Params) && b.plain:
		most += b.greatest
	case !windowed(p.Params):
		most = math.Inf(1)
	}
	if drains(p.Params) {
		most = min(most, burst+b.fastest*float64(length)+rounding)
	}
	return int64(most)
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
		b := bounds{r: r, k: k}
		slices.SortFunc(in, func(a, b hit) int { return cmp.Compare(a.to, b.to) })
		for _, h := range in {
			b.add(h)
		}
		limit, _ := b.ofLast()
		if bound := int64(limit) + r.more(k, within) + r.held(k, within); sum > bound {
			v.add(r.around(k, within), "%+v: %d hits admitted in the window from %s, more than the %d that %+v may", k.name, sum, clockTime(n*window), bound, p)
			return false
		}
	}
	return true
}

// more returns what may be admitted in a span beyond the limit, for reasons that
// rules give.
func (r *record) more(k *counter, over span) (n int64) {
	for _, h := range k.refunds {
		if h.touches(over) {
			n += h.n
		}
	}
	for _, h := range k.brief { // given back, the newest first
		if h.touches(over) {
			n += h.n
		}
	}
	p := k.rule.limits[k.name.limit]
	for _, c := range r.cuts {
		// The window that a step back draws out ends at no multiple, and the next is short.
		if c.back > 0 && p.Algorithm == algo.FixedWindow && c.from <= over.to && c.to+2*p.Window.Microseconds() >= over.from {
			n += int64(r.widest(k).Limit)
		}
	}
	if k.rule.mode != "local" || r.plan.topology == inMemory {
		return n
	}
	for _, f := range r.faults {
		if (span{f.from, f.to + recovery.Microseconds()}).touches(over) {
			for _, p := range r.limits(k, over) {
				n += r.locally(p.Params, over)
			}
			return n
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

// part is the most of it that a counter had in the span: where counters live in memory
// there are no leases.
func (r *record) part(k *counter, over span) (most int64) {
	if r.plan.topology == inMemory || k.rule.lease == 0 {
		return 0
	}
	for _, p := range r.limits(k, over) {
		most = max(most, part(k.rule.lease, p.Params, r.plan.replicas))
	}
	return most
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
func (r *record) held(k *counter, over span) int64 {
	if k.rule.lease == 0 {
		return 0
	}
	p := k.rule.limits[k.name.limit]
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
	return n * r.part(k, over)
}

// unspent returns how many hits leases may have charged that nobody has spent, and
// whether that can be told: not when a call may have charged and nobody heard of it,
// or with the change of a limit, when what calls take meanwhile is nobody's.
func (r *record) unspent(k *counter, over span) (n int64, known bool) {
	if k.rule.lease == 0 || r.plan.topology == inMemory {
		return 0, true
	}
	part := r.part(k, over)
	for _, s := range r.reloads(k) {
		if s.touches(over) {
			return 0, false
		}
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
	p = share(p, r.plan.replicas)
	b := bounds{r: r, fastest: rate(p), plain: !p.Strict}
	b.add(hit{p: limit{Params: p}})
	return stores * b.most(over.to-over.from+slack.Microseconds())
}

// share is the part of a limit that one of n replicas admits by itself: a hit in a
// longer time where there is less than one.
func share(p algo.Params, n int) algo.Params {
	if p.Burst > 0 {
		p.Burst = max(1, p.Burst/uint32(n))
	}
	if p.Refill.Hits >= uint32(n) {
		p.Refill.Hits /= uint32(n)
	} else {
		p.Refill.Per *= time.Duration(n)
	}
	switch {
	case p.Limit >= uint32(n):
		p.Limit /= uint32(n)
	case p.Limit > 0:
		p.Limit, p.Window = 1, p.Window*time.Duration(n)/time.Duration(p.Limit)
	}
	return p
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
