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
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// Errors that Decide returns, to be tested with errors.Is.
var (
	// ErrUnavailable is that of a Redis that does not answer in time, cannot be
	// reached, is loading or failing over, or is not called for a while because of that.
	ErrUnavailable = errors.New("redis is unavailable")
	// ErrSuspended is an ErrUnavailable for which Redis was not called at all,
	// because several calls in a row have failed.
	ErrSuspended = fmt.Errorf("%w: calls are suspended for a moment, after several in a row failed", ErrUnavailable)
	// ErrRefused is that of a Redis that answers with an error, such as being
	// out of memory or that its user may not do this.
	ErrRefused = errors.New("redis refused")
	// ErrReply is that of an answer that makes no sense.
	ErrReply = errors.New("redis answered strangely")
	// ErrSpread is that of a request whose counters must be decided together,
	// but live in different slots of a cluster: see backend.Check.Shard.
	ErrSpread = errors.New("counters that are decided together live in different slots of the cluster")
	// ErrTooMany is that of a request with more checks than one call takes.
	ErrTooMany = errors.New("too many checks in one request")
)

var errTimeout = fmt.Errorf("%w: no answer in time", ErrUnavailable)

// maxChecks bounds one call, during which Redis does nothing else.
const maxChecks = 1024

// Backend decides in Redis. It is safe for concurrent use.
type Backend struct {
	opts     Options
	naming   naming
	script   string
	sha      string // of the script, as EVALSHA takes it
	conn     *connector
	breakers breakers
	lanes    *lanes
	refusals *refusals // nil when none are remembered
	metrics  *metrics
}

var _ backend.Backend = (*Backend)(nil)

// New returns a backend that connects in the background; until it has, and
// whenever Redis is gone, Decide fails at once with ErrUnavailable. The error
// says what is wrong with the options.
func New(opts Options) (*Backend, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	script := composeScript()
	sum := sha1.Sum([]byte(script)) //nolint:gosec // it is what Redis calls a script by
	b := &Backend{
		opts:     opts,
		naming:   naming{prefix: opts.Prefix, cluster: opts.Mode == Cluster, plain: opts.PlainKeys},
		script:   script,
		sha:      hex.EncodeToString(sum[:]),
		conn:     newConnector(&opts),
		breakers: newBreakers(&opts),
		refusals: newRefusals(opts.LocalCacheBytes, opts.Clock),
		metrics:  newMetrics(),
	}
	b.lanes = newLanes(opts.Timeout, b.call)
	return b, nil
}

// Close drops all connections. No Decide may be under way or follow.
func (b *Backend) Close() { b.conn.close() }

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

// Decide implements [backend.Backend]. It returns within the timeout, whatever
// ctx says; a ctx that is done is only noticed at the start.
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
	o := newOp(req.Checks, req.AllOrNothing, out, time.Now(), b.opts.Timeout)
	defer o.free()
	if b.refusals == nil {
		return b.decide(o)
	}
	b.forgetRefunded(o)
	if b.refusals.answer(o) {
		b.metrics.refused.Inc()
		return nil
	}
	for _, of := range o.ids {
		o.epochs = append(o.epochs, b.refusals.epoch(of))
	}
	defer b.forgetRefunded(o) // also what others have found meanwhile
	return b.decide(o)
}

func (b *Backend) forgetRefunded(o *op) {
	for i := range o.checks {
		if o.checks[i].Hits < 0 {
			b.refusals.forget(o.ids[i])
		}
	}
}

func (b *Backend) decide(o *op) error {
	if b.opts.Mode == Cluster && len(o.checks) > 1 {
		return b.spread(o)
	}
	return b.do(o)
}

// Reset has a counter be as if never used, and says whether it was used. Of
// check only what names the counter matters.
func (b *Backend) Reset(ctx context.Context, check backend.Check) (bool, error) {
	client, err := b.conn.current()
	if err != nil {
		return false, err
	}
	of := idOf(check.Key)
	forget := func() {
		if b.refusals != nil {
			b.refusals.forget(of)
		}
	}
	forget()
	defer forget()
	ctx, cancel := context.WithTimeout(ctx, b.opts.Timeout)
	defer cancel()
	n, err := client.Do(ctx, client.B().Del().Key(string(b.naming.append(nil, &check, of))).Build()).AsInt64()
	if err != nil {
		return false, b.failed(err)
	}
	return n > 0, nil
}

// do decides an op whose keys are in one slot.
func (b *Backend) do(o *op) error {
	if b.opts.NoCombining {
		return b.call([]*op{o}, o.deadline)
	}
	return b.lanes.do(o)
}

// hold is how long keys outlive their expiry when tests control the clock.
const hold = 50 * 366 * 24 * time.Hour

// call decides the ops, in order, in one call.
func (b *Backend) call(ops []*op, deadline time.Time) error {
	began := time.Now()
	err := b.send(ops, deadline)
	b.metrics.called(time.Since(began), len(ops), err)
	return err
}

func (b *Backend) send(ops []*op, deadline time.Time) error {
	now, holdMillis := "", int64(0)
	if b.opts.Clock != nil {
		now, holdMillis = strconv.FormatInt(b.opts.Clock(), 10), hold.Milliseconds()
	}
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.naming = b.naming
	keys, args := e.encode(ops, now, holdMillis)

	client, err := b.conn.current()
	if err != nil {
		return err
	}
	command := b.command(client, keys, args, false)
	return b.breakers.of(command.Slot()).do(func() error {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		defer cancel()
		for {
			sent := time.Now()
			answer, err := client.Do(ctx, command).AsBytes()
			if err == nil {
				return b.read(answer, ops, sent)
			}
			// What did not run may be sent again: with its text to a server that
			// does not know the script, and a moment later while keys are moving.
			refusal, ok := rueidis.IsRedisErr(err)
			unknown := ok && refusal.IsNoScript()
			if !unknown && !(ok && refusal.IsTryAgain() && sleep(ctx, time.Millisecond)) {
				return b.failed(err)
			}
			command = b.command(client, keys, args, unknown)
		}
	})
}

// read fills in the decisions of the ops.
func (b *Backend) read(answer []byte, ops []*op, sent time.Time) error {
	var r reply
	if b.refusals != nil {
		r.seen = func(o *op, i int, state algo.State) { b.refusals.remember(o, i, state, sent) }
	}
	return r.decode(answer, ops)
}

// command calls the script by its hash or with its text.
func (b *Backend) command(client rueidis.Client, keys, args []string, text bool) rueidis.Completed {
	if text {
		return client.B().Eval().Script(b.script).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	return client.B().Evalsha().Sha1(b.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

// failed returns what a call's error means.
func (b *Backend) failed(err error) error {
	answer, ok := rueidis.IsRedisErr(err)
	if !ok {
		if errors.Is(err, context.DeadlineExceeded) {
			return errTimeout
		}
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	text := answer.Error()
	code, _, _ := strings.Cut(text, " ")
	switch code {
	case "READONLY":
		b.conn.wrongServer()
		return fmt.Errorf("%w: it is a replica: %s", ErrUnavailable, text)
	case "LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOREPLICAS":
		return fmt.Errorf("%w: %s", ErrUnavailable, text)
	}
	return fmt.Errorf("%w: %s", ErrRefused, text)
}
