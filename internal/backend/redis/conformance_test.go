package redis_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/distlimiter/ratelimit/internal/backend/backendtest"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// open returns a backend of the server that is ready.
func open(t testing.TB, o redis.Options) *redis.Backend {
	t.Helper()
	return redistest.Open(t, redis.New, o)
}

// TestConformance compares every field of every decision with the reference.
func TestConformance(t *testing.T) {
	t.Parallel()
	conforms(t, redistest.Start(t, redistest.Config{}))
}

// TestConformanceOfRedis62 does so with a server that has no command for when a key
// expires and no SET until a time.
func TestConformanceOfRedis62(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{Program: "redis-server-6.2"})
	if version := server.Info("redis_version"); !strings.HasPrefix(version, "6.2.") {
		t.Fatalf("it is Redis %s", version)
	}
	conforms(t, server)
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
