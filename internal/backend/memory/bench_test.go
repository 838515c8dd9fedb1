package memory_test

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
)

const benchKeys = 1_000_000

// benchKey is a counter key as the matcher makes them of a descriptor of 24
// bytes. It is rewritten in place: keys that lay in memory by the million would
// cost more to read than the decision.
type benchKey []byte

func newBenchKey() benchKey { return benchKey("4:edge|4:user=20:client-0000000000000|tb:60s") }

func (k benchKey) set(n uint32) []byte {
	const digits = "0123456789abcdef"
	at := k[len(k)-len("0000000|tb:60s"):]
	for i := range 6 {
		at[i] = digits[n>>(4*i)&15]
	}
	return k
}

func benchLimit(b testing.TB, a algo.Algorithm) *algo.Limit {
	l, err := algo.New(algo.Params{Algorithm: a, Limit: 100, Window: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func decide(b testing.TB, s *memory.Store, key []byte, l *algo.Limit) algo.Decision {
	var out [1]algo.Decision
	req := backend.Request{Checks: []backend.Check{{Key: key, Limit: l, Hits: 1}}}
	if err := s.Decide(context.Background(), &req, out[:]); err != nil {
		b.Fatal(err)
	}
	return out[0]
}

// BenchmarkDecide is one decision on one of a million keys, at random.
func BenchmarkDecide(b *testing.B) {
	for i, name := range algo.Algorithms() {
		b.Run(name, func(b *testing.B) {
			s := memory.New(memory.Options{})
			defer s.Close()
			l := benchLimit(b, algo.Algorithm(i))
			key := newBenchKey()
			for n := range uint32(benchKeys) {
				decide(b, s, key.set(n), l)
			}
			var seed atomic.Uint64
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				rng := rand.New(rand.NewPCG(seed.Add(1), 0))
				key := newBenchKey()
				out := make([]algo.Decision, 1)
				req := backend.Request{Checks: []backend.Check{{Limit: l, Hits: 1}}}
				for pb.Next() {
					req.Checks[0].Key = key.set(rng.Uint32N(benchKeys))
					if err := s.Decide(context.Background(), &req, out); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.ReportMetric(float64(s.Stats().Bytes)/benchKeys, "B/key")
		})
	}
}
