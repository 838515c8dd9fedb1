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
// in Others, because no step is atomic over two stores. A descriptor may have limits
// in both: see [backend.DecideParts].
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
	p := c.Limit.Params()
	if !c.Joint && p.Window == time.Second && !p.Algorithm.AlwaysHolds() { // whose window is how long it holds
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
	return backend.DecideParts(req.Checks, parts, out, func(p *backend.Part) error {
		return b.Of(&p.Checks[0]).Decide(ctx, &p.Request, p.Out)
	})
}
