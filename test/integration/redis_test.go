package integration

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// patiently gives a busy machine more time than is right in production.
func patiently(t *testing.T) {
	t.Setenv("REDIS_TIMEOUT", "10s")
	t.Setenv("REDIS_PERSECOND_TIMEOUT", "10s")
}

// TestReplicasShareCounters has two replicas behind one Envoy each count in one
// Redis, given as envoyproxy/ratelimit's users give it.
func TestReplicasShareCounters(t *testing.T) {
	patiently(t)
	server := redistest.Start(t, redistest.Config{})
	t.Setenv("REDIS_SOCKET_TYPE", "tcp")
	t.Setenv("REDIS_URL", server.Addr)
	t.Setenv("CACHE_KEY_PREFIX", "mine")

	rules := `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: year, requests_per_unit: 5, algorithm: token_bucket}}
`
	first, envoy := start(t, "http.yaml", rules)
	_, other := start(t, "http.yaml", rules)
	for i := range 5 {
		answer := get(t, []*harness.Envoy{envoy, other}[i%2], http.StatusOK, "x-user", "alice")
		remaining(t, answer, 4-i)
	}
	get(t, envoy, http.StatusTooManyRequests, "x-user", "alice")
	get(t, other, http.StatusTooManyRequests, "x-user", "alice")
	get(t, other, http.StatusOK, "x-user", "bob")
	found := server.Do("KEYS", "mine:*")
	if keys, err := found.AsStrSlice(); err != nil || len(keys) != 2 {
		t.Errorf("keys %q, error %v; want one for alice and one for bob", keys, err)
	}
	if n := first.Metric(t, "ratelimit_redis_connected"); n != 1 {
		t.Errorf("ratelimit_redis_connected is %v", n)
	}

	// Counters outlive the replicas.
	first.Stop(t)
	first.Restart(t)
	harness.Eventually(t, "Envoy finds the service again", func() bool {
		return envoy.Get(t, "/", "x-user", "alice").Status == http.StatusTooManyRequests
	})
}

// TestRedisGoesAndComes shows the three answers without a store, and health.
func TestRedisGoesAndComes(t *testing.T) {
	patiently(t)
	server := redistest.Start(t, redistest.Config{})
	t.Setenv("REDIS_URL", "redis://"+server.Addr)
	t.Setenv("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION", "true")
	service := startService(t, `
domain: edge
descriptors:
  - {key: open, rate_limit: {unit: year, requests_per_unit: 1, on_backend_error: allow}}
  - {key: closed, rate_limit: {unit: year, requests_per_unit: 100, on_backend_error: deny}}
  - {key: local, rate_limit: {unit: year, requests_per_unit: 4, on_backend_error: local}}
`, "--replicas", "2")
	codes := func(key string, n int) (text string) {
		for range n {
			text += service.Ask(t, harness.Request("edge", 1, key, "x")).OverallCode.String() + " "
		}
		return text
	}
	const ok, over = "OK ", "OVER_LIMIT "
	for _, key := range []string{"open", "closed"} {
		if got := codes(key, 1); got != ok {
			t.Errorf("%s with Redis: %s", key, got)
		}
	}
	server.Kill()
	harness.Eventually(t, "the service is unhealthy", func() bool {
		return httpStatus(t, service.HTTP, "/healthcheck") == http.StatusServiceUnavailable
	})
	for key, want := range map[string]string{"open": ok + ok + ok, "closed": over + over + over, "local": ok + ok + over} {
		if got := codes(key, 3); got != want {
			t.Errorf("%s without Redis: %s, want %s", key, got, want)
		}
	}
	server.Restart()
	harness.Eventually(t, "the service is healthy again", func() bool {
		return httpStatus(t, service.HTTP, "/healthcheck") == http.StatusOK
	})
	if got := codes("local", 4); got != ok+ok+ok+ok {
		t.Errorf("local with Redis again: %s", got)
	}
}

// TestAnswersComeBeforeTheDeadline asks with a deadline, as Envoy does, while Redis is
// frozen. What on_backend_error answers is there in time.
func TestAnswersComeBeforeTheDeadline(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	t.Setenv("REDIS_URL", server.Addr)
	service := startService(t, `
domain: edge
descriptors:
  - {key: open, rate_limit: {unit: year, requests_per_unit: 1, on_backend_error: allow}}
`)
	client := rls.NewRateLimitServiceClient(service.Dial(t))
	ask := func(within time.Duration) time.Duration {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		began := time.Now()
		answer, err := client.ShouldRateLimit(ctx, harness.Request("edge", 1, "open", "x"))
		if err != nil || answer.OverallCode != rls.RateLimitResponse_OK {
			t.Errorf("with a deadline in %v: %v, %v", within, answer, err)
		}
		return time.Since(began)
	}
	ask(time.Minute) // which Redis answers
	server.Freeze()
	defer server.Thaw()
	if took := ask(time.Second); took < 800*time.Millisecond {
		t.Errorf("the answer took %v, want nearly the second that there is", took)
	}
}

// TestPerSecondRedis looks into both servers for where the counters are.
func TestPerSecondRedis(t *testing.T) {
	patiently(t)
	others, seconds := redistest.Start(t, redistest.Config{}), redistest.Start(t, redistest.Config{Password: "hush"})
	t.Setenv("REDIS_SOCKET_TYPE", "tcp")
	t.Setenv("REDIS_URL", others.Addr)
	t.Setenv("REDIS_PERSECOND", "true")
	t.Setenv("REDIS_PERSECOND_SOCKET_TYPE", "tcp")
	t.Setenv("REDIS_PERSECOND_URL", seconds.Addr)
	t.Setenv("REDIS_PERSECOND_AUTH", "hush")
	service := startService(t, `
domain: edge
descriptors:
  - {key: fast, rate_limit: {unit: second, requests_per_unit: 1000000}}
  - {key: slow, rate_limit: {unit: year, requests_per_unit: 10}}
  - {key: both, rate_limits: [{unit: second, requests_per_unit: 1000000}, {unit: year, requests_per_unit: 10}]}
`)
	calls := func() string {
		return fmt.Sprint(service.Metric(t, `ratelimit_redis_calls_total{redis="main",result="ok"}`), " ",
			service.Metric(t, `ratelimit_redis_calls_total{redis="per_second",result="ok"}`))
	}
	for _, step := range []struct{ key, want string }{{"fast", "0 1"}, {"slow", "1 1"}, {"both", "2 2"}} {
		if answer := service.Ask(t, harness.Request("edge", 1, step.key, "x")); answer.OverallCode != rls.RateLimitResponse_OK {
			t.Errorf("%s: %v", step.key, answer)
		}
		if got := calls(); got != step.want {
			t.Errorf("calls after %s: %s, want %s", step.key, got, step.want)
		}
	}
	if n := others.Text("DBSIZE"); n != "2" {
		t.Errorf("%s keys in the main Redis, want 2: one limit of both is in the other", n)
	}
}

// TestOnlyThePerSecondRedisHasTLS: the files of REDIS_TLS_… are for the connection that
// has TLS on, as with envoyproxy/ratelimit.
func TestOnlyThePerSecondRedisHasTLS(t *testing.T) {
	patiently(t)
	files := redistest.NewTLS(t)
	others, seconds := redistest.Start(t, redistest.Config{}), redistest.Start(t, redistest.Config{TLS: files})
	for name, value := range map[string]string{
		"REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": others.Addr,
		"REDIS_PERSECOND": "true", "REDIS_PERSECOND_SOCKET_TYPE": "tcp", "REDIS_PERSECOND_URL": seconds.Addr, "REDIS_PERSECOND_TLS": "true",
		"REDIS_TLS_CACERT": files.CA, "REDIS_TLS_CLIENT_CERT": files.ClientCert, "REDIS_TLS_CLIENT_KEY": files.ClientKey,
	} {
		t.Setenv(name, value)
	}
	service := startService(t, `
domain: edge
descriptors:
  - {key: fast, rate_limit: {unit: second, requests_per_unit: 1000000}}
  - {key: slow, rate_limit: {unit: year, requests_per_unit: 10}}
`)
	for _, key := range []string{"fast", "slow"} {
		if answer := service.Ask(t, harness.Request("edge", 1, key, "x")); answer.OverallCode != rls.RateLimitResponse_OK {
			t.Errorf("%s: %v", key, answer)
		}
	}
	for _, redis := range []string{"main", "per_second"} {
		if n := service.Metric(t, `ratelimit_redis_calls_total{redis="`+redis+`",result="ok"}`); n != 1 {
			t.Errorf("%v calls of the Redis %s, want 1", n, redis)
		}
	}
}

// httpStatus returns that of a page.
func httpStatus(t *testing.T, addr, path string) int {
	t.Helper()
	answer, err := http.Get("http://" + addr + path)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}
