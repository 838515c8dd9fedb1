package redis

import (
	"sync/atomic"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// turn is an op's part in a lane. The call is made by a goroutine of the lane, so
// that nothing that a call may wait for (the server, a connection, the bounds of
// other requests) holds its caller up for longer than its own bound. A caller that
// leaves before the call is sent has charged nothing; one that leaves later does
// not know, and what was charged stays.
type turn struct {
	state atomic.Int32  // waiting, taken or left
	held  atomic.Int32  // by how many: its caller, and the lane
	wake  chan struct{} // full when the op is decided
	timer *time.Timer   // of the caller's bound

	// What the op says and is told while its caller may leave, for what the caller
	// brings is its own.
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

// reset makes the turn fit for another op.
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

// own gives the op a copy of what its caller brought.
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

// wait returns what has become of the op, at its bound at the latest. out is what
// its caller is told.
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

// take reports whether the op is still to be decided.
func (o *op) take() bool { return o.turn.state.CompareAndSwap(waiting, taken) }

// decided wakes the op's caller, who may have left.
func (o *op) decided() { o.turn.wake <- struct{}{} }

// release gives the op up by one of those that hold it.
func (o *op) release() {
	if o.turn.held.Add(-1) <= 0 {
		o.free()
	}
}
