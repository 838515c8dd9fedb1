package server

import (
	"context"
	"errors"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// ErrNoRules is returned before SetRules.
var ErrNoRules = errors.New("no rate limit configuration loaded")

// Counter is the counter of one limit that applies to a descriptor.
type Counter struct {
	// Check asks the backend for it without charging.
	Check backend.Check
	Limit *config.Limit
	// Decision is how it stands: whether one hit would pass now, and the rest.
	Decision algo.Decision
}

// Look returns the rule that applies to a descriptor, nil if none does, and the
// state of its counters. It charges and counts nothing.
func (s *Service) Look(ctx context.Context, domain string, entries []descriptor.Entry) (*descriptor.Rule, []Counter, error) {
	rules := s.rules.Load()
	if rules == nil {
		return nil, nil, ErrNoRules
	}
	d := rules.matcher.Domain(domain)
	if d == nil {
		return nil, nil, nil
	}
	match := d.Lookup(entries)
	if match == nil {
		return nil, nil, nil
	}
	r := &request{entries: entries, descriptors: []matched{{match: match, rule: &rules.rules[match.Index], entries: [2]int{0, len(entries)}}}}
	r.check(0, d)
	r.settle(d)
	if len(r.ask.Checks) > 0 {
		if err := s.opts.Backend.Decide(ctx, &r.ask, r.decisions); err != nil {
			return match, nil, err
		}
	}
	counters := make([]Counter, len(r.limits))
	for i, l := range r.limits {
		counters[i] = Counter{Check: r.ask.Checks[i], Limit: match.Config.Limits[l.index], Decision: r.decisions[i]}
	}
	return match, counters, nil
}
