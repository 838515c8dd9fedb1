package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// hold is how long keys outlive their expiry when tests control the clock.
const hold = 50 * 366 * 24 * time.Hour

// call decides the ops, in order, in one call; each is then told how it went.
func (b *Backend) call(ops []*op, until time.Time) {
	began := time.Now()
	rest := b.unspent(ops, began)
	if len(rest) == 0 {
		return
	}
	asks := b.leases.asks(rest, began)
	err := b.send(withAsks(rest, asks), until)
	for _, a := range asks {
		b.settle(a, began, err)
	}
	for _, o := range rest {
		o.err = err
		if b.refusals != nil {
			b.forgetRefunded(o) // also what others have found meanwhile
		}
	}
	b.metrics.called(time.Since(began), len(rest), err)
}

// unspent decides what it can from leases, and returns the other ops.
func (b *Backend) unspent(ops []*op, now time.Time) []*op {
	for i, o := range ops {
		if !b.leases.spend(o, now) {
			continue
		}
		rest := slices.Clone(ops[:i])
		for _, o := range ops[i:] { // the first of them again: it is not decided twice
			if o != ops[i] && !b.leases.spend(o, now) {
				rest = append(rest, o)
			}
		}
		b.metrics.leased.Add(float64(len(ops) - len(rest)))
		return rest
	}
	return ops
}

// withAsks returns the ops of a call: what is given back first, what is taken
// ahead last, so that no request is refused for it.
func withAsks(ops []*op, asks []*ask) []*op {
	if len(asks) == 0 {
		return ops
	}
	var all []*op
	for _, a := range asks {
		if a.give != nil {
			all = append(all, a.give)
		}
	}
	all = append(all, ops...)
	for _, a := range asks {
		if a.take != nil {
			all = append(all, a.take)
		}
	}
	return all
}

// returnLeases gives back what is left of leases that expire and, when it is
// stopped, of all.
func (b *Backend) returnLeases(ctx context.Context) {
	for sleep(ctx, leaseLife) {
		if b.leases.used.Load() {
			b.returnOverdue(time.Now())
		}
	}
	if b.leases.used.Load() {
		now := time.Now()
		b.leases.expire(now)
		b.returnOverdue(now)
	}
}

// returnOverdue gives back what has expired. What Redis does not take in time is void.
func (b *Backend) returnOverdue(now time.Time) {
	until := now.Add(b.opts.bound())
	for _, a := range b.leases.overdue(now) {
		err := b.send([]*op{a.give}, until)
		b.settle(a, now, err)
	}
}

// settle takes note of what became of an ask. Where hits went back, what is known of
// the counter's refusals no longer holds.
func (b *Backend) settle(a *ask, sent time.Time, err error) {
	b.leases.settle(a, sent, time.Now(), err)
	if a.give != nil && b.refusals != nil {
		b.refusals.forget(a.of)
	}
}

func (b *Backend) send(ops []*op, until time.Time) error {
	now, holdMillis := "", int64(0)
	if b.opts.Clock != nil {
		now, holdMillis = strconv.FormatInt(b.opts.Clock(), 10), hold.Milliseconds()
	}
	e := encoders.Get().(*encoder)
	defer e.free()
	e.naming = b.naming
	keys, args := e.encode(ops, now, holdMillis)

	client, err := b.conn.current()
	if err != nil {
		return err
	}
	command := b.command(client, keys, args, false)
	breaker, err := b.breakers.of(command.Slot())
	if err != nil {
		return err
	}
	return breaker.do(command.Slot(), until, func(ctx context.Context) error {
		for {
			sent := time.Now()
			answer, err := client.Do(ctx, command).AsBytes()
			if err == nil {
				return b.read(e, answer, ops, sent)
			}
			// What did not run may be sent again: with its text to a server that
			// does not know the script, and a moment later while keys are moving.
			refusal, ok := rueidis.IsRedisErr(err)
			switch {
			case ok && refusal.IsNoScript():
				answer, err = b.teach(ctx, client, keys, args)
				if err == nil {
					return b.read(e, answer, ops, sent)
				}
				return b.failed(err)
			case ok && refusal.IsTryAgain() && sleep(ctx, time.Millisecond):
				command = b.command(client, keys, args, false)
			default:
				return b.failed(err)
			}
		}
	})
}

// teach makes a call to a server that did not know the script. One call at a time
// sends its text; those that come meanwhile find it known.
func (b *Backend) teach(ctx context.Context, client rueidis.Client, keys, args []string) ([]byte, error) {
	select {
	case b.teaching <- struct{}{}:
		defer func() { <-b.teaching }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	answer, err := client.Do(ctx, b.command(client, keys, args, false)).AsBytes()
	if refusal, ok := rueidis.IsRedisErr(err); ok && refusal.IsNoScript() {
		return client.Do(ctx, b.command(client, keys, args, true)).AsBytes()
	}
	return answer, err
}

// read fills in the decisions of the ops.
func (b *Backend) read(e *encoder, answer []byte, ops []*op, sent time.Time) error {
	e.reply.seen = nil
	if b.refusals != nil {
		e.reply.seen = func(o *op, i int, state algo.State) { b.refusals.remember(o, i, state, sent) }
	}
	return e.decode(answer, ops)
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
		if refusesTLS(err) {
			return fmt.Errorf("%w: %w", errLogin, err)
		}
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	text := answer.Error()
	code, _, _ := strings.Cut(text, " ")
	if code == "NOPROTO" { // what is behind the address has changed
		b.conn.wrongServer()
	}
	if refusesLogin(text) {
		return fmt.Errorf("%w: %s", errLogin, text)
	}
	switch code {
	case "READONLY":
		b.conn.wrongServer()
		return fmt.Errorf("%w: it is a replica: %s", ErrUnavailable, text)
	case "LOADING", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOREPLICAS":
		return fmt.Errorf("%w: %s", ErrUnavailable, text)
	}
	if ofProxy(text) {
		if b.opts.Mode == Proxy {
			return fmt.Errorf("%w: %s", errUpstream, text)
		}
		return fmt.Errorf("%w: its proxy: %s", ErrUnavailable, text)
	}
	return fmt.Errorf("%w: %s", ErrRefused, text)
}

// ofProxy reports whether an error is that of a proxy that does not reach its
// server: of Envoy's redis_proxy, or of twemproxy. The library cuts ERR off.
func ofProxy(text string) bool {
	for _, start := range []string{
		"no upstream host", "upstream failure", "upstream protocol error", "finished with ", // of some keys
		"Connection refused", "Connection timed out", "Connection reset by peer", "Host is down", "No route to host",
	} {
		if strings.HasPrefix(text, start) {
			return true
		}
	}
	return false
}

// refusesLogin reports whether an error is the answer to what a connection begins
// with, rather than to a call: the library hands on both alike.
func refusesLogin(text string) bool {
	code, rest, _ := strings.Cut(text, " ")
	switch code {
	case "NOAUTH", "WRONGPASS", "DENIED", "NOPROTO":
		return true
	case "NOPERM":
		return strings.Contains(rest, "'select'") || strings.Contains(rest, "'hello'") || strings.Contains(rest, "'auth'")
	}
	for _, start := range []string{"max number of clients", "DB index", "invalid DB index", "AUTH", "Client sent AUTH", "invalid password"} {
		if strings.HasPrefix(text, start) { // the library cuts ERR off
			return true
		}
	}
	return false
}
