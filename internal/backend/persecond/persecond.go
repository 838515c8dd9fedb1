// Package persecond owns which of two stores holds a counter: limits per second
// are many short-lived counters, which operators may keep out of the store of the
// others. Deciding is left to the two stores.
package persecond

import (
	"context"
	"errors"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// Backend decides limits of one second in Seconds and all others in Others. A
// counter that is decided together with others (see backend.Check.Shard) is
// always in Others, for no step is atomic over two stores.
type Backend struct {
	Seconds, Others backend.Backend
}

var _ backend.Backend = (*Backend)(nil)

// Of returns the store that holds the check's counter.
func (b *Backend) Of(c *backend.Check) backend.Backend {
	if c.Shard == 0 && c.Limit.Params().Window == time.Second {
		return b.Seconds
	}
	return b.Others
}

// Decide implements backend.Backend. A request with counters in both stores asks
// both at once; its error is that of either.
func (b *Backend) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	seconds := 0
	for i := range req.Checks {
		if b.Of(&req.Checks[i]) == b.Seconds {
			seconds++
		}
	}
	switch seconds {
	case 0:
		return b.Others.Decide(ctx, req, out)
	case len(req.Checks):
		return b.Seconds.Decide(ctx, req, out)
	}
	short, long := b.part(req, b.Seconds, seconds), b.part(req, b.Others, len(req.Checks)-seconds)
	failed := make(chan error, 1)
	go func() { failed <- b.Seconds.Decide(ctx, &short.req, short.out) }()
	err := b.Others.Decide(ctx, &long.req, long.out)
	if err := errors.Join(err, <-failed); err != nil {
		return err
	}
	short.copyTo(out)
	long.copyTo(out)
	req.Remembered = short.req.Remembered && long.req.Remembered
	return nil
}

// part is what one store decides of a request.
type part struct {
	req backend.Request
	at  []int // where the checks are in the request
	out []algo.Decision
}

func (b *Backend) part(req *backend.Request, in backend.Backend, n int) *part {
	p := &part{at: make([]int, 0, n), out: make([]algo.Decision, n)}
	p.req.Checks = make([]backend.Check, 0, n)
	for i := range req.Checks {
		if b.Of(&req.Checks[i]) == in {
			p.req.Checks, p.at = append(p.req.Checks, req.Checks[i]), append(p.at, i)
		}
	}
	return p
}

func (p *part) copyTo(out []algo.Decision) {
	for i, at := range p.at {
		out[at] = p.out[i]
	}
}
