package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/distlimiter/ratelimit/internal/backend/redis/away"
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
	trips := b.beginTrips(rest, began)
	err := b.send(withTrips(rest, trips), until)
	for _, t := range trips {
		b.endTrip(t, began, err)
	}
	for _, o := range rest {
		o.err = err
		b.forgetRefunded(o) // also what others have found meanwhile
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
			// What did not run may be sent again: with its text to a server that
			// does not know the script, and a moment later while keys are moving.
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
			// So may what ran at a time that nobody had thought of.
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

// theirClock returns about what Redis' clock shows, in µs since the epoch: what this
// process's does, unless that has turned out to be another day's. Redis decides by its
// own clock; this only says which boundaries of calendars to send.
func (b *Backend) theirClock() int64 { return b.ownClock() + b.ahead.Load() }

// ownClock returns what this process's clock shows, in µs since the epoch.
func (b *Backend) ownClock() int64 {
	switch {
	case b.opts.OwnClock != nil:
		return b.opts.OwnClock()
	case b.opts.Clock != nil:
		return b.opts.Clock()
	}
	return time.Now().UnixMicro()
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
	switch {
	case code == "READONLY":
		b.conn.wrongServer()
		return fmt.Errorf("%w: it is a replica: %s", ErrUnavailable, text)
	case away.Server(text):
		return fmt.Errorf("%w: %s", ErrUnavailable, text)
	case away.Proxy(text) && b.opts.Mode == Proxy:
		return fmt.Errorf("%w: %s", errUpstream, text)
	case away.Proxy(text):
		return fmt.Errorf("%w: its proxy: %s", ErrUnavailable, text)
	}
	return fmt.Errorf("%w: %s", ErrRefused, text)
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
