package redis

import (
	"errors"
	"fmt"

	"github.com/sony/gobreaker/v2"
	"go.uber.org/zap"
)

// breaker stops calling a server that does not answer: after so many failures in
// a row calls fail at once, until one call, after a while, is let through and
// succeeds. A server that answers with an error is there, and no failure.
type breaker struct {
	*gobreaker.CircuitBreaker[struct{}]
}

var errSuspended = fmt.Errorf("%w: calls are suspended for a moment, after several in a row failed", ErrUnavailable)

func newBreaker(o *Options, name string) breaker {
	return breaker{gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         name,
		Timeout:      jitter(o.BreakFor),
		ReadyToTrip:  func(c gobreaker.Counts) bool { return int(c.ConsecutiveFailures) >= o.BreakAfter },
		IsSuccessful: func(err error) bool { return !errors.Is(err, ErrUnavailable) },
		OnStateChange: func(name string, from, to gobreaker.State) {
			o.Log.Warn("calls to Redis", zap.String("breaker", name), zap.Stringer("from", from), zap.Stringer("to", to))
		},
	})}
}

// do runs the call, unless calls are suspended.
func (b breaker) do(call func() error) error {
	_, err := b.Execute(func() (struct{}, error) { return struct{}{}, call() })
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return errSuspended
	}
	return err
}

// suspended says whether calls are.
func (b breaker) suspended() bool { return b.State() == gobreaker.StateOpen }

// breakers has one breaker for all, or in a cluster one for each range of slots,
// for a range lives on one server and others may be well.
type breakers []breaker

const slotsPerBreaker = 256

func newBreakers(o *Options) breakers {
	if o.Mode != Cluster {
		return breakers{newBreaker(o, o.Mode.String())}
	}
	var bs breakers
	for slot := 0; slot < 16384; slot += slotsPerBreaker {
		bs = append(bs, newBreaker(o, fmt.Sprintf("slots %d-%d", slot, slot+slotsPerBreaker-1)))
	}
	return bs
}

func (bs breakers) of(slot uint16) breaker {
	if len(bs) == 1 {
		return bs[0]
	}
	return bs[slot/slotsPerBreaker]
}
