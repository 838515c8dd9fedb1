package redis_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/backendtest"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// TestProxies counts through proxies that do not let HELLO pass, and again after an
// outage of the Redis behind them.
func TestProxies(t *testing.T) {
	t.Parallel()
	l := limit(t, algo.Params{Algorithm: algo.TokenBucket, Limit: 3, Window: 24 * time.Hour})
	for name, test := range map[string]struct {
		server redistest.Config
		proxy  func(t *testing.T, s *redistest.Server) string
		db     int
		reason string
	}{
		"Envoy's redis_proxy": {redistest.Config{}, func(t *testing.T, s *redistest.Server) string { return redistest.StartEnvoy(t, s) }, 0, "NOPROTO"},
		"one that closes at HELLO": {redistest.Config{}, func(t *testing.T, s *redistest.Server) string {
			return redistest.StartClosing(t, s, "HELLO")
		}, 0, "EOF"},
		"one that closes at HELLO and INFO": {redistest.Config{}, func(t *testing.T, s *redistest.Server) string {
			return redistest.StartClosing(t, s, "HELLO", "INFO")
		}, 0, "EOF"},
		"one that closes at HELLO, a password and a database": {redistest.Config{Password: "right"}, func(t *testing.T, s *redistest.Server) string {
			return redistest.StartClosing(t, s, "HELLO")
		}, 5, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, test.server)
			core, lines := observer.New(zapcore.InfoLevel)
			b := open(t, redis.Options{
				Addrs: []string{test.proxy(t, s)}, Password: redis.Secret(test.server.Password), DB: test.db, Log: zap.New(core),
			})
			used := lines.FilterMessage("Redis does not speak RESP3: using RESP2").All()
			if len(used) != 1 || !strings.Contains(used[0].ContextMap()["refusal"].(string), test.reason) {
				t.Errorf("the log has %v, want a line that %s made it RESP2", lines.All(), test.reason)
			}
			redistest.Eventually(t, "it is answered", func() bool {
				_, err := hit(b, "another", l, 0)
				return err == nil
			})
			countsThree(t, b, l)
			s.Kill()
			redistest.Eventually(t, "calls are suspended", func() bool { return !b.Healthy() })
			s.Restart()
			redistest.Eventually(t, "it is healthy again", b.Healthy)
			countsThree(t, b, l)
			if n := lines.FilterMessage("Redis does not speak RESP3: using RESP2").Len(); n != 1 {
				t.Errorf("RESP2 was found out %d times, want once", n)
			}
		})
	}
}

// sharded are the proxies that spread keys over servers.
var sharded = map[string]func(t testing.TB, servers ...*redistest.Server) string{
	"Envoy's redis_proxy": redistest.StartEnvoy, "twemproxy": redistest.StartTwemproxy,
}

// oneTag is a backend all of whose counters have one hash tag.
type oneTag struct{ backend.Backend }

// Decide implements [backend.Backend].
func (b oneTag) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	tagged := *req
	tagged.Checks = slices.Clone(req.Checks)
	for i := range tagged.Checks {
		c := &tagged.Checks[i]
		c.Key, c.Shard = append([]byte("tag"), c.Key...), len("tag")
	}
	return b.Backend.Decide(ctx, &tagged, out)
}

// TestConformanceBehindShardingProxies compares every field of every decision with
// the reference, for counters that share a hash tag.
func TestConformanceBehindShardingProxies(t *testing.T) {
	t.Parallel()
	for name, start := range sharded {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := []*redistest.Server{redistest.Start(t, redistest.Config{}), redistest.Start(t, redistest.Config{})}
			addr := start(t, servers...)
			backendtest.Run(t, func(t testing.TB) backendtest.Fixture {
				for _, s := range servers {
					s.Do("FLUSHALL")
				}
				var now atomic.Int64
				b := open(t, redis.Options{
					Mode: redis.Proxy, Addrs: []string{addr}, Clock: now.Load, Timeout: unhurried, DialTimeout: unhurried,
				})
				return backendtest.Fixture{Backend: oneTag{b}, SetClock: now.Store}
			})
		})
	}
}

// TestLongValuesPassEachProxy: counters whose clients sent as much as Envoy takes count like
// others, also where their keys are readable.
func TestLongValuesPassEachProxy(t *testing.T) {
	t.Parallel()
	l := limit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: 2, Window: 24 * time.Hour})
	for name, start := range sharded {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, redis.Options{
				Mode: redis.Proxy, Addrs: []string{start(t, redistest.Start(t, redistest.Config{}))}, PlainKeys: true,
				Timeout: unhurried, DialTimeout: unhurried,
			})
			for _, n := range []int{1, 1 << 10, 1<<10 + 1, 17 << 10, 60 << 10} {
				for _, text := range []string{"x", "\x00", "{"} {
					key := strings.Repeat(text, n)
					for i, want := range []bool{true, true, false} {
						if d, err := hit(b, key, l, 1); err != nil || d.Allowed != want {
							t.Fatalf("request %d of %d times %q: %t, want %t; %v", i+1, n, text, d.Allowed, want, err)
						}
					}
				}
			}
		})
	}
}

// TestShardingProxyWithADeadServer: counters of the other server are decided as before,
// and its calls are not suspended.
func TestShardingProxyWithADeadServer(t *testing.T) {
	t.Parallel()
	l := limit(t, algo.Params{Algorithm: algo.TokenBucket, Limit: 100, Window: 24 * time.Hour})
	for name, start := range sharded {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dead, well := redistest.Start(t, redistest.Config{}), redistest.Start(t, redistest.Config{})
			core, lines := observer.New(zapcore.InfoLevel)
			b := open(t, redis.Options{Mode: redis.Proxy, Addrs: []string{start(t, dead, well)}, Log: zap.New(core)})
			keys := map[bool][]string{} // by whether the server works
			for n := range 40 {
				key, held := strconv.Itoa(n), well.Text("DBSIZE")
				if _, err := hit(b, key, l, 1); err != nil {
					t.Fatal(err)
				}
				is := well.Text("DBSIZE") != held
				keys[is] = append(keys[is], key)
			}
			if len(keys[true]) == 0 || len(keys[false]) == 0 {
				t.Fatalf("the counters are on the servers like this: %v", keys)
			}
			dead.Kill()
			for range 3 {
				for _, key := range keys[false] {
					if _, err := hit(b, key, l, 1); !errors.Is(err, redis.ErrUnavailable) || errors.Is(err, redis.ErrSuspended) {
						t.Errorf("a counter of the dead server: %v", err)
					}
				}
				for _, key := range keys[true] {
					if _, err := hit(b, key, l, 1); err != nil {
						t.Errorf("a counter of the other server: %v", err)
					}
				}
			}
			if !b.Healthy() || lines.Len() > 0 {
				t.Errorf("healthy: %v, with the log %v", b.Healthy(), lines.All())
			}
			dead.Restart()
			redistest.Eventually(t, "all is decided again", func() bool {
				_, err := hit(b, keys[false][0], l, 1)
				return err == nil
			})
		})
	}
}
