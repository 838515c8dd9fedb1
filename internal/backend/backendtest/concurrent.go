package backendtest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

const (
	callers   = 8
	perCaller = 100
	hotLimit  = 300 // fewer than all callers together ask for
)

// testConcurrent makes calls from many callers at once. The clock stands still, so
// exactly the limit must pass.
func testConcurrent(t *testing.T, factory Factory) {
	for i, name := range algo.Algorithms() {
		t.Run("one key/"+name, func(t *testing.T) {
			l := mustLimit(hotParams(algo.Algorithm(i)))
			f := factory(t)
			f.SetClock(epoch)
			passed := storm(t, f.Backend, func(int) backend.Request {
				return backend.Request{Checks: checks(required(0, "hot", l, 1))}
			})
			if passed != hotLimit {
				t.Errorf("%d of %d calls passed, want the limit of %d", passed, callers*perCaller, hotLimit)
			}
		})
	}
	t.Run("two keys, all or nothing", func(t *testing.T) { testPairs(t, factory) })
}

func hotParams(a algo.Algorithm) algo.Params {
	p := algo.Params{Algorithm: a, Limit: hotLimit, Window: time.Hour}
	if a.Takes(algo.TakesBurst) {
		p.Burst = hotLimit
	}
	return p
}

// testPairs charges pairs of keys, in either order. The calls that pass must equal the
// lower limit, and the other key must have been charged no more than that.
func testPairs(t *testing.T, factory Factory) {
	scarce := bucket(hotLimit, algo.Drop)
	ample := bucket(callers*perCaller, algo.Drop)
	f := factory(t)
	f.SetClock(epoch)
	passed := storm(t, f.Backend, func(caller int) backend.Request {
		if caller%2 == 0 {
			return backend.Request{AllOrNothing: true, Checks: checks(required(0, "scarce", scarce, 1), required(1, "ample", ample, 1))}
		}
		return backend.Request{AllOrNothing: true, Checks: checks(required(0, "ample", ample, 1), required(1, "scarce", scarce, 1))}
	})
	if passed != hotLimit {
		t.Errorf("%d calls passed, want the lower limit of %d", passed, hotLimit)
	}
	out := make([]algo.Decision, 1)
	look := backend.Request{Checks: checks(required(0, "ample", ample, 0))}
	if err := f.Backend.Decide(context.Background(), &look, out); err != nil {
		t.Fatal(err)
	}
	if want := int64(callers*perCaller - hotLimit); out[0].Remaining != want {
		t.Errorf("%d remain of the higher limit, want %d", out[0].Remaining, want)
	}
}

// storm makes the calls, all callers at once, and returns the number of calls that
// every check allowed.
func storm(t *testing.T, b backend.Backend, request func(caller int) backend.Request) int64 {
	var passed atomic.Int64
	var done sync.WaitGroup
	start := make(chan struct{})
	for caller := range callers {
		done.Go(func() {
			<-start
			for range perCaller {
				req := request(caller)
				out := make([]algo.Decision, len(req.Checks))
				if err := b.Decide(context.Background(), &req, out); err != nil {
					t.Error(err)
					return
				}
				if (group{req.Checks, out}).passes() {
					passed.Add(1)
				}
			}
		})
	}
	close(start)
	done.Wait()
	return passed.Load()
}
