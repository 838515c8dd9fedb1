package redis

import (
	"context"
	"sync"
	"time"
)

// deadline is a context of a call that is done at a certain time. Deadlines are pooled:
// making one allocates nothing and takes a fifth of the time of the standard library's
// (BenchmarkDeadline: 0 allocations instead of 11, which take 816 bytes). When the time
// has come, it reports a timeout to the breaker, however long the call then takes to end.
type deadline struct {
	at, began time.Time
	done      chan struct{}
	timer     *time.Timer // closes done
	breaker   *breaker
	slot      uint16
}

var deadlines = sync.Pool{New: func() any {
	d := &deadline{done: make(chan struct{})}
	d.timer = time.AfterFunc(time.Hour, d.expire)
	return d
}}

func newDeadline(at, began time.Time, b *breaker, slot uint16) *deadline {
	d := deadlines.Get().(*deadline)
	d.at, d.began, d.breaker, d.slot = at, began, b, slot
	d.timer.Reset(time.Until(at))
	return d
}

func (d *deadline) expire() {
	close(d.done)
	d.breaker.report(d.began, d.slot, errTimeout)
}

// free releases the context. Nothing may use it any more, unless it is done.
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
