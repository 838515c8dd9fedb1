package redis

import (
	"errors"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// request returns an op that must be answered within a time.
func request(within time.Duration) *op {
	now := time.Now()
	return newOp(make([]backend.Check, 1), false, make([]algo.Decision, 1), now, now.Add(within))
}

// TestABatchTakesTheLongestBound puts a request with little time and one with much
// into one call. The first is answered at its own bound, the second by the call.
func TestABatchTakesTheLongestBound(t *testing.T) {
	t.Parallel()
	untils, end := make(chan time.Time), make(chan struct{})
	l := newLanes(func(_ []*op, until time.Time) {
		untils <- until
		<-end
	})
	t.Cleanup(l.close)
	answers := make(chan error, 3)
	do := func(o *op) {
		answers <- l.do(o, 0)
		o.release()
	}
	go do(request(time.Hour))
	<-untils
	long := request(time.Minute)
	deadline := long.deadline
	ln := l.shards[0].lanes[0]
	long.began = ln.moved
	go do(long)
	l.awaitQueue(t, 1)
	short := request(2 * time.Second) // it is in the queue before that is over
	short.began = ln.moved
	go do(short)
	l.awaitQueue(t, 2)
	end <- struct{}{}
	if err := <-answers; err != nil {
		t.Errorf("the first: %v", err)
	}
	if until := <-untils; !until.Equal(deadline) {
		t.Errorf("the call is bounded by %v, want the longest bound, %v", until, deadline)
	}
	if err := <-answers; !errors.Is(err, errTimeout) {
		t.Errorf("the request with little time: %v, want errTimeout while the call goes on", err)
	}
	end <- struct{}{}
	if err := <-answers; err != nil {
		t.Errorf("the request with much time: %v", err)
	}
}

// TestARequestThatLeavesTheQueueIsNotSent: a request's time ends while it waits for
// another's call.
func TestARequestThatLeavesTheQueueIsNotSent(t *testing.T) {
	t.Parallel()
	begun, end := make(chan int), make(chan struct{})
	l := newLanes(func(ops []*op, _ time.Time) {
		begun <- len(ops)
		<-end
	})
	t.Cleanup(l.close)
	first := make(chan error)
	go func() { first <- l.do(request(time.Hour), 0) }()
	<-begun
	ln := l.shards[0].lanes[0]
	o := request(time.Millisecond)
	o.began = ln.moved
	if err := l.do(o, 0); !errors.Is(err, errTimeout) {
		t.Errorf("got %v, want errTimeout", err)
	}
	o.release()
	end <- struct{}{}
	if err := <-first; err != nil {
		t.Error(err)
	}
	go func() { first <- l.do(request(time.Hour), 0) }()
	if n := <-begun; n != 1 {
		t.Errorf("the next call is of %d requests, want the one that came for it", n)
	}
	end <- struct{}{}
	if err := <-first; err != nil {
		t.Error(err)
	}
}
