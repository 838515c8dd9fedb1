package redis

import (
	"fmt"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// BenchmarkHold asks and settles, in two calls, while a number of other requests hold in
// the counter, and reports Redis' own CPU time for both calls. Beside it are two calls
// under a fixed window.
func BenchmarkHold(b *testing.B) {
	server := redistest.Start(b, redistest.Config{})
	store, err := New(Options{Addrs: []string{server.Addr}, Timeout: 5 * time.Second, DialTimeout: 5 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(store.Close)
	if err := store.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	call := func(l *algo.Limit, h algo.Hold) {
		checks := []backend.Check{{Key: []byte("counter"), Limit: l, Hits: 1, Hold: h}}
		o := newOp(checks, false, make([]algo.Decision, 1), time.Now(), time.Now().Add(store.opts.Timeout))
		if store.call([]*op{o}, o.deadline); o.err != nil {
			b.Fatal(o.err)
		}
	}
	measure := func(name string, l *algo.Limit, held int) {
		b.Run(name, func(b *testing.B) {
			server.Do("FLUSHALL")
			for i := range held {
				call(l, algo.Hold{ID: uint64(1 + i)})
			}
			before := server.CPU()
			for n := uint64(10_000); b.Loop(); n++ {
				call(l, algo.Hold{ID: n})
				call(l, algo.Hold{ID: n, Settles: l.Holds()})
			}
			b.ReportMetric(float64((server.CPU()-before).Nanoseconds())/float64(b.N), "redis-ns/2calls")
		})
	}
	for _, c := range []struct {
		name string
		p    algo.Params
	}{
		{"concurrency", algo.Params{Algorithm: algo.Concurrency, Limit: algo.MaxHeld, Window: time.Hour}},
		{"fixed_window", algo.Params{Limit: 1_000_000_000, Window: algo.MaxWindow, Hold: time.Hour}},
	} {
		l, err := algo.New(c.p)
		if err != nil {
			b.Fatal(err)
		}
		for _, held := range []int{0, 10, 100, algo.MaxHeld - 1} {
			measure(fmt.Sprintf("%s/held=%d", c.name, held), l, held)
		}
	}
	plain, err := algo.New(algo.Params{Limit: 1_000_000_000, Window: algo.MaxWindow})
	if err != nil {
		b.Fatal(err)
	}
	measure("without a hold", plain, 0)
}
