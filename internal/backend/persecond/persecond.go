// Package persecond owns which of two stores holds a counter: limits per second
// are many short-lived counters, which operators may keep out of the store of the
// others. Deciding is left to the two stores.
package persecond

import (
	"context"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// Backend decides limits of one second in Seconds and all others in Others. The
// counters of a domain that is all or nothing (see backend.Check.Joint) are always
// in Others, for no step is atomic over two stores.
//
// A descriptor may have limits in both. Each store then decides its own in one
// step, and what one has charged is given back when the other refuses: for the
// time of that call other requests may be refused for it, but none is admitted
// that should not be.
type Backend struct {
	Seconds, Others backend.Backend
}

var (
	_ backend.Backend        = (*Backend)(nil)
	_ backend.Resetter       = (*Backend)(nil)
	_ backend.HealthReporter = (*Backend)(nil)
)

// Of returns the store that holds the check's counter.
func (b *Backend) Of(c *backend.Check) backend.Backend {
	if !c.Joint && c.Limit.Params().Window == time.Second {
		return b.Seconds
	}
	return b.Others
}

// Reset implements backend.Resetter: the store that holds the counter forgets it.
func (b *Backend) Reset(ctx context.Context, c backend.Check) (used bool, err error) {
	return backend.Reset(ctx, b.Of(&c), c)
}

// Healthy implements backend.HealthReporter: both stores are.
func (b *Backend) Healthy() bool { return backend.Healthy(b.Seconds) && backend.Healthy(b.Others) }

// Decide implements backend.Backend. A request with counters in both stores asks
// both at once. If one fails, what the other decided stands, and the error is a
// *backend.PartialError.
func (b *Backend) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	home, together := b.Others, true
	for i := range req.Checks {
		in := b.Of(&req.Checks[i])
		together = together && (i == 0 || in == home)
		home = in
	}
	if together {
		return home.Decide(ctx, req, out)
	}
	parts := backend.Split(req.Checks, func(i int) backend.Backend { return b.Of(&req.Checks[i]) })
	errs := backend.DecideParts(parts, out, func(p *backend.Part) error {
		return b.Of(&p.Checks[0]).Decide(ctx, &p.Request, p.Out)
	})
	b.settle(ctx, req, out, errs, parts)
	return backend.Failure(errs)
}

// settle makes up for what the stores could not know of each other: a part of a
// descriptor that passed is given back when the other part did not, and one that
// was refused for a limit in shadow mode alone is charged. An error leaves charged
// what was to be given back, which at worst refuses. Whether a descriptor passes
// that was decided in part is for the caller to say, who also makes up for it.
func (b *Backend) settle(ctx context.Context, req *backend.Request, out []algo.Decision, errs []error, parts []*backend.Part) {
	for _, p := range parts {
		amends := &backend.Part{}
		for from, to := range backend.Descriptors(p.Checks) {
			start, end := descriptorAt(req.Checks, p.At[from])
			if errs != nil && backend.Failure(errs[start:end]) != nil {
				continue
			}
			passes := backend.Passes(req.Checks[start:end], out[start:end])
			if passed := backend.Passes(p.Checks[from:to], p.Out[from:to]); passed == passes {
				continue
			}
			for i := from; i < to; i++ {
				c := p.Checks[i]
				if !p.Out[i].Allowed || c.Hits <= 0 || c.Limit.DeniedHits() == algo.Count {
					continue // charged as part of a denied call, or not to be
				}
				if !passes {
					c.Hits = -c.Hits
				}
				amends.Add(p.At[i], c)
			}
		}
		if len(amends.At) == 0 {
			continue
		}
		err := b.Of(&amends.Checks[0]).Decide(ctx, &amends.Request, amends.Out)
		for i, at := range amends.At {
			if backend.ErrorOf(err, i) == nil {
				out[at] = amends.Out[i]
				out[at].Allowed, out[at].RetryAfter = true, 0 // as was found first
			}
		}
	}
}

// descriptorAt returns the range of the checks of the descriptor of the i-th.
func descriptorAt(checks []backend.Check, i int) (start, end int) {
	for start = i; start > 0 && checks[start-1].Descriptor == checks[i].Descriptor; start-- {
	}
	for end = i + 1; end < len(checks) && checks[end].Descriptor == checks[i].Descriptor; end++ {
	}
	return start, end
}
