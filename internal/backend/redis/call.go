package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/distlimiter/ratelimit/internal/backend/redis/transient"
)

// hold is how long keys outlive their expiry when tests control the clock.
const hold = 50 * 366 * 24 * time.Hour

// call decides the ops, in order, in one call, and sets the error of each.
func (b *Backend) call(ops []*op, until time.Time) {
	began := time.Now()
	rest := b.unspent(ops, began)
	if len(rest) == 0 {
		return
	}
	trips := b.beginTrips(rest, began)
	err := b.send(withTrips(rest, trips), until)
	for _, t := range trips {
		b.endTrip(t, began, err)
	}
	for _, o := range rest {
		o.err = err
		b.forgetRefunded(o) // also refusals that others have remembered meanwhile
	}
	b.metrics.called(time.Since(began), len(rest), err)
}

func (b *Backend) send(ops []*op, until time.Time) error {
	now, holdMillis := "", int64(0)
	if b.opts.Clock != nil {
		now, holdMillis = strconv.FormatInt(b.opts.Clock(), 10), hold.Milliseconds()
	}
	e := encoders.Get().(*encoder)
	defer e.free()
	e.naming, e.now = b.naming, b.theirClock
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
		for again := false; ; {
			sent := time.Now()
			answer, err := client.Do(ctx, command).AsBytes()
			// A call that did not run may be sent again: with the script's text to a
			// server that does not know it, and a moment later while keys are moving.
			refusal, ok := rueidis.IsRedisErr(err)
			switch {
			case ok && refusal.IsNoScript():
				answer, err = b.teach(ctx, client, keys, args)
			case ok && refusal.IsTryAgain() && sleep(ctx, time.Millisecond):
				command = b.command(client, keys, args, false)
				continue
			}
			if err != nil {
				return b.failed(err)
			}
			// So may a call whose boundaries of calendars did not fit Redis' clock.
			if at, is := elsewhen(answer); is && !again {
				again = true
				b.ahead.Store(at - b.ownClock())
				e.reset()
				e.now = func() int64 { return at }
				keys, args = e.encode(ops, now, holdMillis)
				command = b.command(client, keys, args, false)
				continue
			}
			return e.decode(answer, ops, sent, b.refusals)
		}
	})
}

// theirClock returns about the time of Redis' clock, in µs since the epoch. It is the
// time of this process's clock, until Redis turns out to be in another window. Redis
// decides by its own clock; this one only selects the boundaries of calendars to send.
func (b *Backend) theirClock() int64 { return b.ownClock() + b.ahead.Load() }

// ownClock returns the time of this process's clock, in µs since the epoch.
func (b *Backend) ownClock() int64 {
	switch {
	case b.opts.OwnClock != nil:
		return b.opts.OwnClock()
	case b.opts.Clock != nil:
		return b.opts.Clock()
	}
	return time.Now().UnixMicro()
}

// teach makes a call to a server that did not know the script. Only one call at a time
// sends the script's text; calls that wait meanwhile find the script known.
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

// command calls the script by its hash or with its text.
func (b *Backend) command(client rueidis.Client, keys, args []string, text bool) rueidis.Completed {
	if text {
		return client.B().Eval().Script(b.script).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	return client.B().Evalsha().Sha1(b.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

// failed returns the error of a call as one of this package's errors.
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
	if code == "NOPROTO" { // another server is now behind the address
		b.conn.wrongServer()
	}
	if refusesLogin(text) {
		return fmt.Errorf("%w: %s", errLogin, text)
	}
	switch {
	case code == "READONLY":
		b.conn.wrongServer()
		return fmt.Errorf("%w: it is a replica: %s", ErrUnavailable, text)
	case transient.Server(text):
		return fmt.Errorf("%w: %s", ErrUnavailable, text)
	case transient.Proxy(text) && b.opts.Mode == Proxy:
		return fmt.Errorf("%w: %s", errUpstream, text)
	case transient.Proxy(text):
		return fmt.Errorf("%w: its proxy: %s", ErrUnavailable, text)
	}
	return fmt.Errorf("%w: %s", ErrRefused, text)
}

// refusesLogin reports whether an error is the answer to the first commands of a
// connection, rather than to a call: the library returns both alike.
func refusesLogin(text string) bool {
	code, rest, _ := strings.Cut(text, " ")
	switch code {
	case "NOAUTH", "WRONGPASS", "DENIED", "NOPROTO":
		return true
	case "NOPERM":
		return strings.Contains(rest, "'select'") || strings.Contains(rest, "'hello'") || strings.Contains(rest, "'auth'")
	}
	for _, start := range []string{"max number of clients", "DB index", "invalid DB index", "AUTH", "Client sent AUTH", "invalid password"} {
		if strings.HasPrefix(text, start) { // the library removes ERR
			return true
		}
	}
	return false
}
