package redis_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// controlled returns a backend of the server whose clock the test sets.
func controlled(t testing.TB, server *redistest.Server) (*redis.Backend, *atomic.Int64) {
	t.Helper()
	now := new(atomic.Int64)
	return open(t, redis.Options{
		Addrs: []string{server.Addr}, Clock: now.Load, PlainKeys: true, Timeout: unhurried, DialTimeout: unhurried,
	}), now
}

// TestFractions runs through rates whose hits do not cost a whole number of
// microseconds, for long enough that any rounding would show. It compares every decision,
// and at the end the number of hits that passed.
func TestFractions(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	server := redistest.Start(t, redistest.Config{})
	for _, p := range []algo.Params{
		{Limit: 700_000, Window: time.Second},
		{Limit: 4_294_967_295, Window: time.Second},
		{Limit: 7, Window: year},
		{Limit: 3, Window: time.Second},
	} {
		for _, a := range []algo.Algorithm{algo.TokenBucket, algo.LeakyBucket, algo.Hybrid, algo.SlidingWindow} {
			p.Algorithm, p.Burst = a, 0
			if a == algo.LeakyBucket {
				p.Burst = p.Limit
			}
			t.Run(fmt.Sprintf("%s %d per %v", a, p.Limit, p.Window), func(t *testing.T) { testFraction(t, server, p) })
		}
	}
}

func testFraction(t *testing.T, server *redistest.Server, p algo.Params) {
	const rounds = 500
	b, now := controlled(t, server)
	l := limit(t, p)
	var state algo.State
	at := int64(1_700_000_000_000_003)
	big := int64(max(p.Limit/10, 1))
	var passed int64
	for round := range rounds {
		hits := int64(1)
		if round%2 == 0 {
			hits = big
		}
		now.Store(at)
		got, err := hit(b, t.Name(), l, hits)
		if err != nil {
			t.Fatal(err)
		}
		var want algo.Decision
		if state, want = l.Step(state, at, hits); got != want {
			t.Fatalf("round %d, %d hits at %d:\n got %+v\nwant %+v", round, hits, at, got, want)
		}
		if got.Allowed {
			passed += hits
		}
		// A prime number of steps to a window, so that no phase comes twice.
		at += p.Window.Microseconds()/211 + 1
	}
	elapsed := at - 1_700_000_000_000_003
	most := 2*float64(p.Limit) + float64(p.Limit)*float64(elapsed)/float64(p.Window.Microseconds())
	if float64(passed) > most || float64(passed) < most/4 {
		t.Errorf("%d hits passed in %v: want some of, and at most, %.0f", passed, time.Duration(elapsed)*time.Microsecond, most)
	}
}
