package redis_test

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// TestRedisIsLookedForOften starts without Redis, and watches how the pauses
// between attempts to reach it grow: to a second, so that a replica that was started
// meanwhile is not the last to find Redis again.
func TestRedisIsLookedForOften(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	server.Kill()
	core, seen := observer.New(zapcore.WarnLevel)
	b, err := redis.New(redis.Options{Addrs: []string{server.Addr}, Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	attempts := func() []observer.LoggedEntry { return seen.FilterMessage("no connection to Redis").All() }
	redistest.Eventually(t, "it has tried seven times", func() bool { return len(attempts()) >= 7 })
	last := time.Duration(0)
	for _, a := range attempts() {
		pause, ok := a.ContextMap()["next_try"].(time.Duration)
		if !ok || pause < last || pause > time.Second {
			t.Errorf("%v after %v, want a pause that grows to a second", a.ContextMap(), last)
		}
		last = pause
	}
	if last != time.Second {
		t.Errorf("the last pause was %v, want a second", last)
	}
	server.Restart()
	if err := b.Ready(timeout(unhurried)); err != nil {
		t.Error(err)
	}
}
