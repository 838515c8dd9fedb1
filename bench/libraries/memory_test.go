package libraries

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/mennanov/limiters"
	"github.com/puzpuzpuz/xsync/v4"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	"github.com/ulule/limiter/v3"
	ulule "github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
)

// allow decides one hit. The key is only valid for the call if it was used before.
type allow func(key string) (bool, error)

// contender is a limiter of many keys.
type contender struct {
	class, name string
	// open returns a limiter of limit hits a window for each key, as a function
	// that makes one caller's view of it.
	open func(tb testing.TB, limit int, window time.Duration) func() allow
}

// shared is a limiter whose callers need nothing of their own.
func shared(a allow) func() allow { return func() allow { return a } }

const (
	tokenBucket   = "token_bucket"
	fixedWindow   = "fixed_window"
	slidingWindow = "sliding_window"
)

func inMemory() []contender {
	return []contender{
		{tokenBucket, "distlimiter", oursInMemory(algo.TokenBucket)},
		{tokenBucket, "x-time-rate+xsync", func(_ testing.TB, limit int, window time.Duration) func() allow {
			m := xsync.NewMap[string, *rate.Limiter]()
			every := rate.Every(window / time.Duration(limit))
			return shared(func(key string) (bool, error) {
				l, ok := m.Load(key)
				if !ok {
					l, _ = m.LoadOrStore(key, rate.NewLimiter(every, limit))
				}
				return l.Allow(), nil
			})
		}},
		{tokenBucket, "sethvargo-go-limiter", func(tb testing.TB, limit int, window time.Duration) func() allow {
			s, err := memorystore.New(&memorystore.Config{Tokens: uint64(limit), Interval: window})
			if err != nil {
				tb.Fatal(err)
			}
			tb.Cleanup(func() { _ = s.Close(context.Background()) }) // it can't fail
			return shared(func(key string) (bool, error) {
				_, _, _, ok, err := s.Take(context.Background(), key)
				return ok, err
			})
		}},
		{tokenBucket, "throttled", func(tb testing.TB, limit int, window time.Duration) func() allow {
			s, err := memstore.NewCtx(0)
			if err != nil {
				tb.Fatal(err)
			}
			return throttledBy(tb, s, limit, window)
		}},
		{tokenBucket, "mennanov-limiters", registered(func(_ string, limit int, window time.Duration) mennanov {
			return limiters.NewTokenBucket(int64(limit), window/time.Duration(limit), limiters.NewLockNoop(),
				limiters.NewTokenBucketInMemory(), limiters.NewSystemClock(), limiters.NewStdLogger())
		})},
		// What remains without keys: one limiter that all share, for comparison.
		{tokenBucket, keyless, func(_ testing.TB, limit int, window time.Duration) func() allow {
			l := rate.NewLimiter(rate.Every(window/time.Duration(limit)), limit)
			return shared(func(string) (bool, error) { return l.Allow(), nil })
		}},
		{fixedWindow, "distlimiter", oursInMemory(algo.FixedWindow)},
		{fixedWindow, "ulule-limiter", func(_ testing.TB, limit int, window time.Duration) func() allow {
			return ululeIn(ulule.NewStore(), limit, window)
		}},
		{fixedWindow, "mennanov-limiters", registered(func(_ string, limit int, window time.Duration) mennanov {
			return limiters.NewFixedWindow(int64(limit), window, limiters.NewFixedWindowInMemory(), limiters.NewSystemClock())
		})},
		{slidingWindow, "distlimiter", oursInMemory(algo.SlidingWindow)},
		{slidingWindow, "mennanov-limiters", registered(func(_ string, limit int, window time.Duration) mennanov {
			return limiters.NewSlidingWindow(int64(limit), window, limiters.NewSlidingWindowInMemory(), limiters.NewSystemClock(), epsilon)
		})},
	}
}

// keyless is one limiter for all keys: it does less, and shows what keys cost.
const keyless = "x-time-rate-alone-without-keys"

// epsilon is how close two numbers of requests must be for mennanov/limiters.
const epsilon = 1e-9

func oursInMemory(a algo.Algorithm) func(testing.TB, int, time.Duration) func() allow {
	return func(tb testing.TB, limit int, window time.Duration) func() allow {
		s := memory.New(memory.Options{})
		tb.Cleanup(func() {
			if err := s.Close(); err != nil {
				tb.Error(err)
			}
		})
		return ours(tb, s, a, limit, window)
	}
}

func ours(tb testing.TB, s backend.Backend, a algo.Algorithm, limit int, window time.Duration) func() allow {
	l, err := algo.New(algo.Params{Algorithm: a, Limit: uint32(limit), Window: window})
	if err != nil {
		tb.Fatal(err)
	}
	return func() allow {
		req := backend.Request{Checks: []backend.Check{{Limit: l, Hits: 1}}}
		out := make([]algo.Decision, 1)
		return func(key string) (bool, error) {
			req.Checks[0].Key = unsafe.Slice(unsafe.StringData(key), len(key)) // only read
			err := s.Decide(context.Background(), &req, out)
			return out[0].Allowed, err
		}
	}
}

func throttledBy(tb testing.TB, s throttled.GCRAStoreCtx, limit int, window time.Duration) func() allow {
	l, err := throttled.NewGCRARateLimiterCtx(s, throttled.RateQuota{MaxRate: throttled.PerDuration(limit, window), MaxBurst: limit - 1})
	if err != nil {
		tb.Fatal(err)
	}
	return shared(func(key string) (bool, error) {
		limited, _, err := l.RateLimitCtx(context.Background(), key, 1)
		return !limited, err
	})
}

func ululeIn(s limiter.Store, limit int, window time.Duration) func() allow {
	l := limiter.New(s, limiter.Rate{Period: window, Limit: int64(limit)})
	return shared(func(key string) (bool, error) {
		c, err := l.Get(context.Background(), key)
		return !c.Reached, err
	})
}

// mennanov is a limiter of one key.
type mennanov interface {
	Limit(ctx context.Context) (time.Duration, error)
}

// registered keeps one limiter for each key, in the registry that comes with them.
func registered(create func(key string, limit int, window time.Duration) mennanov) func(testing.TB, int, time.Duration) func() allow {
	return func(_ testing.TB, limit int, window time.Duration) func() allow {
		r := limiters.NewRegistry()
		return shared(func(key string) (bool, error) {
			l := r.GetOrCreate(key, func() any { return create(key, limit, window) }, window, time.Now()).(mennanov)
			_, err := l.Limit(context.Background())
			if errors.Is(err, limiters.ErrLimitExhausted) {
				return false, nil
			}
			return err == nil, err
		})
	}
}

// name is a key: 24 bytes, as the descriptors have in bench/load. It is
// rewritten in place, for keys that lay in memory by the million would cost more
// to read than the decision. Limiters keep keys that are new to them, so those
// are given copies.
type name []byte

func newName() name { return name("user=client-000000000000") }

func (k name) set(n int) string {
	for i := len(k) - 1; i >= len(k)-8; i-- {
		k[i] = '0' + byte(n%10)
		n /= 10
	}
	return unsafe.String(unsafe.SliceData(k), len(k))
}

func (k name) clone(n int) string { return string([]byte(k.set(n))) }

// The limit of each key is never reached, and a hit counts for 86 s in a bucket,
// so that keys are live throughout: one that is full again may be forgotten.
const (
	limit  = 1000
	window = 24 * time.Hour
)

// BenchmarkMemory is one decision on a live key, chosen at random, by as many
// goroutines as there are processors. It also reports this process's
// processor time, its collector's included, which is the figure to go by where
// the machine has other work.
func BenchmarkMemory(b *testing.B) {
	for _, keys := range []int{10_000, 1_000_000} {
		for _, c := range inMemory() {
			b.Run(fmt.Sprintf("class=%s/library=%s/keys=%d", c.class, c.name, keys), func(b *testing.B) {
				before := resident(b)
				limit := limit
				if c.name == keyless { // all keys are one
					limit = math.MaxInt32
				}
				l := c.open(b, limit, window)
				fill(b, l, keys)
				perKey := float64(resident(b)-before) / float64(keys)
				b.Run("decide", func(b *testing.B) {
					var seed atomic.Uint64
					b.ReportAllocs()
					before := ownCPU(b)
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) {
						rng := rand.New(rand.NewPCG(seed.Add(1), 0))
						caller, key := l(), newName()
						for pb.Next() {
							if ok, err := caller(key.set(rng.IntN(keys))); !ok || err != nil {
								b.Errorf("%v, %v", ok, err)
								return
							}
						}
					})
					b.StopTimer()
					b.ReportMetric(float64(ownCPU(b)-before)/float64(b.N), "cpu-ns/op")
					b.ReportMetric(perKey, "B/key")
				})
			})
		}
	}
}

// fill uses each key once.
func fill(tb testing.TB, l func() allow, keys int) {
	caller, key := l(), newName()
	for n := range keys {
		if ok, err := caller(key.clone(n)); !ok || err != nil {
			tb.Fatalf("%v, %v", ok, err)
		}
	}
}

// ownCPU returns how much processor time this process has used.
func ownCPU(tb testing.TB) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// resident returns the bytes of this process that are in memory, after giving
// back what can be.
func resident(tb testing.TB) int64 {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		tb.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		tb.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// What is compared limits, and each key by itself.
func limits(t *testing.T, list []contender) {
	for _, c := range list {
		t.Run(c.class+"/"+c.name, func(t *testing.T) {
			const most = 5
			caller := c.open(t, most, time.Hour)()
			for i := range most + 2 {
				ok, err := caller("one")
				if err != nil || ok != (i < most) {
					t.Errorf("hit %d: %v, %v", i, ok, err)
				}
			}
			if c.name == keyless {
				return
			}
			if ok, err := caller("another"); !ok || err != nil {
				t.Errorf("another key: %v, %v", ok, err)
			}
		})
	}
}

func TestMemoryLimits(t *testing.T) { limits(t, inMemory()) }
