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

// patiently returns settings with more time for Redis than is right in production, for a
// busy machine.
func patiently(settings ...string) []string {
	return append([]string{"REDIS_TIMEOUT=10s", "REDIS_PERSECOND_TIMEOUT=10s"}, settings...)
}

// TestReplicasShareCounters has two replicas behind one Envoy each count in one
// Redis, given as envoyproxy/ratelimit's users give it.
func TestReplicasShareCounters(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	settings := patiently("REDIS_SOCKET_TYPE=tcp", "REDIS_URL="+server.Addr, "CACHE_KEY_PREFIX=mine")
	rules := `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: year, requests_per_unit: 5, algorithm: token_bucket}}
`
	first, envoy := start(t, "http.yaml", rules, settings...)
	_, other := start(t, "http.yaml", rules, settings...)
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
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	service := startService(t, `
domain: edge
descriptors:
  - {key: open, rate_limit: {unit: year, requests_per_unit: 1, on_backend_error: allow}}
  - {key: closed, rate_limit: {unit: year, requests_per_unit: 100, on_backend_error: deny}}
  - {key: local, rate_limit: {unit: year, requests_per_unit: 4, on_backend_error: local}}
`, patiently("REDIS_URL=redis://"+server.Addr, "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION=true", "--replicas", "2")...)
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
	// Not in parallel, because the test is about time.
	const (
		deadline = 2 * time.Second
		margin   = deadline / 10
		hops     = 3 // of an answer: the service, gRPC, this process
	)
	server := redistest.Start(t, redistest.Config{})
	service := startService(t, `
domain: edge
descriptors:
  - {key: open, rate_limit: {unit: year, requests_per_unit: 1, on_backend_error: allow}}
`, "REDIS_URL="+server.Addr)
	client := rls.NewRateLimitServiceClient(service.Dial(t))
	var machine turns
	done := make(chan struct{})
	defer close(done)
	go machine.measure(done)
	ask := func(within time.Duration) time.Duration {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		began := time.Now()
		answer, err := client.ShouldRateLimit(ctx, harness.Request("edge", 1, "open", "x"))
		took := time.Since(began)
		// Where this process waits for a third of the margin, an answer may wait for all of it.
		if stall := machine.longest(); (err != nil || answer.OverallCode != rls.RateLimitResponse_OK) && stall < margin/hops {
			t.Errorf("with a deadline in %v: %v, %v; the machine stalled for %v at most", within, answer, err, stall)
		}
		return took
	}
	ask(time.Minute) // which Redis answers
	server.Freeze()
	defer server.Thaw()
	if took := ask(deadline); took < deadline-2*margin {
		t.Errorf("the answer took %v, want nearly the %v that there are", took, deadline)
	}
}

// TestPerSecondRedis looks into both servers for where the counters are.
func TestPerSecondRedis(t *testing.T) {
	t.Parallel()
	others, seconds := redistest.Start(t, redistest.Config{}), redistest.Start(t, redistest.Config{Password: "hush"})
	service := startService(t, `
domain: edge
descriptors:
  - {key: fast, rate_limit: {unit: second, requests_per_unit: 1000000}}
  - {key: slow, rate_limit: {unit: year, requests_per_unit: 10}}
  - {key: both, rate_limits: [{unit: second, requests_per_unit: 1000000}, {unit: year, requests_per_unit: 10}]}
`, patiently("REDIS_SOCKET_TYPE=tcp", "REDIS_URL="+others.Addr,
		"REDIS_PERSECOND=true", "REDIS_PERSECOND_SOCKET_TYPE=tcp", "REDIS_PERSECOND_URL="+seconds.Addr, "REDIS_PERSECOND_AUTH=hush")...)
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
	t.Parallel()
	files := redistest.NewTLS(t)
	others, seconds := redistest.Start(t, redistest.Config{}), redistest.Start(t, redistest.Config{TLS: files})
	service := startService(t, `
domain: edge
descriptors:
  - {key: fast, rate_limit: {unit: second, requests_per_unit: 1000000}}
  - {key: slow, rate_limit: {unit: year, requests_per_unit: 10}}
`, patiently("REDIS_SOCKET_TYPE=tcp", "REDIS_URL="+others.Addr,
		"REDIS_PERSECOND=true", "REDIS_PERSECOND_SOCKET_TYPE=tcp", "REDIS_PERSECOND_URL="+seconds.Addr, "REDIS_PERSECOND_TLS=true",
		"REDIS_TLS_CACERT="+files.CA, "REDIS_TLS_CLIENT_CERT="+files.ClientCert, "REDIS_TLS_CLIENT_KEY="+files.ClientKey)...)
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
