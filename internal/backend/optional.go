package backend

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Optional abilities of a store besides deciding. Callers ask for these interfaces and
// never for a store by name.
type (
	// Resetter is a store that can forget a counter.
	Resetter interface {
		// Reset makes the counter of a check as if never used, and reports whether
		// it was used. Only the fields of the check that name the counter matter:
		// Key, Shard, Joint and Limit. ctx bounds it as it bounds Decide.
		Reset(ctx context.Context, c Check) (used bool, err error)
	}
	// Lister is a store that knows the keys of its counters.
	Lister interface {
		// Keys returns the keys of the counters in use, in no order. Counters that are
		// added or removed during the loop may be left out. The loop may be slow and
		// may call the store; a key is valid until the loop's next turn.
		Keys() iter.Seq[[]byte]
	}
	// HealthReporter is a store that may become unavailable.
	HealthReporter interface {
		// Healthy reports whether the store can decide now. It does not block.
		Healthy() bool
	}
)

// ErrCannotReset is the error of Reset for a store that is not a Resetter.
var ErrCannotReset = errors.New("the store can't forget counters")

// Reset resets a counter of a store: see Resetter.
func Reset(ctx context.Context, in Backend, c Check) (used bool, err error) {
	r, can := in.(Resetter)
	if !can {
		return false, fmt.Errorf("%w (it is a %T)", ErrCannotReset, in)
	}
	return r.Reset(ctx, c)
}

// Healthy reports whether a store can decide now: see HealthReporter. A store that is
// not a HealthReporter always can.
func Healthy(b Backend) bool {
	r, reports := b.(HealthReporter)
	return !reports || r.Healthy()
}
