// Package redis owns the backend that keeps counters in Redis, so that any
// number of replicas of this service share them: how counters are named and
// packed there, the script that decides in one atomic step, and what happens
// when Redis is slow or gone. The algorithms are algo's; their Lua follows them
// line by line, and only decides what is charged: every field of an answer is
// computed by algo, from the state that the script returns.
//
// What to answer when Decide fails is left to the caller.
package redis

import (
	"context"
	"crypto/sha1" //nolint:gosec // see New
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
	"github.com/distlimiter/ratelimit/internal/backend/redis/lease"
	"github.com/distlimiter/ratelimit/internal/backend/redis/refusals"
)

// Errors that Decide returns, to be tested with errors.Is.
var (
	// ErrUnavailable: Redis does not answer in time, cannot be reached, is loading or
	// failing over, or is not called for a while because of that.
	ErrUnavailable = errors.New("redis is unavailable")
	// ErrSuspended is an ErrUnavailable: Redis was not called at all, because several
	// calls in a row have failed.
	ErrSuspended = fmt.Errorf("%w: calls are suspended for a moment, after several in a row failed", ErrUnavailable)
	// ErrRefused: Redis answers with an error. It is out of memory, for example, or its
	// user may not do this.
	ErrRefused = errors.New("redis refused")
	// ErrReply: the answer makes no sense.
	ErrReply = errors.New("redis sent an unexpected reply")
	// ErrSpread: counters of the request must be decided together, but have different
	// hash tags, or live in different slots of a cluster. See backend.Check.Shard.
	ErrSpread = errors.New("counters that are decided together live in different slots")
	// ErrTooMany: the request has more checks than one call takes.
	ErrTooMany = errors.New("too many checks in one request")
)

var (
	errTimeout = fmt.Errorf("%w: no answer in time", ErrUnavailable)
	errTooLate = fmt.Errorf("%w: the caller's deadline leaves no time to ask", ErrUnavailable)
	// errUpstream: a proxy that shards does not reach the server of a key. The proxy
	// itself answers, and its other servers may be well.
	errUpstream = fmt.Errorf("%w: the proxy cannot reach a server behind it", ErrUnavailable)
	// errLogin: the server takes connections, but not from this service.
	errLogin = fmt.Errorf("%w: it refuses the connection", ErrUnavailable)
	// errNotYet: there has been no connection yet.
	errNotYet = fmt.Errorf("%w: not connected yet", ErrUnavailable)
)

// maxChecks bounds one call, during which Redis does nothing else.
const maxChecks = backend.MaxChecks

// Backend decides in Redis. It is safe for concurrent use.
type Backend struct {
	opts     Options
	naming   keys.Naming
	script   string
	sha      string        // of the script, as EVALSHA takes it
	teaching chan struct{} // full while a call sends the script
	conn     *connector
	breakers *breakers
	lanes    *lanes
	refusals *refusals.Memory // nil when none are remembered
	leases   *lease.Leases
	metrics  *metrics

	evictions evictions
	ahead     atomic.Int64 // how far Redis' clock is: see theirClock

	stop    context.CancelFunc
	stopped sync.WaitGroup
}

var (
	_ backend.Backend        = (*Backend)(nil)
	_ backend.Resetter       = (*Backend)(nil)
	_ backend.HealthReporter = (*Backend)(nil)
)

// New returns a backend that connects in the background; until it has, and
// whenever Redis is gone, Decide fails at once with ErrUnavailable. The error
// says what is wrong with the options.
func New(opts Options) (*Backend, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	conn, err := newConnector(&opts)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	script := composeScript()
	sum := sha1.Sum([]byte(script)) //nolint:gosec // it is what Redis calls a script by
	b := &Backend{
		opts:     opts,
		naming:   keys.Naming{Prefix: opts.Prefix, Tagged: opts.Mode.Spreads(), Plain: opts.PlainKeys},
		script:   script,
		sha:      hex.EncodeToString(sum[:]),
		teaching: make(chan struct{}, 1),
		conn:     conn,
		refusals: refusals.New(opts.LocalCacheBytes, opts.Clock),
		leases:   lease.New(opts.Replicas),
		metrics:  newMetrics(),
	}
	b.breakers = newBreakers(&opts, b.trial)
	b.lanes = newLanes(b.call)
	b.lanes.apart = opts.NoCombining
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.stopped.Go(func() { b.returnLeases(ctx) })
	if opts.Mode != Proxy { // which need not know INFO, and may close the connection for it
		b.stopped.Go(func() { b.watchEvictions(ctx) })
	}
	return b, nil
}

// Close gives back what is held ahead, within the timeout, and drops all
// connections. No Decide may be under way or follow.
func (b *Backend) Close() {
	b.stop()
	b.stopped.Wait()
	b.breakers.close()
	b.conn.close()
	b.lanes.close()
}

// Ready waits for the first connection. The error says why there is none when
// ctx is done.
func (b *Backend) Ready(ctx context.Context) error {
	select {
	case <-b.conn.ready:
		return nil
	case <-ctx.Done():
		_, err := b.conn.current()
		return err
	}
}

// Decide implements [backend.Backend]. It returns in time for the deadline of ctx,
// and within the timeout if there is one; see [Options.Timeout]. A request that its
// caller does not wait for any longer may be charged all the same.
func (b *Backend) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch n := len(req.Checks); {
	case n == 0:
		return nil
	case n > maxChecks:
		return fmt.Errorf("%w: %d of at most %d", ErrTooMany, n, maxChecks)
	}
	now := time.Now()
	until, inTime := b.opts.until(ctx, now)
	o := newOp(req.Checks, req.AllOrNothing, out, now, until)
	defer o.release()
	if b.spend(o, o.began) {
		b.metrics.leased.Inc()
		return nil
	}
	b.forgetRefunded(o)
	if b.refusals.Answer(o.checks, o.ids, out, o.began) {
		b.metrics.refused.Inc()
		return nil
	}
	o.epochs = b.refusals.Epochs(o.epochs, o.ids)
	if !inTime {
		return errTooLate
	}
	var err error
	switch {
	case b.breakers.allOpen():
		b.metrics.suspended.Inc()
		err = ErrSuspended
	case b.opts.Mode.Spreads() && len(o.checks) > 1:
		err = b.spread(o)
	default:
		err = b.lanes.do(o, b.naming.Slot(&o.checks[0], o.ids[0]))
	}
	b.breakers.count(err)
	return err
}

// forgetRefunded forgets what is known of counters that hits are given back to.
func (b *Backend) forgetRefunded(o *op) {
	for i := range o.checks {
		if o.checks[i].GivesBack() {
			b.forget(o.ids[i])
		}
	}
}

func (b *Backend) forget(of keys.ID) {
	b.leases.Expire(of)
	b.refusals.Forget(of)
}

// Reset implements [backend.Resetter].
func (b *Backend) Reset(ctx context.Context, check backend.Check) (used bool, err error) {
	client, err := b.conn.current()
	if err != nil {
		return false, err
	}
	of := keys.IDOf(check.Key)
	forget := func() {
		b.forget(of)
		b.leases.Forget(of)
	}
	forget()
	defer forget()
	ctx, cancel := context.WithTimeout(ctx, b.opts.bound())
	defer cancel()
	key := string(b.naming.Append(nil, &check, of))
	n, err := client.Do(ctx, client.B().Del().Key(key).Build()).AsInt64()
	if err != nil {
		return false, b.failed(err)
	}
	return n > 0, nil
}
