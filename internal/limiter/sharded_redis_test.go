package limiter_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// TestShardingProxyCountsOnce: of two servers behind a proxy that spreads the keys only
// one holds a counter, whatever else a request names.
func TestShardingProxyCountsOnce(t *testing.T) {
	t.Parallel()
	servers := []*redistest.Server{redistest.Start(t, redistest.Config{}), redistest.Start(t, redistest.Config{})}
	proxy := redistest.StartEnvoy(t, servers...)
	for name, test := range map[string]struct {
		rules string
		fail  bool // whether a refused request charges no other descriptor
	}{
		"each for itself": {`
domain: edge
descriptors:
  - {key: fw, rate_limit: {unit: hour, requests_per_unit: 1000}}
  - {key: sw, rate_limit: {unit: hour, requests_per_unit: 3, algorithm: sliding_window}}
`, false},
		"several limits of a rule": {`
domain: edge
descriptors:
  - {key: fw, rate_limits: [{unit: hour, requests_per_unit: 1000}, {unit: day, requests_per_unit: 2000, algorithm: token_bucket}]}
  - {key: sw, rate_limits: [{unit: hour, requests_per_unit: 3, algorithm: sliding_window}, {unit: day, requests_per_unit: 100}]}
`, false},
		"all or nothing": {`
domain: edge
consume: all_or_nothing
descriptors:
  - {key: fw, rate_limit: {unit: hour, requests_per_unit: 12}}
  - {key: sw, rate_limit: {unit: hour, requests_per_unit: 3, algorithm: sliding_window}}
`, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range servers {
				s.Do("FLUSHALL")
			}
			f := serve(t, test.rules, func(o *limiter.Options) {
				o.Spread = redis.Proxy.Spreads()
				now := &atomic.Int64{}
				now.Store(noon)
				o.Backend = openRedis(t, redis.Options{Mode: redis.Proxy, Addrs: []string{proxy}, Clock: now.Load})
			})
			passed := 0
			for i := range 12 {
				fw := "fw=same"
				if !test.fail {
					fw = fmt.Sprintf("fw=y%d", i)
				}
				if code, _ := f.try(desc(fw), desc("sw=SAME")); code == ok {
					passed++
				}
			}
			if passed != 3 {
				t.Errorf("%d pass, want 3", passed)
			}
			if test.fail {
				if got := f.admitted(12, desc("fw=same")); got != 9 {
					t.Errorf("%d are left of what refused requests named, want 9", got)
				}
				return
			}
			for i, s := range servers {
				if s.Text("DBSIZE") == "0" {
					t.Errorf("server %d has no counter", i)
				}
			}
		})
	}
}
