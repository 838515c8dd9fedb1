// Package background owns how long work of the processor gives way to requests.
//
// A goroutine that computes has its processor for ten milliseconds before the
// runtime takes it away, and another ten after whatever waited has had its turn. With
// one processor, as most pods have, requests that take microseconds wait behind that.
// [runtime.Gosched] does not help: the scheduler looks at the network only when no
// goroutine is ready, and one that has just yielded is.
package background

import (
	"hash"
	"os"
	"runtime"
	"slices"
	"time"
)

// slice is how long a task works before others have their turn: short beside what a
// client notices, long beside the two microseconds that this costs.
const slice = 250 * time.Microsecond

// stepsPerLook is after how many steps the clock is looked at, which takes 40 ns.
const stepsPerLook = 16

// Task is a goroutine's long work. It is for that goroutine only. A nil Task never
// gives way.
type Task struct {
	began time.Time // when this slice did
	steps uint      // since the clock was last looked at
	wake  *os.File  // nil until there is more than one slice
	woken chan struct{}
}

// New returns a Task that begins now. It is to be closed.
func New() *Task { return &Task{began: time.Now()} }

// Step is Yield after a step of at most some microseconds: it mostly takes none.
func (t *Task) Step() {
	if t == nil {
		return
	}
	if t.steps++; t.steps%stepsPerLook == 0 {
		t.Yield()
	}
}

// Yield is to be called often. When the task has worked for long enough it returns
// only after all others that are ready, and those for whom something has come from
// the network, have had their turn.
func (t *Task) Yield() {
	if t == nil || time.Since(t.began) < slice {
		return
	}
	t.giveWay()
	t.began = time.Now()
}

// Hash writes data into h, a tenth of a millisecond's worth at a time.
func (t *Task) Hash(h hash.Hash, data []byte) {
	for piece := range slices.Chunk(data, 128<<10) {
		h.Write(piece)
		t.Yield()
	}
}

// giveWay waits for another goroutine that waits for a pipe, so that the scheduler
// looks for what has come from outside.
func (t *Task) giveWay() {
	if t.wake == nil && !t.open() {
		runtime.Gosched()
		return
	}
	if _, err := t.wake.Write([]byte{0}); err == nil {
		<-t.woken
	}
}

// open makes the pipe, unless there are too many files already.
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
			runtime.Gosched() // for those who have been woken by the same look
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
