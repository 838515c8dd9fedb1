package redis_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// everyProgram has a limit for each way in which a state is kept.
var everyProgram = map[string]algo.Params{
	"fixed_window":   {Algorithm: algo.FixedWindow, Limit: 5, Window: time.Minute},
	"odd window":     {Algorithm: algo.FixedWindow, Limit: 5, Window: 1_000_003 * time.Microsecond},
	"sliding_window": {Algorithm: algo.SlidingWindow, Limit: 5, Window: time.Minute},
	"strict":         {Algorithm: algo.SlidingWindow, Limit: 5, Window: time.Minute, Strict: true},
	"sliding_log":    {Algorithm: algo.SlidingLog, Limit: 5, Window: time.Minute},
	"large log":      {Algorithm: algo.SlidingLog, Limit: 1000, Window: time.Minute},
	"token_bucket":   {Algorithm: algo.TokenBucket, Limit: 5, Window: time.Minute},
	"counting":       {Algorithm: algo.TokenBucket, Limit: 5, Window: time.Minute, DeniedHits: algo.Count},
	"leaky_bucket":   {Algorithm: algo.LeakyBucket, Limit: 7, Window: time.Minute},
	"hybrid":         {Algorithm: algo.Hybrid, Limit: 5, Window: time.Minute},
	"strict hybrid":  {Algorithm: algo.Hybrid, Limit: 5, Window: time.Minute, Strict: true},
	"concurrency":    {Algorithm: algo.Concurrency, Limit: 5, Window: time.Minute},
	"held window":    {Algorithm: algo.FixedWindow, Limit: 5, Window: time.Minute, Hold: time.Minute},
	"held bucket":    {Algorithm: algo.TokenBucket, Limit: 5, Window: time.Minute, Hold: time.Minute},
	"held hybrid":    {Algorithm: algo.Hybrid, Limit: 5, Window: time.Minute, Strict: true, Hold: time.Minute},
}

// TestDamage puts foreign and damaged values where counters are. Whatever there
// is, every call is answered, and when the counter would have expired a hit
// passes: nothing blocks for ever.
func TestDamage(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	server := redistest.Start(t, redistest.Config{})
	b, now := controlled(t, server)
	for name, p := range everyProgram {
		t.Run(name, func(t *testing.T) {
			l := limit(t, p)
			key := "damage " + name
			stored := "distlimiter:" + strconv.Quote(key)
			at := int64(1_700_000_000_000_000)
			check := func(what string) {
				t.Helper()
				for _, hits := range []int64{1, 0, -1, 3, 1 << 40} {
					d, err := hit(b, key, l, hits)
					if err != nil {
						t.Fatalf("%s, %d hits: %v", what, hits, err)
					}
					if d.Remaining > l.Capacity() || d.ResetAfter < 0 || d.RetryAfter < 0 {
						t.Errorf("%s, %d hits: %+v", what, hits, d)
					}
				}
				at += 3 * p.Window.Microseconds()
				now.Store(at)
				if d, err := hit(b, key, l, 1); err != nil || !d.Allowed {
					t.Errorf("%s, three windows later: %+v, %v", what, d, err)
				}
			}
			now.Store(at)
			for _, foreign := range [][]string{
				{"LPUSH", stored, "a", "b"}, {"HSET", stored, "a", "b"}, {"ZADD", stored, "1", "a"}, {"SADD", stored, "a"},
				{"SET", stored, ""}, {"SET", stored, "hello"}, {"SET", stored, "5"}, {"SET", stored, "-5"},
				{"SET", stored, "5", "PX", "100000"}, {"SET", stored, "999999999999999", "PX", "9999999999999"},
				{"SET", stored, "1e300"}, {"SET", stored, "nan"}, {"SET", stored, "0x10"}, {"SET", stored, " 1"},
				{"SETRANGE", stored, "100000", "x"}, {"SETRANGE", stored, "1043", "x"},
			} {
				server.Do("DEL", stored)
				server.Do(foreign...)
				check(fmt.Sprint(foreign))
			}
			for range 100 {
				now.Store(at)
				if _, err := hit(b, key, l, 1+rng.Int64N(l.Capacity())); err != nil {
					t.Fatal(err)
				}
				value := []byte(server.Text("GET", stored))
				ttl := server.Text("PTTL", stored)
				switch rng.IntN(5) {
				case 0:
					value = value[:rng.IntN(len(value)+1)]
				case 1:
					value = append(value, byte(rng.UintN(256)))
				case 2: // a number that Redis' own arithmetic does not take for one
					value = append([]byte("00"), value...)
				default:
					for range 1 + rng.IntN(4) {
						value[rng.IntN(len(value))] = byte(rng.UintN(256))
					}
				}
				server.Do("SET", stored, string(value), "PX", ttl)
				check(fmt.Sprintf("%q for %s ms", value, ttl))
			}
		})
	}
}
