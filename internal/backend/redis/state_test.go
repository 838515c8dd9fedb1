package redis_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// TestStateSize measures what Redis says that counters take, keys, expiry times
// and its tables included. 117 bytes is what a counter of envoyproxy/ratelimit
// takes there. A bucket takes 48 more for the rate on record.
func TestStateSize(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	tests := map[string]struct {
		params algo.Params
		keys   int // Redis' tables are as full at 50,000 as at 200,000
		most   float64
	}{
		"fixed_window":   {algo.Params{Algorithm: algo.FixedWindow, Limit: 100, Window: time.Hour}, 200_000, 117},
		"token_bucket":   {algo.Params{Algorithm: algo.TokenBucket, Limit: 100, Window: time.Hour}, 50_000, 165},
		"leaky_bucket":   {algo.Params{Algorithm: algo.LeakyBucket, Limit: 100, Window: time.Hour}, 50_000, 165},
		"sliding_window": {algo.Params{Algorithm: algo.SlidingWindow, Limit: 100, Window: time.Hour}, 50_000, 117},
		"hybrid":         {algo.Params{Algorithm: algo.Hybrid, Limit: 100, Window: time.Hour}, 50_000, 197},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := limit(t, test.params)
			reach := func(use func(b *redis.Backend)) (memory float64) {
				b := open(t, redis.Options{Addrs: []string{server.Addr}, Timeout: unhurried, DialTimeout: unhurried})
				use(b)
				b.Close() // a connection takes memory too
				return settledMemory(t, server)
			}
			// What Redis allocates but once is no matter: the script, and much else.
			reach(func(b *redis.Backend) { fill(t, b, l, 0, 5000) })
			server.Do("FLUSHALL", "SYNC")
			before := settledMemory(t, server)
			after := reach(func(b *redis.Backend) {
				var done sync.WaitGroup
				const callers = 4
				for n := range callers {
					done.Go(func() { fill(t, b, l, n*test.keys/callers, (n+1)*test.keys/callers) })
				}
				done.Wait()
			})
			if n := server.Text("DBSIZE"); n != strconv.Itoa(test.keys) {
				t.Fatalf("%s keys, want %d", n, test.keys)
			}
			each := (after - before) / float64(test.keys)
			t.Logf("%.2f bytes a key", each)
			// Some 200 kB come and go with buffers, whatever the number of keys, and more on
			// a busy machine; what a key takes changes by 8 bytes or more.
			if each > test.most+max(2, 300_000/float64(test.keys)) {
				t.Errorf("%.2f bytes a key, want at most %g", each, test.most)
			}
		})
	}
}

// settledMemory returns what Redis uses when it no longer changes: it drops the
// buffers of connections, and grows its tables, bit by bit.
func settledMemory(t testing.TB, s *redistest.Server) (used float64) {
	t.Helper()
	redistest.Eventually(t, "connections are closed", func() bool { return s.Info("connected_clients") == "1" })
	same := 0
	redistest.Eventually(t, "memory settles", func() bool {
		now := usedMemory(t, s)
		if now != used {
			used, same = now, 0
		}
		same++
		return same > 50
	})
	return used
}

// fill charges counters, 100 in a request, for descriptors of 24 characters.
func fill(t *testing.T, b backend.Backend, l *algo.Limit, from, to int) {
	out := make([]algo.Decision, 100)
	for from < to {
		var req backend.Request
		for ; len(req.Checks) < len(out) && from < to; from++ {
			req.Checks = append(req.Checks, backend.Check{
				Key: fmt.Appendf(nil, "4:edge|4:user=20:%020d|fw:3600s", from), Limit: l, Hits: 1, Descriptor: len(req.Checks),
			})
		}
		if err := b.Decide(context.Background(), &req, out); err != nil {
			t.Error(err)
			return
		}
	}
}

func usedMemory(t testing.TB, s *redistest.Server) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(s.Info("used_memory"), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLogSize: a full log takes 8 bytes a hit and a constant.
func TestLogSize(t *testing.T) {
	t.Parallel()
	const most = 256 // bytes beside the ring
	server := redistest.Start(t, redistest.Config{})
	b := open(t, redis.Options{Addrs: []string{server.Addr}, Timeout: unhurried, DialTimeout: unhurried})
	for _, n := range []uint32{10, 100, 1000, 10_000, algo.MaxLogLimit} {
		server.Do("FLUSHALL", "SYNC")
		l := limit(t, algo.Params{Algorithm: algo.SlidingLog, Limit: n, Window: time.Hour})
		for charged := uint32(0); charged < n; { // in bites, so that the ring has to grow
			bite := min(1+charged/2, n-charged)
			if d, err := hit(b, "log", l, int64(bite)); err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
			charged += bite
		}
		key := server.Text("RANDOMKEY")
		size, err := strconv.Atoi(server.Text("MEMORY", "USAGE", key))
		if err != nil {
			t.Fatal(err)
		}
		// An allocator rounds large blocks up to a few sizes.
		if size > int(n)*8*5/4+most || n <= 1000 && size > int(n)*8+8*int(n)/4+most {
			t.Errorf("a log of %d takes %d bytes", n, size)
		}
		if length := server.Text("STRLEN", key); length != strconv.Itoa(20+8*int(n)) {
			t.Errorf("a log of %d is %s bytes long, want 8 a hit and 20", n, length)
		}
	}
}

// TestEveryKeyExpires: no key is without a time to live, none lives longer than
// its state means anything, and when all windows have passed there is none left.
func TestEveryKeyExpires(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{Args: []string{"--hz", "100"}})
	b := open(t, redis.Options{Addrs: []string{server.Addr}, PlainKeys: true, Timeout: unhurried, DialTimeout: unhurried})
	const window = 700 * time.Millisecond
	for name, p := range everyProgram {
		p.Window = window
		p.Hold = min(p.Hold, window)
		l := limit(t, p)
		longer := time.Duration(0)
		if l.Holds() { // holds that have expired are found for a minute
			longer = time.Minute
		}
		for _, hits := range []int64{1, 2, -1, 0, 1 << 40, 1} {
			start := time.Now()
			d, err := hit(b, name, l, hits)
			if err != nil {
				t.Fatal(err)
			}
			ttl, err := strconv.Atoi(server.Text("PTTL", "distlimiter:"+strconv.Quote(name)))
			if err != nil {
				t.Fatal(err)
			}
			lives := time.Duration(ttl) * time.Millisecond
			// A key may be gone once a process that stalled has let its time pass.
			due := d.ResetAfter > time.Since(start)+time.Millisecond
			// What is said of a sliding log is when its first hit leaves.
			if due && lives <= 0 && hits != 0 || lives > max(d.ResetAfter, 2*window)+longer+2*time.Millisecond {
				t.Errorf("%s after %d hits: the key lives for %v, and %+v", name, hits, lives, d)
			}
		}
		if l.Holds() {
			server.Do("DEL", "distlimiter:"+strconv.Quote(name))
		}
	}
	redistest.Eventually(t, "all keys have expired", func() bool { return server.Text("DBSIZE") == "0" })
}
