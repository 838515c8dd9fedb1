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
	if b.opts.Mode == Cluster && len(req.Checks) > 1 {
		return b.spread(o)
	}
	return b.do(o)
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
			answer, err := client.Do(ctx, command).AsBytes()
			if err == nil {
				var r reply
				return r.decode(answer, ops)
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
			return fmt.Errorf("%w: no answer within %v", ErrUnavailable, b.opts.Timeout)
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
