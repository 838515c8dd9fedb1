package redis_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
)

// load is steady traffic: each caller makes its next call a while after the last.
type load struct {
	t       testing.TB
	store   backend.Backend
	limit   *algo.Limit
	key     func(n int64) string // of the n-th call
	pause   time.Duration        // of each caller between two calls
	callers int
	// refusals: error replies of Redis are expected too.
	refusals bool

	calls, answered, refused, suspended atomic.Int64
	mu                                  sync.Mutex
	admitted                            map[string]int64
	samples                             []sample
	stop                                func()
	stopped                             <-chan struct{}
	done                                sync.WaitGroup
}

// sample is the result of one call.
type sample struct {
	at   time.Time
	took time.Duration
	err  error
}

// start makes calls until end, or until the test ends: a test that fails must not close
// the store while callers use it.
func (l *load) start() *load {
	running, stop := context.WithCancel(context.Background())
	l.admitted, l.stopped, l.stop = map[string]int64{}, running.Done(), stop
	l.t.Cleanup(func() { stop(); l.done.Wait() })
	for range l.callers {
		l.done.Go(l.run)
	}
	return l
}

func (l *load) run() {
	var own []sample
	admitted := map[string]int64{}
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.samples = append(l.samples, own...)
		for key, n := range admitted {
			l.admitted[key] += n
		}
	}()
	for {
		select {
		case <-l.stopped:
			return
		case <-time.After(l.pause):
		}
		key := l.key(l.calls.Add(1))
		began := time.Now()
		d, err := hit(l.store, key, l.limit, 1)
		own = append(own, sample{at: began, took: time.Since(began), err: err})
		switch {
		case errors.Is(err, redis.ErrSuspended):
			l.suspended.Add(1)
			continue
		case errors.Is(err, redis.ErrUnavailable), l.refusals && errors.Is(err, redis.ErrRefused):
			continue
		case err != nil:
			l.t.Errorf("an unexpected error: %v", err)
			continue
		}
		l.answered.Add(1)
		if d.Allowed {
			admitted[key]++
		} else {
			l.refused.Add(1)
		}
	}
}

// end stops the callers and waits for them.
func (l *load) end() {
	l.stop()
	l.done.Wait()
	slices.SortFunc(l.samples, func(a, b sample) int { return a.at.Compare(b.at) })
}

// failed counts the calls that were not answered.
func (l *load) failed() (n int) {
	for _, s := range l.samples {
		if s.err != nil {
			n++
		}
	}
	return n
}

// between returns the samples of calls begun from a to b.
func (l *load) between(a, b time.Time) (found []sample) {
	for _, s := range l.samples {
		if !s.at.Before(a) && s.at.Before(b) {
			found = append(found, s)
		}
	}
	return found
}

// quantile returns the time within which that fraction of the calls ended.
func quantile(samples []sample, q float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	took := make([]time.Duration, 0, len(samples))
	for _, s := range samples {
		took = append(took, s.took)
	}
	slices.Sort(took)
	return took[min(int(q*float64(len(took))), len(took)-1)]
}
