package redis

import (
	"sync/atomic"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// turn is the state of an op in a lane. A goroutine of the lane makes the call, so that
// its caller never waits for longer than its own bound, whatever the call waits for (the
// server, a connection, the bounds of other requests). A caller that leaves before the
// call is sent has charged nothing. One that leaves later does not learn whether it has
// charged, and a charge stays.
type turn struct {
	state atomic.Int32  // waiting, taken or left
	held  atomic.Int32  // the number of holders: its caller, and the lane
	wake  chan struct{} // full when the op is decided
	timer *time.Timer   // of the caller's bound

	// The op's own copy of its input and output. The caller owns the originals, and may
	// leave at any time.
	checks    []backend.Check
	keys      []byte
	decisions []algo.Decision
}

const (
	waiting = iota
	taken
	left
)

func newTurn() *turn {
	t := &turn{wake: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	t.timer.Stop()
	return t
}

// reset prepares the turn for another op.
func (t *turn) reset() {
	select {
	case <-t.wake: // of a caller that has left
	default:
	}
	clear(t.checks)
	t.checks, t.keys, t.decisions = t.checks[:0], t.keys[:0], t.decisions[:0]
	t.state.Store(waiting)
	t.held.Store(0)
}

// own makes the op use its own copy of its caller's checks and decisions.
func (o *op) own() {
	t := o.turn
	for i := range o.checks {
		c := o.checks[i]
		start := len(t.keys)
		t.keys = append(t.keys, c.Key...)
		c.Key = t.keys[start:len(t.keys):len(t.keys)]
		t.checks = append(t.checks, c)
	}
	for range o.out {
		t.decisions = append(t.decisions, algo.Decision{})
	}
	o.checks, o.out = t.checks, t.decisions
	t.held.Store(2)
}

// wait waits for the result of the op, until its bound at the latest. Without an error
// it copies the decisions to out.
func (o *op) wait(out []algo.Decision) error {
	t := o.turn
	t.timer.Reset(time.Until(o.deadline))
	select {
	case <-t.wake:
		t.timer.Stop()
	case <-t.timer.C:
		if t.state.CompareAndSwap(waiting, left) {
			return errTimeout
		}
		select {
		case <-t.wake:
		default:
			return errTimeout
		}
	}
	if o.err == nil {
		copy(out, o.out)
	}
	return o.err
}

// take claims the op for a call. It reports false if the caller has left.
func (o *op) take() bool { return o.turn.state.CompareAndSwap(waiting, taken) }

// decided wakes the op's caller, who may have left.
func (o *op) decided() { o.turn.wake <- struct{}{} }

// release ends the hold of one holder. The last one frees the op.
func (o *op) release() {
	if o.turn.held.Add(-1) <= 0 {
		o.free()
	}
}
