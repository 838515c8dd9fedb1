package limiter

import (
	"context"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// Release gives back what a request holds in the counter of a check, as if it had settled
// and cost nothing, and reports whether it held anything.
func (l *Limiter) Release(ctx context.Context, c backend.Check) (held bool, err error) {
	c.Hits, c.Hold.Settles = 0, true
	var out [1]algo.Decision
	err = l.opts.Backend.Decide(ctx, &backend.Request{Checks: []backend.Check{c}}, out[:])
	return out[0].Settled, err
}

// settles reports whether any of the request's checks settles. Such a request is over:
// nothing of it is given back.
func (r *Request) settles() bool {
	for i := range r.parts {
		if r.parts[i].hold.Settles {
			return true
		}
	}
	return false
}

// countHold counts what a part of a descriptor did to what is held under its rule, and
// returns how many of its hits count as used: those of a settlement, or of a request
// that is refused.
func (r *Request) countHold(d *Descriptor, hits int64, whole bool) int64 {
	if d.first == d.last {
		return hits
	}
	at := d.first
	for at+1 < d.last && r.limits[at].candidate { // a rehearsal grants nothing
		at++
	}
	x, c := &r.decisions[at], &r.ask.Checks[at]
	if c.Looks() {
		return hits
	}
	done := stats.Holds{Expired: uint64(x.Expired)}
	switch {
	case d.hold.Settles && x.Settled:
		done.Settled = 1
	case d.hold.Settles:
		done.Unheld = 1
	case c.Hits > 0 && x.Allowed && x.Held > 0 && !whole && r.charged(d):
		done.Granted = 1
	case c.Hits > 0 && !x.Allowed && x.Held >= algo.MaxHeld:
		done.Full = 1
	}
	d.rule.stats.Hold(done)
	always := c.Limit.Params().Algorithm.AlwaysHolds()
	if d.hold.Settles == always && d.passes { // what was reserved, or the end of what was counted when it began
		return 0
	}
	return hits
}
