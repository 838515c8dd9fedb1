// Package background lets long CPU-bound work yield to request handling.
//
// The runtime preempts a goroutine that computes only after ten milliseconds, and
// gives it another ten after the goroutines that waited. With one processor, as most
// pods have, requests that take microseconds wait behind that. [runtime.Gosched] does
// not help: the scheduler polls the network only when no goroutine is ready, and a
// goroutine that has just yielded is ready.
package background

import (
	"hash"
	"os"
	"runtime"
	"slices"
	"time"
)

// slice is how long a task works before it yields: short compared with what a client
// notices, long compared with the two microseconds that yielding costs.
const slice = 250 * time.Microsecond

// stepsPerLook is how many steps pass between readings of the clock, which take 40 ns.
const stepsPerLook = 16

// Task is the long work of one goroutine, which alone may use it. A nil Task never
// yields.
type Task struct {
	began time.Time // when this slice did
	steps uint      // since the clock was last read
	wake  *os.File  // nil until there is more than one slice
	woken chan struct{}
}

// New returns a Task that begins now. The caller must close it.
func New() *Task { return &Task{began: time.Now()} }

// Step is a cheap Yield for steps of at most a few microseconds: it mostly returns
// without reading the clock.
func (t *Task) Step() {
	if t == nil {
		return
	}
	if t.steps++; t.steps%stepsPerLook == 0 {
		t.Yield()
	}
}

// Yield must be called often. When the task has used up its slice, Yield returns only
// after all other goroutines that are ready, or have data from the network, have run.
func (t *Task) Yield() {
	if t == nil || time.Since(t.began) < slice {
		return
	}
	t.giveWay()
	t.began = time.Now()
}

// Hash writes data into h, in pieces of about a tenth of a millisecond.
func (t *Task) Hash(h hash.Hash, data []byte) {
	for piece := range slices.Chunk(data, 128<<10) {
		h.Write(piece)
		t.Yield()
	}
}

// giveWay waits for another goroutine that waits for a pipe, so that the scheduler
// polls the network.
func (t *Task) giveWay() {
	if t.wake == nil && !t.open() {
		runtime.Gosched()
		return
	}
	if _, err := t.wake.Write([]byte{0}); err == nil {
		<-t.woken
	}
}

// open makes the pipe. It fails if too many files are open.
func (t *Task) open() bool {
	reader, writer, err := os.Pipe()
	if err != nil {
		return false
	}
	t.wake, t.woken = writer, make(chan struct{})
	go func() {
		defer reader.Close()
		var b [1]byte
		for {
			if _, err := reader.Read(b[:]); err != nil {
				return // closed
			}
			runtime.Gosched() // for goroutines that the same poll has woken
			t.woken <- struct{}{}
		}
	}()
	return true
}

// Close ends the task.
func (t *Task) Close() {
	if t.wake != nil {
		_ = t.wake.Close() // nothing is buffered
	}
}
