package redis_test

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// TestProxies counts through proxies that do not let HELLO pass, and again when
// Redis behind them was gone.
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
