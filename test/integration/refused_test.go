package integration

import (
	"strings"
	"testing"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// TestRefusedRequestsChargeNothing as STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT says,
// wherever the counters of a request are.
func TestRefusedRequestsChargeNothing(t *testing.T) {
	t.Parallel()
	const rules = `
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 10}}
  - {key: user, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: second, rate_limit: {unit: second, requests_per_unit: 100000}}
`
	for _, tt := range []struct {
		name  string
		store func(t *testing.T) []string
	}{
		{"memory", func(*testing.T) []string { return nil }},
		{"single", func(t *testing.T) []string {
			return patiently("REDIS_URL=" + redistest.Start(t, redistest.Config{}).Addr)
		}},
		{"per second", func(t *testing.T) []string {
			return patiently("REDIS_URL="+redistest.Start(t, redistest.Config{}).Addr,
				"REDIS_PERSECOND=true", "REDIS_PERSECOND_URL="+redistest.Start(t, redistest.Config{}).Addr)
		}},
		{"cluster", func(t *testing.T) []string {
			return patiently("REDIS_TYPE=CLUSTER", "REDIS_URL="+strings.Join(redistest.StartCluster(t).Addrs(), ","))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			service := startService(t, rules, append(tt.store(t), "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT=true")...)
			request := func(keys ...string) *rls.RateLimitRequest {
				all := harness.Request("edge", 1, keys[0], "x")
				for _, key := range keys[1:] {
					all.Descriptors = append(all.Descriptors, harness.Request("edge", 1, key, "x").Descriptors...)
				}
				return all
			}
			for i := range 6 {
				answer := service.Ask(t, request("tenant", "user", "second"))
				if refused := answer.OverallCode == rls.RateLimitResponse_OVER_LIMIT; refused != (i > 0) {
					t.Errorf("request %d: %v", i, answer.OverallCode)
				}
				if left := answer.Statuses[0].LimitRemaining; left != 9 {
					t.Errorf("request %d: tenant has %d left, want 9", i, left)
				}
			}
			if left := service.Ask(t, request("tenant")).Statuses[0].LimitRemaining; left != 8 {
				t.Errorf("in the end tenant has %d left, want 8", left)
			}
			const hits = `ratelimit_service_rate_limit_within_limit{domain="edge",key1="tenant"}`
			if got := service.Metric(t, hits); got != 2 {
				t.Errorf("%v hits within the limit are counted, want the 2 that were charged", got)
			}
		})
	}
}

// TestRefusalsOutOfLocalMemorySayTheSame as those of Redis.
func TestRefusalsOutOfLocalMemorySayTheSame(t *testing.T) {
	t.Parallel()
	service := startService(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {algorithm: token_bucket, unit: year, requests_per_unit: 2}}\n",
		patiently("REDIS_URL="+redistest.Start(t, redistest.Config{}).Addr, "LOCAL_CACHE_SIZE_IN_BYTES=1000000", "--response-headers")...)
	service.Ask(t, harness.Request("edge", 2, "user", "x"))
	local := func() float64 {
		return service.Metric(t, `ratelimit_service_rate_limit_over_limit_with_local_cache{domain="edge",key1="user"}`)
	}
	var seen [2]bool
	for !seen[0] || !seen[1] {
		before := local()
		answer := service.Ask(t, harness.Request("edge", 1, "user", "x"))
		if local() > before {
			seen[1] = true
		} else {
			seen[0] = true
		}
		if wait := answer.Statuses[0].DurationUntilReset.Seconds; wait > year/2 || wait < year/2-60 {
			t.Errorf("the status says %d s, want about %d", wait, year/2)
		}
		for _, h := range answer.ResponseHeadersToAdd {
			if h.Key == "RateLimit-Reset" && !strings.HasPrefix(h.Value, "315") {
				t.Errorf("the header says %s s, want about %d", h.Value, year)
			}
		}
	}
}
