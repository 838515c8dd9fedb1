package redis

import (
	"context"
	"sync"
	"time"
)

// deadline is a context that is done at a certain time. Unlike that of the
// standard library it costs nothing to make one, once there have been a few.
type deadline struct {
	at    time.Time
	done  chan struct{}
	timer *time.Timer // closes done
}

var deadlines = sync.Pool{New: func() any {
	d := &deadline{done: make(chan struct{})}
	d.timer = time.AfterFunc(time.Hour, func() { close(d.done) })
	return d
}}

func newDeadline(at time.Time) *deadline {
	d := deadlines.Get().(*deadline)
	d.at = at
	d.timer.Reset(time.Until(at))
	return d
}

// free gives the context up. Nothing may use it any more, unless it is done.
func (d *deadline) free() {
	if d.timer.Stop() {
		deadlines.Put(d)
	}
}

// Deadline implements [context.Context].
func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

// Done implements [context.Context].
func (d *deadline) Done() <-chan struct{} { return d.done }

// Err implements [context.Context].
func (d *deadline) Err() error {
	select {
	case <-d.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// Value implements [context.Context].
func (d *deadline) Value(any) any { return nil }
