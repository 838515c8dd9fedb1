package redis_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/backendtest"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// open returns a backend that is connected to the server.
func open(t testing.TB, o redis.Options) *redis.Backend {
	t.Helper()
	return redistest.Open(t, redis.New, o)
}

// TestConformance compares every field of every decision with the reference.
func TestConformance(t *testing.T) {
	t.Parallel()
	conforms(t, redistest.Start(t, redistest.Config{}))
}

// TestConformanceOfRedis62 does the same with a server that has no command that returns
// the expiry of a key, and no SET with an absolute expiry.
func TestConformanceOfRedis62(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{Program: "redis-server-6.2"})
	if version := server.Info("redis_version"); !strings.HasPrefix(version, "6.2.") {
		t.Fatalf("it is Redis %s", version)
	}
	conforms(t, server)
}

// TestServers does the same with each of the servers that REDIS_SERVERS lists, single and
// as a cluster, and measures the bytes per counter.
func TestServers(t *testing.T) {
	list := os.Getenv("REDIS_SERVERS")
	if list == "" {
		t.Skip("make test-servers runs it")
	}
	for program := range strings.FieldsSeq(list) {
		t.Run(program, func(t *testing.T) {
			single := redistest.Start(t, redistest.Config{Program: program})
			t.Run("single", func(t *testing.T) {
				backendtest.Run(t, func(t testing.TB) backendtest.Fixture {
					single.Do("FLUSHALL")
					var now atomic.Int64
					return backendtest.Fixture{Backend: open(t, redis.Options{
						Addrs: []string{single.Addr}, Clock: now.Load, Timeout: unhurried, DialTimeout: unhurried,
					}), SetClock: now.Store}
				})
			})
			t.Run("cluster", func(t *testing.T) {
				if strings.HasPrefix(program, "redis-server-6") {
					t.Skip("it can't choose the port of the cluster's bus")
				}
				s := redistest.StartClusterOfOne(t, redistest.Config{Program: program})
				backendtest.Run(t, func(t testing.TB) backendtest.Fixture {
					s.Do("FLUSHALL")
					var now atomic.Int64
					return backendtest.Fixture{Backend: oneTag{open(t, redis.Options{
						Mode: redis.Cluster, Addrs: []string{s.Addr}, Clock: now.Load, Timeout: unhurried, DialTimeout: unhurried,
					})}, SetClock: now.Store}
				})
			})
			t.Logf("%s %s: %s bytes for a fixed window, %s for a bucket", program, single.Info("redis_version"),
				bytesPerKey(t, single, algo.FixedWindow), bytesPerKey(t, single, algo.TokenBucket))
		})
	}
}

// bytesPerKey returns how much of the server's memory a counter takes, all included.
func bytesPerKey(t *testing.T, s *redistest.Server, a algo.Algorithm) string {
	t.Helper()
	const keys = 50_000
	b := open(t, redis.Options{Addrs: []string{s.Addr}, Timeout: unhurried, DialTimeout: unhurried})
	l := limit(t, algo.Params{Algorithm: a, Limit: 100, Window: 24 * time.Hour})
	used := func() int {
		n, err := strconv.Atoi(s.Info("used_memory"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := hit(b, "first", l, 1); err != nil { // the script is known
		t.Fatal(err)
	}
	s.Do("FLUSHALL", "SYNC")
	before := used()
	out := make([]algo.Decision, 50)
	for n := range keys / len(out) {
		checks := make([]backend.Check, len(out))
		for i := range checks {
			checks[i] = backend.Check{Key: fmt.Append(nil, n, i), Limit: l, Hits: 1, Descriptor: i}
		}
		if err := b.Decide(context.Background(), &backend.Request{Checks: checks}, out); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Text("DBSIZE"); got != strconv.Itoa(keys) {
		t.Fatalf("there are %s keys, want %d", got, keys)
	}
	return strconv.Itoa((used() - before) / keys)
}

func conforms(t *testing.T, server *redistest.Server) {
	for name, o := range map[string]redis.Options{"default": {}, "plain": {NoCombining: true, PlainKeys: true}} {
		t.Run(name, func(t *testing.T) {
			backendtest.Run(t, func(t testing.TB) backendtest.Fixture {
				server.Do("FLUSHALL")
				var now atomic.Int64
				o.Addrs, o.Clock, o.Timeout, o.DialTimeout = []string{server.Addr}, now.Load, unhurried, unhurried
				return backendtest.Fixture{Backend: open(t, o), SetClock: now.Store}
			})
		})
	}
}
