package limiter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
)

// mostGivingBack is how many requests give back what they were charged at once,
// beside their answers. The charges of further ones stay, which at worst refuses.
const mostGivingBack = 1024

// BackendError is the error of a request for which the backend failed, if on_backend_error
// of its limits asks for an error.
type BackendError struct{ Err error }

// Error implements error.
func (e *BackendError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *BackendError) Unwrap() error { return e.Err }

// outage is what became of a request for which the backend failed, in part or whole.
type outage struct {
	stored backend.Part // what the backend decided all the same
	local  backend.Part // what Options.Local decided in its place
	err    error        // the answer, unless the request is refused; nil if nothing enforced asks for one
}

// decideWithout decides the checks that the backend failed to decide, each as its
// limit asks. The others stand as decided.
func (l *Limiter) decideWithout(ctx context.Context, r *Request, cause error) *outage {
	l.opts.Stats.BackendErrors.Add(1)
	l.opts.Log.Debug("the backend did not decide", zap.Error(cause)) // it says itself when it goes and comes back
	out := new(outage)
	// fail leaves a check without a decision. Nothing is refused for it, and a
	// rehearsal fails nobody.
	fail := func(i int, err error) {
		r.decisions[i] = algo.Decision{Allowed: true, Remaining: r.limits[i].Algo.Capacity()}
		if r.ask.Checks[i].Role != backend.Shadow && !l.opts.ShadowMode {
			out.err = err
		}
	}
	var failed *Descriptor // the last part that was counted as failed
	for i, limit := range r.limits {
		c := r.ask.Checks[i]
		err := backend.ErrorOf(cause, i)
		if err == nil {
			out.stored.Add(i, c)
			out.stored.Out[len(out.stored.Out)-1] = r.decisions[i]
			continue
		}
		if part := r.partAt(i); part != failed {
			failed = part
			part.stats.Fail()
		}
		switch {
		case ctx.Err() != nil: // the client has left: nobody waits for a decision
			fail(i, ctx.Err())
		case limit.onError == config.BackendErrorAllow:
			r.decisions[i] = algo.Decision{Allowed: true, Remaining: limit.Algo.Capacity()}
		case limit.onError == config.BackendErrorDeny:
			r.decisions[i] = algo.Decision{ResetAfter: time.Second, RetryAfter: time.Second}
		case limit.onError == config.BackendErrorLocal:
			c.Limit = limit.local
			out.local.Add(i, c)
		default:
			fail(i, &BackendError{fmt.Errorf("the rate limit backend did not decide: %w", err)})
		}
	}
	if whole := r.ask.AllOrNothing || r.givesBack; whole {
		// One step, if all of it is in one place.
		r.ask.AllOrNothing = len(out.local.At) == len(r.limits)
		r.givesBack = !r.ask.AllOrNothing
		out.local.AllOrNothing = r.ask.AllOrNothing
	}
	if len(out.local.At) == 0 {
		return out
	}
	if err := l.opts.Local.Decide(ctx, &out.local.Request, out.local.Out); err != nil {
		for _, at := range out.local.At {
			fail(at, &BackendError{fmt.Errorf("neither the rate limit backend nor its local fallback decided: %w", errors.Join(cause, err))})
		}
		out.local = backend.Part{}
	}
	out.local.Report(nil, r.decisions, nil)
	return out
}

// settleOutage returns the error that answers the judged request, nil if the
// judgement does: a refusal outweighs an error, which outweighs OK. What the request
// was charged by those that did decide and should not have been goes back, to the
// backend beside the answer, for which the caller may have no more time. The request
// began that long ago.
func (l *Limiter) settleOutage(r *Request, failed *outage, ago time.Duration) error {
	err := failed.err
	if r.refused {
		err = nil
	}
	whole := r.refused && r.givesBack
	if back := r.undue(&failed.local, err != nil, whole, ago); back != nil {
		if err := l.opts.Local.Decide(context.Background(), &back.Request, back.Out); err != nil {
			l.failures.Warn("the local stand-in of the backend did not take back what a request was charged", zap.Error(err))
		}
	}
	if back := r.undue(&failed.stored, err != nil, whole, ago); back != nil {
		l.giveBackLater(back)
	}
	return err
}

// partAt returns the part of a descriptor that the i-th check is of.
func (r *Request) partAt(i int) *Descriptor {
	parts := r.partsOf(r.ask.Checks[i].Descriptor % len(r.Descriptors))
	for p := range parts {
		if parts[p].first <= i && i < parts[p].last {
			return &parts[p]
		}
	}
	return &parts[0]
}

// undue returns what gives back the hits that a part of the request was charged and
// should not have been, nil for none: all of them when it is answered with an error;
// when it is refused as a whole, those that are not to be counted; and otherwise such
// of descriptors that do not pass, because another part refused. Hits that have left
// with their window meanwhile are not among them: they would be taken from the next.
func (r *Request) undue(p *backend.Part, failed, whole bool, ago time.Duration) (back *backend.Part) {
	for from, to := range backend.Descriptors(p.Checks) {
		passed := backend.Passes(p.Checks[from:to], p.Out[from:to])
		passes := r.charged(r.partAt(p.At[from]))
		for i := from; i < to; i++ {
			c := p.Checks[i]
			counts := c.Limit.DeniedHits() == algo.Count
			charged := c.Hits > 0 && !c.Hold.Settles && (counts || passed && p.Out[i].Allowed)
			gone := c.Limit.ResetsAtOnce() && ago >= p.Out[i].ResetAfter
			if !charged || gone || !failed && (counts || passes && !whole) {
				continue
			}
			if back == nil {
				back = new(backend.Part)
			}
			c.Key = slices.Clone(c.Key) // the request's own are used again
			c.Undo(passed && p.Out[i].Allowed)
			back.Add(p.At[i], c)
		}
	}
	return back
}

// giveBack gives back what a request that is refused as a whole was charged, and
// writes to the decisions what is left then. Where that fails the charges stay.
func (l *Limiter) giveBack(ctx context.Context, r *Request) {
	all := backend.Part{Request: backend.Request{Checks: r.ask.Checks}, Out: r.decisions}
	for i := range r.decisions {
		all.At = append(all.At, i)
	}
	back := r.undue(&all, false, true, 0)
	if back == nil {
		return
	}
	if err := l.opts.Backend.Decide(ctx, &back.Request, back.Out); err != nil {
		l.opts.Stats.BackendErrors.Add(1)
		l.failures.Warn("the backend did not take back what a refused request was charged", zap.Error(err))
		r.givesBack = false // what was charged counts
		return
	}
	back.Report(nil, r.decisions, nil)
}

// giveBackLater gives back to the backend without holding up the answer.
func (l *Limiter) giveBackLater(back *backend.Part) {
	if l.givingBack.Add(1) > mostGivingBack {
		l.givingBack.Add(-1)
		return
	}
	l.gaveBack.Go(func() {
		defer l.givingBack.Add(-1)
		if err := l.opts.Backend.Decide(context.Background(), &back.Request, back.Out); err != nil {
			l.opts.Log.Debug("the backend did not take back what a request was charged that it decided in part", zap.Error(err))
		}
	})
}
