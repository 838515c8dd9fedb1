package redis_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// TestHoldsOfClientsThatMisbehave has clients of two replicas that die between their two
// calls, settle twice, settle before they ask, and settle what was refused. Never are more
// in flight than the limit, and when all have ended or expired every slot is back.
func TestHoldsOfClientsThatMisbehave(t *testing.T) {
	t.Parallel()
	const most, clients, rounds, seed = 5, 20, 60, 1
	server := redistest.Start(t, redistest.Config{})
	o := redis.Options{Addrs: []string{server.Addr}, Timeout: unhurried, DialTimeout: unhurried}
	replicas := []*redis.Backend{open(t, o), open(t, o)}
	// Long enough that no hold of a client that lives expires during the test.
	slots := limit(t, algo.Params{Algorithm: algo.Concurrency, Limit: most, Window: 5 * time.Minute})
	budget := limit(t, algo.Params{Limit: 1_000_000, Window: algo.MaxWindow, Hold: 5 * time.Minute})
	var inFlight, dead, granted, cost atomic.Int64
	call := func(replica int, id uint64, settles bool, hits int64) algo.Decision {
		checks := []backend.Check{{Key: []byte("slots"), Limit: slots, Hits: 1}, {Key: []byte("budget"), Limit: budget, Hits: hits}}
		for i := range checks {
			checks[i].Hold = algo.Hold{ID: id, Settles: settles}
		}
		out := make([]algo.Decision, 2)
		if err := replicas[replica].Decide(t.Context(), &backend.Request{Checks: checks}, out); err != nil {
			t.Error(err)
		}
		return out[0]
	}
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(client)))
			for round := range rounds {
				id := uint64(1 + client*rounds + round)
				settle := func() {
					hits := rng.Int64N(20)
					cost.Add(hits)
					call(rng.IntN(2), id, true, hits)
				}
				if rng.IntN(10) == 0 {
					settle() // before it asks
				}
				if d := call(rng.IntN(2), id, false, 100); !d.Allowed {
					settle()
					continue
				}
				granted.Add(1)
				if n := inFlight.Add(1); n+dead.Load() > most {
					t.Errorf("%d are in flight and %d have died: more than %d", n, dead.Load(), most)
				}
				if rng.IntN(5) == 0 {
					call(rng.IntN(2), id, false, 100) // asks again
				}
				if dead.Load() == 0 && rng.IntN(10) == 0 && dead.CompareAndSwap(0, 1) { // one dies, and holds
					inFlight.Add(-1)
					return
				}
				inFlight.Add(-1)
				settle()
				if rng.IntN(5) == 0 {
					settle() // twice
				}
			}
		})
	}
	all.Wait()
	look := func(key string, l *algo.Limit) algo.Decision {
		d, err := hit(replicas[0], key, l, 0)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := look("slots", slots); d.Held != 1 || d.Remaining != most-1 {
		t.Errorf("when all but one that died have ended: %+v", d)
	}
	if d := look("budget", budget); d.Remaining != 1_000_000-100-cost.Load() {
		t.Errorf("%d left of the budget, want %d: all costs and the reservation of the one that died", d.Remaining, 1_000_000-100-cost.Load())
	}
	if granted.Load() < 2*most {
		t.Errorf("%d were granted", granted.Load())
	}
}
