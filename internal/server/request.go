package server

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/grpc/mem"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// request is a request on its way from the wire to the answer. Its slices are
// reused.
type request struct {
	bounds *Bounds
	buffer mem.Buffer // what the strings below are parts of; nil: nothing of grpc-go's

	domain      string
	hits        uint32
	count       int // of descriptors, also of those beyond the bound
	descriptors []matched
	entries     []descriptor.Entry // of all descriptors

	keys      []byte // of all checks
	keyEnds   []int
	limits    []*limit // of the checks
	ask       backend.Request
	decisions []algo.Decision
	givesBack bool // what was charged if it is refused; otherwise the backend sees to it
	replaced  []string
	path      []byte
	sampler   stats.Sampler
}

// asked is what a request says of a descriptor.
type asked struct {
	count, bytes int // of entries, also of those beyond the bound
	hits         uint64
	limit        override
	hasHits      bool
	hasLimit     bool
	negative     bool
}

// matched is one descriptor of a request with what applies to it.
type matched struct {
	asked
	match    *descriptor.Rule // nil: no rule
	rule     *rule
	override *limit
	stats    *stats.Rule  // nil: nothing to count
	role     backend.Role // of its checks, candidates aside
	hits     int64
	entries  [2]int // range in request.entries
	first    int    // range in request.limits and what goes with it
	last     int
	verdict
}

// take returns an empty request.
func (s *Service) take() *request { return s.requests.Get().(*request) }

// release takes a request back.
func (s *Service) release(r *request) {
	r.clear()
	s.requests.Put(r)
}

// clear drops what would keep the message and the rules from being collected.
func (r *request) clear() {
	clear(r.descriptors)
	clear(r.entries)
	clear(r.limits)
	clear(r.ask.Checks)
	clear(r.replaced)
	r.descriptors, r.entries, r.limits = r.descriptors[:0], r.entries[:0], r.limits[:0]
	r.ask.Checks, r.replaced = r.ask.Checks[:0], r.replaced[:0]
	r.ask.Remembered, r.ask.AllOrNothing, r.givesBack = false, false, false
	r.keys, r.keyEnds, r.decisions = r.keys[:0], r.keyEnds[:0], r.decisions[:0]
	r.domain, r.hits, r.count = "", 0, 0
	if r.buffer != nil {
		r.buffer.Free()
		r.buffer = nil
	}
}

// check refuses requests that cannot be decided or are larger than they may be.
func (r *request) check() error {
	switch b := r.bounds; {
	case r.domain == "":
		return errors.New("rate limit domain must not be empty: set domain in Envoy's rate limit filter")
	case r.count == 0:
		return errors.New("rate limit descriptor list must not be empty: add rate_limits actions to the route or virtual host")
	case r.count > b.Descriptors:
		return fmt.Errorf("%d descriptors in a request: at most %d are accepted (see --max-descriptors)", r.count, b.Descriptors)
	}
	for i := range r.descriptors {
		switch d, b := &r.descriptors[i], r.bounds; {
		case d.count > b.Entries:
			return fmt.Errorf("descriptors[%d] has %d entries: at most %d are accepted (see --max-entries)", i, d.count, b.Entries)
		case d.bytes > b.EntryBytes:
			return fmt.Errorf("descriptors[%d] has keys and values of %d bytes: at most %d are accepted (see --max-entry-bytes)", i, d.bytes, b.EntryBytes)
		}
	}
	return nil
}

// match adds the checks that the request asks for.
func (s *Service) match(r *request, rules *ruleset, domain *descriptor.Domain) error {
	for i := range r.descriptors {
		m := &r.descriptors[i]
		m.hits = r.cost(&m.asked)
		if s.opts.QuotaMode {
			m.role = backend.Quota
		}
		entries := r.entries[m.entries[0]:m.entries[1]]
		if m.match = domain.Lookup(entries); m.match != nil {
			m.rule = &rules.rules[m.match.Index]
			m.role, m.stats = m.rule.role, m.rule.stats
			if m.rule.detailed {
				r.path = m.match.AppendMetricKey(r.path[:0], entries)
				m.stats = s.opts.Stats.Detailed(domain.Name(), r.path, m.stats, func() (first, second string) { return m.match.MetricLevels(entries) })
			}
		}
		if m.hasLimit {
			if err := s.override(r, i, domain); err != nil {
				return err
			}
		}
		if m.rule != nil {
			r.replaced = append(r.replaced, m.rule.replaces...)
		}
	}
	for i := range r.descriptors {
		r.addChecks(i, domain)
		const _ = uint(backend.MaxChecks - config.MaxLimits) // a rule on its own can be decided
		if len(r.ask.Checks) > backend.MaxChecks {
			return fmt.Errorf("descriptors[%d]: the limits of the descriptors up to here are more than %d, the most that a request may meet: send fewer descriptors, or write fewer rate_limits on their rules", i, backend.MaxChecks)
		}
	}
	s.settle(r, domain)
	return nil
}

// settle makes the request one for the backend when all its checks are there:
// only then do the keys stay where they are.
func (s *Service) settle(r *request, domain *descriptor.Domain) {
	together := domain.Consume() == config.AllOrNothing
	if whole := together || s.opts.DropRefused; whole && !(s.opts.QuotaMode && r.hasFreeQuota()) {
		r.ask.AllOrNothing = together || !s.opts.Spread
		r.givesBack = !r.ask.AllOrNothing
	}
	from := 0
	for i, end := range r.keyEnds {
		c := &r.ask.Checks[i]
		c.Key = r.keys[from:end:end]
		c.Shard, c.Joint = domain.Shard(c.Key), together
		from = end
	}
	r.decisions = slices.Grow(r.decisions, len(r.limits))[:len(r.limits)]
}

// hasFreeQuota reports whether there is a quota without a limit in force, which with
// quota mode for all descriptors always passes: then so does the request.
func (r *request) hasFreeQuota() bool {
	for i := range r.descriptors {
		d := &r.descriptors[i]
		limited := slices.ContainsFunc(r.limits[d.first:d.last], func(l *limit) bool { return !l.candidate })
		if d.role == backend.Quota && !limited && (d.rule == nil || !d.rule.unlimited) {
			return true
		}
	}
	return false
}

// addChecks adds the checks of the i-th descriptor.
func (r *request) addChecks(i int, domain *descriptor.Domain) {
	d := &r.descriptors[i]
	d.first = len(r.limits)
	entries := r.entries[d.entries[0]:d.entries[1]]
	switch {
	case d.override != nil:
		r.keys = domain.AppendOverrideKey(r.keys, entries, d.override.algo)
		r.add(i, d, d.override)
	case d.rule != nil:
		for at := range d.rule.limits {
			l := &d.rule.limits[at]
			if l.name != "" && slices.Contains(r.replaced, l.name) {
				continue
			}
			r.keys = d.match.AppendKey(r.keys, entries, l.index)
			r.add(i, d, l)
		}
	}
	d.last = len(r.limits)
}

func (r *request) add(i int, d *matched, l *limit) {
	r.keyEnds = append(r.keyEnds, len(r.keys))
	r.limits = append(r.limits, l)
	role := d.role
	if l.candidate {
		role = backend.Shadow
	}
	r.ask.Checks = append(r.ask.Checks, backend.Check{Limit: l.algo, Hits: d.hits, Lease: l.lease, Descriptor: i, Role: role})
}

// cost returns what the descriptor costs: its own hits_addend if it has one, even
// 0, else the request's, where 0 is absent and means 1.
func (r *request) cost(d *asked) int64 {
	n := int64(max(r.hits, 1))
	if d.hasHits {
		n = int64(min(d.hits, math.MaxInt64))
	}
	if d.negative {
		n = -n
	}
	return n
}
