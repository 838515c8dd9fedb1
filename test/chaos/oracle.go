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

// The bounds that a run must keep besides the limits.
const (
	// recovery is how long after the end of a fault of the store requests may still be
	// answered without it. At a REDIS_TIMEOUT of 2 s the service gives up a dead
	// connection after 4 s, suspends calls for up to 1.25 s, and a call made just before
	// that takes 2 s.
	recovery = 8 * time.Second
	// reconnect is how long clients may still fail to reach a replica after it serves
	// again.
	reconnect = 2 * time.Second
	// stall is the longest that a process may wait for a processor. If a process waits
	// longer, the machine is too busy, and late answers prove nothing.
	stall = 200 * time.Millisecond
	// late is how long after a fault a message sent before it may still arrive.
	late = 2 * time.Second
	// slack is how much clocks may be corrected in a window.
	slack = 2 * time.Millisecond
	// returning is how long after a replica was killed hits of its leases may still be
	// given back. After that, giving them back has no effect.
	returning = time.Second
	// leaving is how long some replica may hold a lease of an old limit after all replicas
	// have a new one: the life of the lease, the time until the replica finds that it has
	// expired (100 ms each), and the time to send it.
	leaving = 200*time.Millisecond + stall
)

// finding is a violation.
type finding struct {
	what  string
	calls []*call // the calls that show it
}

func (f finding) String() string {
	var b strings.Builder
	b.WriteString(f.what)
	for _, c := range f.calls {
		b.WriteString("\n    " + c.String())
	}
	return b.String()
}

// verdict holds the oracle's findings, and how much it has checked.
type verdict struct {
	findings []finding
	counters int
	admitted int64         // hits, by the store
	refused  int           // descriptors
	errors   int           // calls
	without  int           // calls that were visibly answered without the store
	granted  int           // holds, by the store
	inFlight int           // the most requests that certainly held of a counter at once
	leased   int           // calls decided from leases, as the replicas count them
	ahead    int64         // the most hits by which leases let a limit be exceeded in some span
	fullest  float64       // the largest part of what a limit may admit in a span that was admitted
	stalls   int           // of the machine
	recovery time.Duration // the longest from the end of a fault to the last answer without the store
	slowest  *call         // the call of that answer
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
		r.judgeHeld(v, counters[name])
		r.judgeCounter(v, counters[name])
	}
	return v
}

// settleChanges extends each change of rules to the end of the last request that may have
// been decided by the rules before it.
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

// troubled reports whether the store may have failed to decide a call, because a fault was
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
	if c.code == codes.Unavailable && !strings.Contains(c.text, "different slots") { // which nothing excuses
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

// mayFail reports whether a rule that may have applied asks for an error when the store
// does not decide.
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

// chain returns the rules that may apply to a request made for a rule.
func (d *domain) chain(rule int) (list []int) {
	for list = []int{rule}; rule < siblings-1; list = append(list, rule) {
		rule++
	}
	return list
}

// noteRecovery records a call that the store did not decide.
func (r *record) noteRecovery(v *verdict, c *call) {
	v.without++
	var last int64
	for _, f := range r.faults {
		if f.from <= c.got {
			last = max(last, f.to)
		}
	}
	if last == 0 {
		return // the caller reports a finding
	}
	if took := time.Duration(c.got-last) * time.Microsecond; took > v.recovery {
		v.recovery, v.slowest = took, c
	}
}

// judgeVersions checks that a call was decided by the rules of a single version, and that
// the replica may have had it in force.
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
		case !a.ok && !(d.allOrNothing && c.over) && int64(a.remaining) >= max(1, c.asks[i].hits): // only if its charge was not undone
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

// unlimited reports whether the descriptors without a limit in the version are exactly
// those for which no limit was reported.
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

// counterName identifies a counter. Values are joined; replica is -1 if all replicas share
// the counter.
type counterName struct {
	domain, rule, limit, replica int
	values                       string
}

// counter holds all hits that may have been charged to a counter, and all reports about it.
type counter struct {
	name     counterName
	rule     *rule
	admitted []hit // certainly, by the store
	certain  []hit // certainly charged, admitted or not
	charged  []hit // possibly charged
	brief    []hit // possibly charged, and given back within the call
	refunds  []hit
	said     []report

	grants  []grant             // under a rule that holds
	endings map[string][]ending // of what they granted, by the ID of the request
}

// hit is a part of a call. It took effect between sent and till.
type hit struct {
	span
	n    int64
	p    limit
	call *call
	fits bool // there was room for it
}

// report is the statement of an answer about a counter after hits. At least own and at most
// owned of the hits were charged.
type report struct {
	hit
	answer
	own, owned int64
	decided    bool // by the store, and all of it by one state of the counter
	of         variant

	id      string // of the request that holds
	settles bool
	undone  bool // what was granted, because another descriptor was refused
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

// count adds a call to the counters that it may have charged.
func (r *record) count(v *verdict, all map[counterName]*counter, c *call) {
	d := r.plan.domains[c.domain]
	for i, a := range c.asks {
		switch {
		case c.answers == nil:
			for _, rule := range d.chain(a.rule) {
				for at := range d.rules[rule].limits {
					k := r.counter(all, c, a, rule, at)
					h := hit{span: span{c.sent, c.got}, n: a.hits, p: limit{Params: r.widest(k)}, call: c}
					if k.rule.holds {
						r.perhapsHeld(k, h, a)
					} else {
						k.perhaps(r, h)
					}
				}
			}
		case c.answers[i].name != "":
			r.countAnswer(v, all, c, i)
		}
	}
}

// countAnswer adds the answer to a descriptor to its counters.
func (r *record) countAnswer(v *verdict, all map[counterName]*counter, c *call, i int) {
	d, a, said := r.plan.domains[c.domain], c.asks[i], c.answers[i]
	ref, _ := d.parse(said.name) // as judgeVersions has checked
	of, rule := d.versions[ref.version][ref.rule], d.rules[ref.rule]
	troubled, undone := r.troubled(c), d.allOrNothing && c.over && !a.settles
	passed := said.ok && !undone
	without := passed && !a.settles && r.showsNoStore(c, i, of[ref.limit].Params) && !of.rehearsed()
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
		if of.rehearsed() { // a refusal leaves less than it refused
			h.fits = len(of) == 1 && !undone && !troubled && int64(said.remaining) >= a.hits
		}
		// If two stores decide a descriptor's limits, one of them may be away.
		unsaid := troubled && at != ref.limit && of.inTwoStores(r.plan.topology)
		said := report{hit: h, answer: said, of: of}
		said.decided = at == ref.limit && !troubled && !without && !undone && !said.vague && rule.lease == 0 && !r.staleAnswer(c)
		if rule.holds {
			r.countHeld(v, k, said, a, !without, undone)
			continue
		}
		switch {
		case a.hits <= 0:
			k.perhaps(r, h) // a request gives hits back even when it is refused
		case p.DeniedHits == algo.Count || h.fits && passed:
			said.own, said.owned = a.hits, a.hits
			if h.fits && passed && !without && !unsaid && !r.staleAnswer(c) {
				k.admitted = append(k.admitted, h)
				v.admitted += h.n
			}
			if !troubled && !without && !r.staleAnswer(c) {
				k.certain = append(k.certain, h)
			}
		case h.fits: // charged, and then undone
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

// showsNoStore reports whether an answer about a descriptor can't come from a store: the
// descriptor was charged, and yet the whole limit remains. Mode allow answers that way. In
// mode error such an answer comes with the refusal of another descriptor, which outweighs
// the error.
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

// widest returns the parameters of a limit with the greatest limit and burst of all
// versions.
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

// limitAt returns a limit of a version; nil if the version leaves it out.
func (d *domain) limitAt(version, rule, at int) *limit {
	if v := d.versions[version]; v != nil && at < len(v[rule]) {
		return &v[rule][at]
	}
	return nil
}

// during returns the first and the last version of a domain that may have been in force at
// some moment of the span.
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
	if k.rule.lease > 0 { // a lease goes back under the limit by which it was taken
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

// staleAnswer reports whether a call may have been decided by a master that another had
// already replaced.
func (r *record) staleAnswer(c *call) bool {
	return slices.ContainsFunc(r.stale, func(s span) bool { return s.touches(span{c.sent, c.got}) })
}

// perhaps adds hits that may have been charged or given back.
func (k *counter) perhaps(r *record, h hit) {
	switch h.span = r.reach(h); {
	case h.n < 0:
		h.n = -h.n
		k.refunds = append(k.refunds, h)
	case h.n > 0:
		k.charged = append(k.charged, h)
	}
}

// reach returns when hits may have taken effect. If something was wrong, the store may have
// received them after their client had given up.
func (r *record) reach(h hit) span {
	s := h.span
	if h.call.answers == nil || r.troubled(h.call) {
		for _, f := range r.faults {
			if f.touches(s) {
				s.to = max(s.to, f.to)
			}
		}
		s.to += late.Microseconds()
	}
	return s
}

// cutsOf returns the moments from which the counter was not bound by earlier hits. A change
// of rules is none of them, because used hits stay used.
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

// untilReturned extends a change until no replica holds a lease under the old limit. A lease
// is given back under its own limit, and so changes the counter as the old limit would.
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

// judgeMost takes every span from the sending of a call to the answer of a later one, and
// checks that no more hits were admitted in it than the limit allows. Calls that were both
// sent and answered in the span took effect in it.
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

// segment returns the number of cuts before the span, and whether no cut divides it.
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
			if p.Algorithm == algo.FixedWindow { // a window that was drawn out shortens the next
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

// bounds tracks the limits of admitted hits. Each hit, and so the last one, was admitted
// because all earlier use was within its own limit, whatever the limits of the other hits
// were.
type bounds struct {
	r       *record
	k       *counter
	hits    []hit // in order of their ends
	started int64 // the latest beginning of any

	greatest    float64 // limit
	plain       bool    // a version since then had a window that is not strict
	fastest     float64 // rate of draining since the first
	first, last int     // the versions that fastest is of
}

func (b *bounds) add(h hit) {
	b.hits = append(b.hits, h)
	b.started = max(b.started, h.from)
	b.greatest = max(b.greatest, float64(h.p.Limit))
	b.plain = b.plain || !h.p.Strict
}

// reloaded takes the versions in force in the span into account: how fast a bucket may have
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

// ofLast returns the greatest limit and the greatest burst of the hits that may have been
// the last.
func (b *bounds) ofLast() (limit, burst float64) {
	for i := len(b.hits) - 1; i >= 0 && b.hits[i].to >= b.started; i-- {
		limit, burst = max(limit, float64(b.hits[i].p.Limit)), max(burst, float64(b.hits[i].p.Burst))
	}
	return limit, burst
}

// most returns the most hits that a span of that length may admit, if these hits were.
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

// judgeAligned checks that windows that begin at multiples of their length admit no more
// than the limit.
func (r *record) judgeAligned(v *verdict, k *counter, hits []hit) bool {
	p := hits[0].p
	window := p.Window.Microseconds()
	windows := map[int64][]hit{}
	for _, h := range hits {
		late := r.drift(span{h.from - 2*window, h.to})
		if p.Algorithm == algo.SlidingWindow && len(r.moves) > 0 && h.to >= r.moves[0].from {
			continue // a move has shifted its windows
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

// more returns how many hits beyond the limit the rules allow in a span.
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
		// A step back draws a window out. It ends at no multiple, and the next is short.
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

// drift returns how late moves of slots in the span may have made counters. Redis passes on
// the remaining life of a key in whole milliseconds.
func (r *record) drift(over span) (n int64) {
	for _, m := range r.moves {
		if m.touches(over) {
			n += m.to - m.from + 1000
		}
	}
	return n
}

// part returns how many hits of a counter one of n replicas may hold: its part of the share
// that the rule states. It takes no lease of fewer than two hits.
func part(lease float64, p algo.Params, n int) int64 {
	if hits := int64(lease * float64(capacity(p)) / float64(n)); hits >= 2 {
		return hits
	}
	return 0
}

// part returns the largest part of the counter in the span. There are no leases if counters
// live in memory.
func (r *record) part(k *counter, over span) (most int64) {
	if r.plan.topology == inMemory || k.rule.lease == 0 {
		return 0
	}
	for _, p := range r.limits(k, over) {
		most = max(most, part(k.rule.lease, p.Params, r.plan.replicas))
	}
	return most
}

// held returns how many more hits a span may admit because of leases.
//
// A spent hit was charged earlier. So every hit admitted in the span was either charged in
// it, which the limit bounds, or held when it began. A hit given back in the span makes
// room. If it was charged in the span, it was never admitted; otherwise it was held when the
// span began. A held hit is either spent or given back, not both. So the total is bounded by
// the held hits: for all replicas together, the share. A killed replica may add its part
// once more, because the hits that it was giving back may arrive when its successor already
// holds as many.
//
// In a fixed window, held hits were charged in the same window and expire with it, unless
// the counter was lost in between.
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

// unspent returns how many hits leases may have charged that are not spent. known is false
// if a call may have charged and its answer was lost, or if a limit changed, because hits
// that calls take during a change belong to no lease.
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
	for _, o := range r.outages { // no replica spends the hits that it held
		if o.from <= over.to && over.from <= o.from {
			n++
		}
	}
	return n * part, true
}

// locally returns how many hits replicas may admit by themselves. A killed replica has
// forgotten how many it had admitted.
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

// share returns the part of a limit that one of n replicas admits by itself. If the part is
// less than one hit, it is one hit in a longer time.
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
