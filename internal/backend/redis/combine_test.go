package redis

import (
	"slices"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// calls is the other side of lanes: it reports each call, which ends when the test lets it.
type calls struct {
	t     *testing.T
	lanes *lanes
	begun chan []*op
	end   chan struct{}
}

func newCalls(t *testing.T) *calls {
	c := &calls{t: t, begun: make(chan []*op), end: make(chan struct{})}
	c.lanes = newLanes(func(ops []*op, _ time.Time) {
		c.begun <- slices.Clone(ops)
		<-c.end
	})
	t.Cleanup(c.lanes.close)
	return c
}

// ask decides requests that came at that time, and returns them.
func (c *calls) ask(n int, at time.Time) (all []*op) {
	for range n {
		o := newOp(make([]backend.Check, 1), false, make([]algo.Decision, 1), at, at.Add(time.Hour))
		all = append(all, o)
		go func() {
			if err := c.lanes.do(o, 0); err != nil {
				c.t.Error(err)
			}
		}()
		if n > 1 { // in this order
			c.lanes.awaitQueue(c.t, len(all))
		}
	}
	return all
}

// awaitQueue waits until that many requests wait for a call. They send no event.
func (l *lanes) awaitQueue(t *testing.T, n int) {
	t.Helper()
	s := &l.shards[0]
	redistest.Eventually(t, "requests wait for a call", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		ln := s.lanes[0]
		return ln != nil && len(ln.queue) >= n
	})
}

func TestRequestsWaitForACallAndGoTogether(t *testing.T) {
	t.Parallel()
	c, now := newCalls(t), time.Now()
	alone := c.ask(1, now)
	if got := <-c.begun; !slices.Equal(got, alone) {
		t.Fatalf("the first call is of %d requests", len(got))
	}
	together := c.ask(5, now.Add(pace))
	c.end <- struct{}{}
	if got := <-c.begun; !slices.Equal(got, together) {
		t.Errorf("the next call is not of the five that waited, in their order")
	}
	c.end <- struct{}{}
}

func TestACallThatTakesLongIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	c, now := newCalls(t), time.Now()
	c.ask(1, now)
	<-c.begun
	waiting := c.ask(3, now.Add(pace))
	late := c.ask(1, now.Add(pace+1))
	if got := <-c.begun; !slices.Equal(got, append(waiting, late...)) {
		t.Errorf("the second call is not of those that waited and of the one that came late, in their order")
	}
	for n := 2; n < mostCalls; n++ {
		now = now.Add(3 * pace)
		c.ask(1, now)
		<-c.begun
	}
	// The most calls are under way: later requests wait, until the lane is stalled.
	waiting = c.ask(2, now.Add(3*pace))
	last := c.ask(1, now.Add(time.Minute))
	if got := <-c.begun; !slices.Equal(got, append(waiting, last...)) {
		t.Errorf("calls that do not end are waited for")
	}
	for range mostCalls + 1 {
		c.end <- struct{}{}
	}
}

func TestAFullCallIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	c, now := newCalls(t), time.Now()
	c.ask(1, now)
	<-c.begun
	waiting := c.ask(mostGathered, now)
	extra := c.ask(1, now)
	if got := <-c.begun; !slices.Equal(got, append(waiting[:mostGathered-1:mostGathered-1], extra...)) {
		t.Errorf("the second call is of %d requests", len(got))
	}
	c.end <- struct{}{}
	c.end <- struct{}{}
	if got := <-c.begun; !slices.Equal(got, waiting[mostGathered-1:]) {
		t.Errorf("the third call is of %d requests, not of the one that was left over", len(got))
	}
	c.end <- struct{}{}
}
