package limiter

import (
	"context"
	"fmt"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// Credited is a counter to which hits were given back.
type Credited struct {
	Counter         // with its present state
	GivenBack int64 // hits: at most those that were used
}

// Credit gives hits, above 0, back to those counters of a descriptor for which gets
// returns true. None gets more than was used of it: a counter holds no more than its
// limit. All hits are given back in one step, and no statistics count them. If no rule
// applies, Credit returns no counters.
func (l *Limiter) Credit(ctx context.Context, domain string, entries []descriptor.Entry, hits int64, gets func(*descriptor.Rule, *config.Limit) bool) ([]Credited, error) {
	_, r, err := l.applying(domain, entries)
	if err != nil || r == nil {
		return nil, err
	}
	var credited []Credited
	var ask backend.Request
	for i := range r.ask.Checks {
		c := r.counter(i, algo.Decision{})
		if !gets(c.Rule, c.Limit) {
			continue
		}
		// The same step looks at the used hits. Hits that replicas have leased are left to
		// those replicas, which give them back themselves. What requests hold is left to
		// them: a check of no request gives back what is used.
		look, give := c.Check, c.Check
		look.Hold, give.Hold = algo.Hold{}, algo.Hold{}
		look.Lease, look.Hits, look.Descriptor, look.Role = 0, 0, len(ask.Checks), backend.Required
		give.Lease, give.Hits, give.Descriptor, give.Role = 0, -hits, len(ask.Checks)+1, backend.Required
		ask.Checks = append(ask.Checks, look, give)
		credited = append(credited, Credited{Counter: c})
	}
	switch {
	case len(credited) == 0:
		return nil, nil
	case len(ask.Checks) > backend.MaxChecks:
		return nil, fmt.Errorf("%d limits apply, but at most %d can be credited in one step: select one", len(credited), backend.MaxChecks/2)
	}
	out := make([]algo.Decision, len(ask.Checks))
	if err := l.opts.Backend.Decide(ctx, &ask, out); err != nil {
		return nil, err
	}
	for i := range credited {
		before, after := out[2*i], out[2*i+1]
		credited[i].GivenBack, credited[i].Decision = max(after.Remaining-before.Remaining, 0), after
	}
	return credited, nil
}
