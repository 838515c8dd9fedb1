package libraries

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/mennanov/limiters"
	client "github.com/redis/go-redis/v9"
	goredisstore "github.com/throttled/throttled/v2/store/goredisstore.v9"
	"github.com/ulule/limiter/v3"
	ululeredis "github.com/ulule/limiter/v3/drivers/store/redis"

	"github.com/distlimiter/ratelimit/bench/proc"
	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/freeport"
)

// callers is how many goroutines ask at once, and how many connections those
// clients may have that need one for each request under way.
const callers = 64

// The cores of Redis and of the limiters, because they must not disturb each other.
const (
	limiterCore = 0
	redisCore   = 1
)

func inRedis(s *server) []contender {
	return []contender{
		{tokenBucket, "distlimiter", s.ours(algo.TokenBucket)},
		{tokenBucket, "redis_rate", func(_ testing.TB, limit int, window time.Duration) func() allow {
			l := redis_rate.NewLimiter(s.client)
			each := redis_rate.Limit{Rate: limit, Burst: limit, Period: window}
			return shared(func(key string) (bool, error) {
				r, err := l.Allow(context.Background(), key, each)
				return err == nil && r.Allowed > 0, err
			})
		}},
		{tokenBucket, "throttled", func(tb testing.TB, limit int, window time.Duration) func() allow {
			store, err := goredisstore.NewCtx(s.client, "throttled:")
			if err != nil {
				tb.Fatal(err)
			}
			return throttledBy(tb, store, limit, window)
		}},
		// With the check for races, without which replicas overwrite each other's state.
		{tokenBucket, "mennanov-limiters", registered(func(key string, limit int, window time.Duration) mennanov {
			return limiters.NewTokenBucket(int64(limit), window/time.Duration(limit), limiters.NewLockNoop(),
				limiters.NewTokenBucketRedis(s.client, key, window, true), limiters.NewSystemClock(), limiters.NewStdLogger())
		})},
		{fixedWindow, "distlimiter", s.ours(algo.FixedWindow)},
		{fixedWindow, "ulule-limiter", func(tb testing.TB, limit int, window time.Duration) func() allow {
			store, err := ululeredis.NewStoreWithOptions(s.client, limiter.StoreOptions{Prefix: "ulule"})
			if err != nil {
				tb.Fatal(err)
			}
			return ululeIn(store, limit, window)
		}},
		{fixedWindow, "mennanov-limiters", registered(func(key string, limit int, window time.Duration) mennanov {
			return limiters.NewFixedWindow(int64(limit), window, limiters.NewFixedWindowRedis(s.client, key), limiters.NewSystemClock())
		})},
		{slidingWindow, "distlimiter", s.ours(algo.SlidingWindow)},
		{slidingWindow, "mennanov-limiters", registered(func(key string, limit int, window time.Duration) mennanov {
			return limiters.NewSlidingWindow(int64(limit), window, limiters.NewSlidingWindowRedis(s.client, key), limiters.NewSystemClock(), epsilon)
		})},
	}
}

// server is a Redis of the benchmark's own, with the client of the libraries.
type server struct {
	*proc.Process
	address string
	client  *client.Client
}

func startRedis(tb testing.TB) *server {
	tb.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		tb.Fatalf("%v: install it, or run -bench Memory only", err)
	}
	port := freeport.ForTest(tb)
	s := &server{address: port.Addr()}
	s.Process, err = proc.Start(redisCore, nil, path, "--bind", "127.0.0.1", "--port", strconv.Itoa(port.Number),
		"--dir", tb.TempDir(), "--save", "", "--appendonly", "no")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	})
	// A server is ready when it answers; until then clients try again.
	s.client = client.NewClient(&client.Options{Addr: s.address, PoolSize: callers, MaxRetries: 100, MinRetryBackoff: 10 * time.Millisecond})
	tb.Cleanup(func() { _ = s.client.Close() }) // nothing is under way
	if err := s.client.Ping(context.Background()).Err(); err != nil {
		tb.Fatal(err)
	}
	return s
}

func (s *server) ours(a algo.Algorithm) func(testing.TB, int, time.Duration) func() allow {
	return func(tb testing.TB, limit int, window time.Duration) func() allow {
		store, err := redis.New(redis.Options{Addrs: []string{s.address}, Timeout: 10 * time.Second, DialTimeout: 10 * time.Second})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(store.Close)
		if err := store.Ready(tb.Context()); err != nil {
			tb.Fatal(err)
		}
		return ours(tb, store, a, limit, window)
	}
}

// info returns a number that Redis keeps of itself.
func (s *server) info(tb testing.TB, field string) int64 {
	text, err := s.client.Info(context.Background(), "everything").Result()
	if err != nil {
		tb.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + field + `:(\d+)`).FindStringSubmatch(text)
	if m == nil {
		tb.Fatalf("no %s in INFO", field)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// usage is what has been used up to a moment.
type usage struct {
	own, redis time.Duration
	reads      int64
}

func (s *server) usage(tb testing.TB) usage {
	used, err := s.CPU()
	if err != nil {
		tb.Fatal(err)
	}
	return usage{own: ownCPU(tb), redis: used, reads: s.info(tb, "total_reads_processed")}
}

// BenchmarkRedis is one decision on a key, chosen at random, by one or more
// callers. It reports the processor time of this process and of Redis, and how
// often Redis had to read from a connection: for one caller that is the number of
// round trips, for many it tells how many requests travel together.
func BenchmarkRedis(b *testing.B) {
	if err := proc.Pin(limiterCore); err != nil {
		b.Fatal(err)
	}
	s := startRedis(b)
	for _, keys := range []int{10_000, 1_000_000} {
		for _, c := range inRedis(s) {
			b.Run(fmt.Sprintf("class=%s/library=%s/keys=%d", c.class, c.name, keys), func(b *testing.B) {
				if err := s.client.FlushAll(b.Context()).Err(); err != nil {
					b.Fatal(err)
				}
				l := c.open(b, limit, window)
				before := s.info(b, "used_memory")
				const filled = 10_000 // of a million keys, most are new to Redis when asked for
				s.decide(b, l, callers, filled, func(i int64, _ *rand.Rand) int { return int(i) })
				perKey := float64(s.info(b, "used_memory")-before) / filled
				for _, n := range []int{1, callers} {
					b.Run(fmt.Sprintf("callers=%d", n), func(b *testing.B) {
						b.ReportAllocs()
						before := s.usage(b)
						b.ResetTimer()
						s.decide(b, l, n, int64(b.N), func(_ int64, r *rand.Rand) int { return r.IntN(keys) })
						b.StopTimer()
						after := s.usage(b)
						b.ReportMetric(float64(after.own-before.own)/float64(b.N), "cpu-ns/op")
						b.ReportMetric(float64(after.redis-before.redis)/float64(b.N), "redis-ns/op")
						b.ReportMetric(float64(after.reads-before.reads-1)/float64(b.N), "reads/op") // but that of INFO
						if keys == filled {
							b.ReportMetric(perKey, "B/key")
						}
					})
				}
			})
		}
	}
}

// decide makes decisions by several callers together.
func (s *server) decide(tb testing.TB, l func() allow, callers int, decisions int64, key func(i int64, r *rand.Rand) int) {
	var next atomic.Int64
	var done sync.WaitGroup
	for seed := range callers {
		done.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(seed), 0))
			caller, k := l(), newName()
			for {
				i := next.Add(1) - 1
				if i >= decisions {
					return
				}
				// A copy: what is new to a client or its registry is kept.
				if ok, err := caller(k.clone(key(i, rng))); !ok || err != nil {
					tb.Errorf("%v, %v", ok, err)
					return
				}
			}
		})
	}
	done.Wait()
}

func TestRedisLimits(t *testing.T) {
	s := startRedis(t)
	for _, c := range inRedis(s) {
		if err := s.client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		limits(t, []contender{c})
	}
}
