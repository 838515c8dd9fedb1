package limiter

import (
	"context"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// Counter is the counter of one limit that applies to a descriptor.
type Counter struct {
	Rule *descriptor.Rule
	// Check asks the backend for it without charging.
	Check backend.Check
	Limit *config.Limit
	// Decision is how it stands: whether one hit would pass now, and the rest.
	Decision algo.Decision
}

// Look returns the rule of the tree that applies to a descriptor, nil if none does, and
// the state of its counters and of those of the rules on sets of entries that apply. It
// charges and counts nothing.
func (l *Limiter) Look(ctx context.Context, domain string, entries []descriptor.Entry) (*descriptor.Rule, []Counter, error) {
	match, r, err := l.applying(domain, entries)
	if err != nil || r == nil {
		return nil, nil, err
	}
	r.decisions = make([]algo.Decision, len(r.limits))
	if len(r.ask.Checks) > 0 {
		if err := l.opts.Backend.Decide(ctx, &r.ask, r.decisions); err != nil {
			return match, nil, err
		}
	}
	if err := l.lookAhead(ctx, r); err != nil {
		return match, nil, err
	}
	counters := make([]Counter, len(r.limits))
	for i := range r.limits {
		counters[i] = r.counter(i, r.decisions[i])
	}
	return match, counters, nil
}

// applying returns the rule of the tree that applies to a descriptor, and a request with
// checks that look at all counters that the descriptor has; nil without the domain.
func (l *Limiter) applying(domain string, entries []descriptor.Entry) (*descriptor.Rule, *Request, error) {
	rules := l.rules.Load()
	if rules == nil {
		return nil, nil, ErrNoRules
	}
	d := rules.matcher.Domain(domain)
	if d == nil {
		return nil, nil, nil
	}
	match := d.Lookup(entries)
	entries = d.Requests(entries)
	r := &Request{Entries: entries, Descriptors: []Descriptor{{To: len(entries)}}}
	if match != nil {
		r.Descriptors[0].rule = &rules.rules[match.Index]
	}
	if d.HasSets() {
		if err := l.matchSets(r, 0, rules, d); err != nil {
			return nil, nil, err
		}
	}
	r.addChecks(0, d)
	for i := range r.ask.Checks { // to look settles nothing
		r.ask.Checks[i].Hold.Settles = false
	}
	return match, r, nil
}

// Shared returns checks that look at the counters of a rule on sets of entries that has
// one for all descriptors, because it counts by no key. None if the rule is in force no
// more.
func (l *Limiter) Shared(of *descriptor.Rule) []backend.Check {
	rules := l.rules.Load()
	if rules == nil || of.Index >= len(rules.rules) || rules.rules[of.Index].match != of {
		return nil
	}
	r := &Request{}
	r.addPart(0, &Descriptor{rule: &rules.rules[of.Index], match: of}, rules.matcher.Domain(of.Domain))
	return r.ask.Checks
}

// counter returns the counter of the i-th check, as the decision on it says.
func (r *Request) counter(i int, d algo.Decision) Counter {
	rule := r.partAt(i).rule.match
	applies, _, _ := rule.Config.Limits[r.limits[i].index].For(r.Entries)
	return Counter{Rule: rule, Check: r.ask.Checks[i], Limit: applies, Decision: d}
}

// lookAhead looks again at counters that are just used up under limits that count
// refused hits. A look passes there, as envoyproxy/ratelimit has it, though no hit
// would; to a limit that drops them it does not.
func (l *Limiter) lookAhead(ctx context.Context, r *Request) error {
	var ask backend.Request
	var places []int
	for i, d := range r.decisions {
		if !d.Allowed || d.Remaining > 0 {
			continue
		}
		p := r.limits[i].Algo.Params()
		p.DeniedHits = algo.Drop
		dropping, err := algo.New(p)
		if err != nil {
			return err
		}
		c := r.ask.Checks[i]
		c.Limit = dropping
		ask.Checks, places = append(ask.Checks, c), append(places, i)
	}
	if places == nil {
		return nil
	}
	out := make([]algo.Decision, len(places))
	if err := l.opts.Backend.Decide(ctx, &ask, out); err != nil {
		return err
	}
	for i, at := range places {
		r.decisions[at] = out[i]
	}
	return nil
}
