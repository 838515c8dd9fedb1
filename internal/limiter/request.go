package limiter

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// Request is one call of ShouldRateLimit. The caller fills in who asks, from Domain to
// Descriptors; Decide writes the verdict. Reset empties it and keeps its memory.
type Request struct {
	Domain string
	// Hits is the request's hits_addend: the cost of each descriptor without one of
	// its own. 0 is absent and means 1.
	Hits uint32
	// Entries of all descriptors, one descriptor after the other.
	Entries     []descriptor.Entry
	Descriptors []Descriptor
	Verdict

	// parts are those of descriptors to which rules on sets of entries apply, one for
	// each rule: a descriptor of its own, with the entries and hits of the whole.
	parts     []Descriptor
	sets      []*descriptor.Rule // that apply to the present descriptor
	found     []int
	keys      []byte   // of all checks
	limits    []*Limit // of the checks
	ask       backend.Request
	decisions []algo.Decision
	givesBack bool // what was charged if it is refused; otherwise the backend sees to it
	marked    bool // there are limits with RequestHeaders
	replaced  []string
	path      []byte
	sampler   stats.Sampler
}

// Descriptor is one descriptor of a request.
type Descriptor struct {
	// From and To are the range of its entries in Request.Entries.
	From, To int
	// Hits is its own hits_addend, if HasHits; 0 only looks.
	Hits     uint64
	HasHits  bool
	Negative bool         // it gives hits back
	role     backend.Role // of its checks, candidates aside
	// Override is the limit that it brings along; nil: none.
	Override *Override
	Status

	match    *descriptor.Rule // nil: none applies
	rule     *rule            // of match; nil: none, or override
	override *Limit           // replaces the rule's limits
	hold     algo.Hold        // of the request, if the rule's limits hold
	stats    *stats.Rule      // nil: nothing to count
	cost     int64
	first    int // range in request.limits and the other slices by check
	last     int

	fromPart, toPart int  // range in Request.parts; empty: it is one part itself
	byFirst          bool // a limit on all requests applies, which the first descriptor charges
}

// Reset makes r empty. It drops all references to the request's text and to rules.
func (r *Request) Reset() {
	clear(r.Descriptors)
	clear(r.parts)
	clear(r.Entries)
	clear(r.limits)
	for i := range r.ask.Checks { // addCheck writes the other fields
		r.ask.Checks[i].Key, r.ask.Checks[i].Limit = nil, nil
	}
	clear(r.replaced)
	r.Descriptors, r.Entries, r.limits = r.Descriptors[:0], r.Entries[:0], r.limits[:0]
	r.ask.Checks, r.replaced, r.parts = r.ask.Checks[:0], r.replaced[:0], r.parts[:0]
	r.ask.AllOrNothing, r.givesBack, r.marked = false, false, false
	r.keys, r.decisions = r.keys[:0], r.decisions[:0]
	r.Domain, r.Hits, r.Verdict = "", 0, Verdict{}
}

// AddDescriptor appends a descriptor with these entries and returns it. The pointer is
// valid until the next one is added.
func (r *Request) AddDescriptor(entries ...descriptor.Entry) *Descriptor {
	r.Descriptors = extend(r.Descriptors)
	d := &r.Descriptors[len(r.Descriptors)-1]
	d.From = len(r.Entries)
	r.Entries = append(r.Entries, entries...)
	d.To = len(r.Entries)
	return d
}

// DropDescriptor removes the last descriptor with its entries.
func (r *Request) DropDescriptor() {
	last := len(r.Descriptors) - 1
	r.Entries = r.Entries[:r.Descriptors[last].From]
	r.Descriptors[last] = Descriptor{}
	r.Descriptors = r.Descriptors[:last]
}

// extend appends an element to one of the slices of a Request. It is zero if Reset
// clears the elements of the slice.
func extend[T any](s []T) []T {
	if len(s) < cap(s) {
		return s[:len(s)+1]
	}
	var zero T
	return append(s, zero)
}

// entriesOf returns the descriptor's entries.
func (r *Request) entriesOf(d *Descriptor) []descriptor.Entry { return r.Entries[d.From:d.To] }

// partsOf returns the parts of a descriptor, of which each rule has one.
func (r *Request) partsOf(i int) []Descriptor {
	if d := &r.Descriptors[i]; d.fromPart < d.toPart {
		return r.parts[d.fromPart:d.toPart]
	}
	return r.Descriptors[i : i+1]
}

// match finds the rules of the request's descriptors and adds the checks that they ask
// for.
func (l *Limiter) match(r *Request, rules *ruleset, domain *descriptor.Domain) error {
	for i := range r.Descriptors {
		d := &r.Descriptors[i]
		d.cost = r.costOf(d)
		if l.opts.QuotaMode {
			d.role = backend.Quota
		}
		entries := r.entriesOf(d)
		if match := domain.Lookup(entries); match != nil {
			d.match, d.rule = match, &rules.rules[match.Index]
			d.role, d.stats = d.rule.role, l.statsOf(r, d.rule, entries)
		}
		if d.Override != nil {
			if err := l.override(r, i, domain); err != nil {
				return err
			}
		}
		if d.rule != nil {
			r.replaced = append(r.replaced, d.rule.replaces...)
		}
		if domain.HasSets() {
			if err := l.matchSets(r, i, rules, domain); err != nil {
				return fmt.Errorf("descriptors[%d]: %w", i, err)
			}
		}
	}
	for i := range r.Descriptors {
		r.addChecks(i, domain)
		const _ = uint(backend.MaxChecks - config.MaxLimits) // a rule on its own can be decided
		if len(r.ask.Checks) > backend.MaxChecks {
			return fmt.Errorf("descriptors[%d]: the descriptors up to this one meet more than %d limits, the most for a request: send fewer descriptors, or write fewer rate_limits on their rules", i, backend.MaxChecks)
		}
	}
	together := domain.Consume() == config.AllOrNothing
	if whole := together || l.opts.DropRefused; whole && !(l.opts.QuotaMode && r.hasFreeQuota()) {
		r.ask.AllOrNothing = together || !l.opts.Spread
		r.givesBack = !r.ask.AllOrNothing && !r.settles()
	}
	r.decisions = slices.Grow(r.decisions, len(r.limits))[:len(r.limits)]
	return nil
}

// matchSets finds the rules on sets of entries that apply to the i-th descriptor, and
// makes parts of it.
func (l *Limiter) matchSets(r *Request, i int, rules *ruleset, domain *descriptor.Domain) (err error) {
	d := &r.Descriptors[i]
	entries := r.entriesOf(d)
	if r.sets, r.found, err = domain.LookupSets(r.sets[:0], r.found, entries, i == 0); err != nil || len(r.sets) == 0 {
		d.byFirst = len(r.found) > 0
		return err
	}
	d.fromPart = len(r.parts)
	if d.rule != nil || d.override != nil {
		r.parts = append(r.parts, *d)
	}
	for _, match := range r.sets {
		rule := &rules.rules[match.Index]
		r.parts = append(r.parts, Descriptor{
			From: d.From, To: d.To, cost: d.cost, match: match, rule: rule, role: rule.role, stats: l.statsOf(r, rule, entries),
			hold: match.HoldOf(entries),
		})
		r.replaced = append(r.replaced, rule.replaces...)
	}
	d.toPart = len(r.parts)
	clear(r.sets) // a used request holds on to no rules
	return nil
}

// statsOf returns where a rule counts a descriptor with these entries.
func (l *Limiter) statsOf(r *Request, rule *rule, entries []descriptor.Entry) *stats.Rule {
	match := rule.match
	if !match.Detailed {
		return rule.stats
	}
	r.path = match.AppendMetricKey(r.path[:0], entries)
	return l.opts.Stats.Detailed(match.Domain, r.path, rule.stats, func() (first, second string) { return match.MetricLevels(entries) })
}

// hasFreeQuota reports whether there is a quota without a limit in force, which with
// quota mode for all descriptors always passes: then so does the request.
func (r *Request) hasFreeQuota() bool {
	for i := range r.Descriptors {
		limited, unlimited, quota := false, false, false
		for _, p := range r.partsOf(i) {
			limited = limited || slices.ContainsFunc(r.limits[p.first:p.last], func(l *Limit) bool { return !l.candidate })
			unlimited = unlimited || p.unlimited()
			quota = quota || p.role == backend.Quota
		}
		if quota && !limited && !unlimited {
			return true
		}
	}
	return false
}

// unlimited reports whether the descriptor's rule lets everything pass.
func (d *Descriptor) unlimited() bool { return d.rule != nil && d.rule.unlimited }

// addChecks adds the checks of the i-th descriptor. Quotas beside limits that are
// required are decided as a descriptor of their own: that one is used up, and another
// takes its place, does not keep the others from being charged.
func (r *Request) addChecks(i int, domain *descriptor.Domain) {
	parts := r.partsOf(i)
	d := &r.Descriptors[i]
	d.first = len(r.limits)
	quotas, others := 0, 0
	for p := range parts {
		switch parts[p].role {
		case backend.Quota:
			quotas++
		case backend.Required:
			others++
		}
	}
	if quotas == 0 || others == 0 {
		for p := range parts {
			r.addPart(i, &parts[p], domain)
		}
	} else {
		for _, quota := range [...]bool{false, true} {
			for p := range parts {
				if (parts[p].role == backend.Quota) == quota {
					group := i
					if quota {
						group += len(r.Descriptors)
					}
					r.addPart(group, &parts[p], domain)
				}
			}
		}
	}
	d.last = len(r.limits)
	if len(parts) > 1 && d.last-d.first > 1 {
		for c := range r.ask.Checks[d.first:d.last] {
			r.ask.Checks[d.first+c].Lease = 0 // it has no effect among other limits
		}
	}
}

// addPart adds the checks of a part of a descriptor, under the number that those have
// which are decided together with it.
func (r *Request) addPart(i int, d *Descriptor, domain *descriptor.Domain) {
	d.first = len(r.limits)
	switch from := len(r.keys); {
	case d.override != nil:
		r.keys = domain.AppendOverrideKey(r.keys, d.match, r.entriesOf(d), d.override.Algo)
		r.addCheck(i, d, d.override, from, domain)
	case d.rule != nil:
		for at := range d.rule.limits {
			l := &d.rule.limits[at]
			if l.Name != "" && slices.Contains(r.replaced, l.Name) {
				continue
			}
			from, entries := len(r.keys), r.entriesOf(d)
			r.keys = d.rule.match.AppendKey(r.keys, entries, l.index)
			r.addCheck(i, d, l.of(entries), from, domain)
		}
	}
	d.last = len(r.limits)
}

// addCheck adds a check whose key is what r.keys holds from there on. When r.keys moves to
// more memory, the key stays in the old one, which nothing writes any more.
func (r *Request) addCheck(i int, d *Descriptor, l *Limit, from int, domain *descriptor.Domain) {
	r.limits = append(r.limits, l)
	r.marked = r.marked || len(l.RequestHeaders) > 0
	r.ask.Checks = extend(r.ask.Checks)
	c := &r.ask.Checks[len(r.ask.Checks)-1] // may be a used one: each field is written
	c.Key = r.keys[from:len(r.keys):len(r.keys)]
	c.Shard, c.Joint = domain.Shard(c.Key), domain.Consume() == config.AllOrNothing
	c.Lease, c.Limit, c.Hits, c.Descriptor, c.Role, c.Hold = l.lease, l.Algo, d.cost, i, d.role, d.hold
	if l.candidate {
		c.Role = backend.Shadow
	}
}

// costOf returns the cost of a descriptor: its own hits_addend if it has one, even 0,
// else the request's, where 0 is absent and means 1.
func (r *Request) costOf(d *Descriptor) int64 {
	n := int64(max(r.Hits, 1))
	if d.HasHits {
		n = int64(min(d.Hits, math.MaxInt64))
	}
	if d.Negative {
		n = -n
	}
	return n
}

// countHottest counts the request's counters, with the given weight, among the hottest
// of their rules.
func (r *Request) countHottest(weight int64, now time.Time) {
	for i := range r.Descriptors {
		parts := r.partsOf(i)
		for p := range parts {
			if d := &parts[p]; d.rule != nil && d.first < d.last {
				d.rule.stats.CountKey(r.ask.Checks[d.first].Key, weight, now)
			}
		}
	}
}
