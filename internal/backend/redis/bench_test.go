package redis_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// BenchmarkDecide decides for 64 callers, each on one of 10,000 keys or all on one key,
// and reports Redis' own CPU time per decision.
func BenchmarkDecide(b *testing.B) {
	const callers = 64
	server := redistest.Start(b, redistest.Config{})
	store := open(b, redis.Options{Addrs: []string{server.Addr}, Timeout: 5 * time.Second, DialTimeout: 5 * time.Second})
	for i, name := range algo.Algorithms() {
		p := algo.Params{Algorithm: algo.Algorithm(i), Limit: 1000, Window: time.Minute}
		limit, err := algo.New(p)
		if err != nil {
			b.Fatal(err)
		}
		for _, keys := range []int{10_000, 1} {
			b.Run(fmt.Sprintf("%s/%d keys", name, keys), func(b *testing.B) {
				server.Do("FLUSHALL")
				names := make([][]byte, keys)
				for k := range names {
					names[k] = fmt.Appendf(nil, "4:edge|4:user=%d:%d|x:60s", len(strconv.Itoa(k)), k)
				}
				var next atomic.Int64
				var done sync.WaitGroup
				before := server.CPU()
				b.ResetTimer()
				for range callers {
					done.Go(func() {
						out := make([]algo.Decision, 1)
						checks := []backend.Check{{Limit: limit, Hits: 1}}
						for {
							n := next.Add(1)
							if n > int64(b.N) {
								return
							}
							checks[0].Key = names[n*7919%int64(keys)]
							if err := store.Decide(context.Background(), &backend.Request{Checks: checks}, out); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				done.Wait()
				b.StopTimer()
				b.ReportMetric(float64((server.CPU()-before).Nanoseconds())/float64(b.N), "redis-ns/op")
			})
		}
	}
}
