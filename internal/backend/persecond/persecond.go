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

var _ backend.Backend = (*Backend)(nil)

// Of returns the store that holds the check's counter.
func (b *Backend) Of(c *backend.Check) backend.Backend {
	if !c.Joint && c.Limit.Params().Window == time.Second {
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
	if err := errors.Join(b.both(ctx, short, long)...); err != nil {
		return err
	}
	short.copyTo(out)
	long.copyTo(out)
	req.Remembered = short.req.Remembered && long.req.Remembered
	b.settle(ctx, req, out, short, long)
	return nil
}

// both has each store decide its part at once.
func (b *Backend) both(ctx context.Context, short, long *part) []error {
	failed := make(chan error, 1)
	go func() { failed <- b.Seconds.Decide(ctx, &short.req, short.out) }()
	err := b.Others.Decide(ctx, &long.req, long.out)
	return []error{err, <-failed}
}

// settle makes up for what the stores could not know of each other: a part of a
// descriptor that passed is given back when the other part did not, and one that
// was refused for a limit in shadow mode alone is charged. An error leaves charged
// what was to be given back, which at worst refuses.
func (b *Backend) settle(ctx context.Context, req *backend.Request, out []algo.Decision, parts ...*part) {
	for _, p := range parts {
		amends := &part{}
		for from, to := range backend.Descriptors(p.req.Checks) {
			start, end := descriptorAt(req.Checks, p.at[from])
			passes := backend.Passes(req.Checks[start:end], out[start:end])
			if passed := backend.Passes(p.req.Checks[from:to], p.out[from:to]); passed == passes {
				continue
			}
			for i := from; i < to; i++ {
				c := p.req.Checks[i]
				if !p.out[i].Allowed || c.Hits <= 0 || c.Limit.DeniedHits() == algo.Count {
					continue // charged as part of a denied call, or not to be
				}
				if !passes {
					c.Hits = -c.Hits
				}
				amends.req.Checks, amends.at = append(amends.req.Checks, c), append(amends.at, p.at[i])
			}
		}
		if len(amends.at) == 0 {
			continue
		}
		amends.out = make([]algo.Decision, len(amends.at))
		if err := b.Of(&amends.req.Checks[0]).Decide(ctx, &amends.req, amends.out); err != nil {
			continue
		}
		for i := range amends.out {
			amends.out[i].Allowed, amends.out[i].RetryAfter = true, 0 // as was found first
		}
		amends.copyTo(out)
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
