package memory_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
)

// These benchmarks measure the store's budget: nanoseconds per decision on one of a
// million keys, bytes per key, and the time of the slowest request while keys are
// added, expire and are evicted.

const benchKeys = 1_000_000

// benchKey is a counter key as the matcher makes it from a descriptor of 24 bytes. It
// is rewritten in place: a million keys in memory would take longer to read than the
// decision.
type benchKey []byte

func newBenchKey() benchKey { return benchKey("4:edge|4:user=20:client-0000000000000|tb:60s") }

func (k benchKey) set(n uint32) []byte {
	const digits = "0123456789abcdef"
	at := k[len(k)-len("00000000|tb:60s"):]
	for i := range 8 {
		at[i] = digits[n>>(4*i)&15]
	}
	return k
}

func benchLimit(b *testing.B, a algo.Algorithm, window time.Duration) *algo.Limit {
	return newLimit(b, algo.Params{Algorithm: a, Limit: 100, Window: window})
}

// call is a request of one check, used again and again. Its output shares no cache
// line with another call's; otherwise two cores would slow each other down.
type call struct {
	_   [128]byte
	key benchKey
	req backend.Request
	out [1]algo.Decision
	_   [128]byte
}

func newCall(l *algo.Limit) *call {
	key := append(make(benchKey, 0, 512), newBenchKey()...)
	return &call{key: key, req: backend.Request{Checks: []backend.Check{{Limit: l, Hits: 1}}}}
}

func (c *call) decide(b *testing.B, s *memory.Store, n uint32) {
	c.req.Checks[0].Key = c.key.set(n)
	if err := s.Decide(context.Background(), &c.req, c.out[:]); err != nil {
		b.Fatal(err)
	}
}

// filled returns a store with a million keys.
func filled(b *testing.B, o memory.Options, l *algo.Limit) *memory.Store {
	s := newStore(b, o)
	c := newCall(l)
	for n := range uint32(benchKeys) {
		c.decide(b, s, n)
	}
	runtime.GC()
	return s
}

// BenchmarkDecide is one decision on one of a million keys, at random.
func BenchmarkDecide(b *testing.B) {
	for i, name := range algo.Algorithms() {
		b.Run(name, func(b *testing.B) {
			l := benchLimit(b, algo.Algorithm(i), time.Hour)
			s := filled(b, memory.Options{}, l)
			var seed atomic.Uint64
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				rng := rand.New(rand.NewPCG(seed.Add(1), 0))
				c := newCall(l)
				for pb.Next() {
					c.decide(b, s, rng.Uint32N(benchKeys))
				}
			})
		})
	}
}

// BenchmarkHotKey is one decision on a key that all callers use.
func BenchmarkHotKey(b *testing.B) {
	l := benchLimit(b, algo.TokenBucket, time.Hour)
	s := newStore(b, memory.Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		c := newCall(l)
		for pb.Next() {
			c.decide(b, s, 0)
		}
	})
}

// BenchmarkDecideMany is a request of eight checks on a million keys.
func BenchmarkDecideMany(b *testing.B) {
	const checks = 8
	for _, shape := range []struct {
		name          string
		perDescriptor int
		allOrNothing  bool
	}{{"descriptors", 1, false}, {"limits", checks, false}, {"all or nothing", 1, true}} {
		b.Run(shape.name, func(b *testing.B) {
			l := benchLimit(b, algo.TokenBucket, time.Hour)
			s := filled(b, memory.Options{}, l)
			req := backend.Request{AllOrNothing: shape.allOrNothing}
			for i := range checks {
				req.Checks = append(req.Checks, backend.Check{Key: newBenchKey(), Limit: l, Hits: 1, Descriptor: i / shape.perDescriptor})
			}
			out := make([]algo.Decision, checks)
			rng := rand.New(rand.NewPCG(1, 0))
			b.ReportAllocs()
			for b.Loop() {
				for i := range req.Checks {
					benchKey(req.Checks[i].Key).set(rng.Uint32N(benchKeys))
				}
				if err := s.Decide(context.Background(), &req, out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// latencies counts calls by their duration in µs, and keeps the longest processor
// time of one.
type latencies struct {
	calls [1001]int
	work  time.Duration
}

// time times a call. For a slow call it also reads the processor time that its thread
// used: during the rest the machine had other work.
func (l *latencies) time(call func()) {
	before := threadTime()
	start := time.Now()
	call()
	took := time.Since(start)
	l.calls[min(took.Microseconds(), 1000)]++
	if took > l.work {
		l.work = max(l.work, min(took, threadTime()-before))
	}
}

// report reports the 99.99th percentile, the slowest call (1000 stands for more), and
// how many calls exceeded the budget of 100 µs. It also reports the longest processor
// time of a call, which bounds how long it can have made others wait.
func (l *latencies) report(b *testing.B) {
	slow, seen := 0, 0
	p9999, slowest := -1, 0
	for µs, n := range l.calls {
		seen += n
		if p9999 < 0 && seen*10_000 >= b.N*9999 {
			p9999 = µs
		}
		if n > 0 {
			slowest = µs
		}
		if µs >= 100 {
			slow += n
		}
	}
	b.ReportMetric(float64(p9999), "p99.99-µs")
	b.ReportMetric(float64(slowest), "max-µs")
	b.ReportMetric(float64(slow), "calls>100µs")
	b.ReportMetric(float64(l.work.Microseconds()), "max-work-µs")
}

// threadTime is the processor time that this thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// BenchmarkNewKeys adds keys: pages split all the time.
func BenchmarkNewKeys(b *testing.B) {
	l := benchLimit(b, algo.TokenBucket, time.Hour)
	s := newStore(b, memory.Options{MaxKeys: 100_000_000})
	c := newCall(l)
	var times latencies
	n := uint32(0)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		times.time(func() { c.decide(b, s, n) })
		n++
	}
	times.report(b)
}

// decideNew decides one new key after the other, and reports the times.
func decideNew(b *testing.B, s *memory.Store, c *call) {
	var times latencies
	n := uint32(benchKeys)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		times.time(func() { c.decide(b, s, n) })
		n++
	}
	times.report(b)
}

// BenchmarkEvict adds keys to a store of a million that is full.
func BenchmarkEvict(b *testing.B) {
	l := benchLimit(b, algo.TokenBucket, time.Hour)
	s := filled(b, memory.Options{MaxKeys: benchKeys}, l)
	c := newCall(l)
	decideNew(b, s, c)
}

// BenchmarkExpire adds keys while others expire, so that a million are live at any
// time. The calls advance the clock.
func BenchmarkExpire(b *testing.B) {
	var now atomic.Int64
	now.Store(start)
	window := benchKeys * time.Microsecond
	l := benchLimit(b, algo.FixedWindow, window)
	s := filled(b, memory.Options{Clock: now.Load, SweepCycle: time.Second}, l)
	c := newCall(l)
	var times latencies
	n := uint32(benchKeys)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		now.Add(1)
		times.time(func() { c.decide(b, s, n) })
		n++
	}
	times.report(b)
	b.ReportMetric(float64(s.Len())/benchKeys, "kept/live")
}

// BenchmarkMemory reports the memory of a key: as the store accounts for it, by the
// growth of the heap, and by the growth of the process.
func BenchmarkMemory(b *testing.B) {
	for i, name := range algo.Algorithms() {
		for _, keys := range []int{10_000, benchKeys} {
			b.Run(fmt.Sprintf("%s/%d", name, keys), func(b *testing.B) {
				l := benchLimit(b, algo.Algorithm(i), time.Hour)
				for b.Loop() {
					heap, resident := memoryInUse(b)
					s := memory.New(memory.Options{})
					c := newCall(l)
					for n := range uint32(keys) {
						c.decide(b, s, n)
					}
					heapAfter, residentAfter := memoryInUse(b)
					b.ReportMetric(float64(s.Stats().Bytes)/float64(keys), "stats-B/key")
					b.ReportMetric(float64(heapAfter-heap)/float64(keys), "heap-B/key")
					b.ReportMetric(float64(residentAfter-resident)/float64(keys), "resident-B/key")
					if err := s.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// memoryInUse returns the bytes of the heap that are in use and, on Linux, those
// of the process that are resident.
func memoryInUse(b *testing.B) (heap, resident int64) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	statm, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		var size int64
		if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
			b.Fatal(err)
		}
	}
	return int64(m.HeapInuse), resident * int64(os.Getpagesize())
}

// BenchmarkEvictForLog fills the largest sliding log, over and over, in a store that is
// full of a million small keys: the first logs evict thousands of them.
func BenchmarkEvictForLog(b *testing.B) {
	l := benchLimit(b, algo.TokenBucket, time.Hour)
	log := newLimit(b, algo.Params{Algorithm: algo.SlidingLog, Limit: algo.MaxLogLimit, Window: time.Hour})
	s := filled(b, memory.Options{MaxBytes: 90 << 20}, l)
	c := newCall(log)
	c.req.Checks[0].Hits = algo.MaxLogLimit
	decideNew(b, s, c)
}
