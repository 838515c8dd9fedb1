package redis

import (
	"fmt"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// BenchmarkScript makes one call after the other, each for a number of 10,000 keys, and
// reports Redis' own CPU time per check.
func BenchmarkScript(b *testing.B) {
	server := redistest.Start(b, redistest.Config{})
	store, err := New(Options{Addrs: []string{server.Addr}, Timeout: 5 * time.Second, DialTimeout: 5 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(store.Close)
	if err := store.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	for i, name := range algo.Algorithms() {
		for _, strict := range []bool{false, true} {
			p := algo.Params{Algorithm: algo.Algorithm(i), Limit: 1000, Window: time.Minute, Strict: strict}
			if p.Algorithm == algo.LeakyBucket {
				p.Burst = 100
			}
			if p.Strict && p.Algorithm == algo.FixedWindow { // it has calendars instead
				p.Strict, p.Window, p.Calendar = false, 0, algo.Calendar{Every: algo.EveryMonth, Zone: "Europe/Berlin"}
				name += "/calendar"
			}
			limit, err := algo.New(p)
			if err != nil {
				continue // not all can be strict
			}
			for _, size := range []int{1, 32} {
				b.Run(fmt.Sprintf("%s/strict=%t/checks=%d", name, strict, size), func(b *testing.B) {
					server.Do("FLUSHALL")
					batch := make([]*op, size)
					before := server.CPU()
					for n := 0; b.Loop(); n++ {
						for j := range batch {
							checks := []backend.Check{{Key: fmt.Append(nil, (n*size+j)%10_000), Limit: limit, Hits: 1}}
							batch[j] = newOp(checks, false, make([]algo.Decision, 1), time.Now(), time.Now().Add(store.opts.Timeout))
						}
						if store.call(batch, batch[0].deadline); batch[0].err != nil {
							b.Fatal(batch[0].err)
						}
					}
					b.ReportMetric(float64((server.CPU()-before).Nanoseconds())/float64(b.N*size), "redis-ns/check")
				})
			}
		}
	}
}
