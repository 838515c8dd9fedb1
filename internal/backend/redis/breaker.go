package redis

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"go.uber.org/zap"
)

// breaker stops calling a server that does not answer: after so many failures in
// a row calls fail at once, until one call, after a while, is let through and
// succeeds. A server that answers with an error is there, and no failure.
type breaker struct {
	circuit *gobreaker.CircuitBreaker[struct{}]
	failed  atomic.Int64 // when a failure was last counted, in ns since the epoch
}

// echo is the failure of a call that was already under way when another failed.
// A server that is held up for a moment, and a connection that is closed, fail
// all calls at once: that is one failure.
type echo struct{ error }

func (e echo) Unwrap() error { return e.error }

func newBreaker(o *Options, name string) *breaker {
	return &breaker{circuit: gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         name,
		Timeout:      jitter(o.BreakFor),
		ReadyToTrip:  func(c gobreaker.Counts) bool { return int(c.ConsecutiveFailures) >= o.BreakAfter },
		IsSuccessful: func(err error) bool { return !errors.Is(err, ErrUnavailable) },
		IsExcluded:   func(err error) bool { return err != nil && errors.As(err, new(echo)) },
		OnStateChange: func(name string, from, to gobreaker.State) {
			o.Log.Warn("calls to Redis", zap.String("breaker", name), zap.Stringer("from", from), zap.Stringer("to", to))
		},
	})}
}

// do runs the call, unless calls are suspended.
func (b *breaker) do(call func() error) error {
	_, err := b.circuit.Execute(func() (struct{}, error) {
		began := time.Now().UnixNano()
		err := call()
		if errors.Is(err, ErrUnavailable) {
			last := b.failed.Load()
			if began < last || !b.failed.CompareAndSwap(last, time.Now().UnixNano()) {
				err = echo{err}
			}
		}
		return struct{}{}, err
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return ErrSuspended
	}
	return err
}

// breakers has one breaker for all, or in a cluster one for each range of slots,
// for a range lives on one server and others may be well.
type breakers []*breaker

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

// of returns the breaker of a slot. The error is that of a key without a slot in a
// cluster.
func (bs breakers) of(slot uint16) (*breaker, error) {
	if len(bs) == 1 {
		return bs[0], nil
	}
	if at := int(slot / slotsPerBreaker); at < len(bs) {
		return bs[at], nil
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, errNoCluster)
}

// suspended returns the part of the breakers that let no call pass.
func (bs breakers) suspended() float64 {
	n := 0
	for _, b := range bs {
		if b.circuit.State() == gobreaker.StateOpen {
			n++
		}
	}
	return float64(n) / float64(len(bs))
}
