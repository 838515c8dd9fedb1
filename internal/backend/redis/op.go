package redis

import (
	"sync"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
)

// op is a request, or the part of one whose keys are in one slot, on its way to
// Redis and back.
type op struct {
	checks       []backend.Check
	ids          []keys.ID // of the checks' keys
	slot         keys.Slot
	allOrNothing bool
	out          []algo.Decision // one for each check
	now          int64           // when it was decided, in µs since the epoch
	before       int64           // when the hits that it gives back become void, by the same clock; 0 for never

	began, deadline time.Time
	epochs          []uint64 // of remembered refusals of the ids; see refusals

	err error // its result

	turn *turn // in a lane
}

var ops = sync.Pool{New: func() any { return &op{turn: newTurn()} }}

func newOp(checks []backend.Check, allOrNothing bool, out []algo.Decision, now, deadline time.Time) *op {
	o := ops.Get().(*op) // the pool holds nothing else
	o.checks, o.allOrNothing, o.out = checks, allOrNothing, out
	o.began, o.deadline = now, deadline
	for i := range checks {
		o.ids = append(o.ids, keys.IDOf(checks[i].Key))
	}
	return o
}

// free releases the op. Nothing may hold it any more.
func (o *op) free() {
	o.turn.reset()
	*o = op{ids: o.ids[:0], epochs: o.epochs[:0], turn: o.turn}
	ops.Put(o)
}
