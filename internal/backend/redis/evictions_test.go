package redis

import (
	"strconv"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// TestEvictionsAreSaid runs a Redis with too little memory, which evicts keys.
func TestEvictionsAreSaid(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]int{"noeviction": 0, "allkeys-lru": 1, "volatile-ttl": 1} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, redistest.Config{Args: []string{"--maxmemory", "3mb", "--maxmemory-policy", policy}})
			core, lines := observer.New(zapcore.WarnLevel)
			b, err := New(Options{Addrs: []string{s.Addr}, Log: zap.New(core)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(b.Close)
			redistest.Eventually(t, "Redis was asked", b.evictions.known.Load)
			if lines.Len() != want {
				t.Errorf("the log has %v, want %d warnings", lines.All(), want)
			}
			if want == 0 {
				return
			}
			for n := 0; s.Info("evicted_keys") == "0"; n++ {
				s.Do("SET", strconv.Itoa(n), string(make([]byte, 50_000)), "EX", "1000")
			}
			client, err := b.conn.current()
			if err != nil {
				t.Fatal(err)
			}
			b.evictions.ask(t.Context(), client, b.opts.Log)
			if b.evictions.evicted.Load() == 0 {
				t.Error("no evicted key was reported")
			}
			if lines.Len() != want {
				t.Errorf("the log has %v, want the warning once", lines.All())
			}
		})
	}
}
