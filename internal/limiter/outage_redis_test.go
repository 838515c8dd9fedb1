package limiter_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/backend/persecond"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

func openRedis(t *testing.T, o redis.Options) *redis.Backend {
	t.Helper()
	o.Timeout, o.DialTimeout = 5*time.Second, 5*time.Second // for a busy machine
	return redistest.Open(t, redis.New, o)
}

// try asks once, and waits until hits are given back.
func (f *fixture) try(ds ...*ask) (code, failure) {
	resp, err := f.decide(context.Background(), "edge", ds...)
	f.Close()
	return resp.OverallCode, failureOf(err)
}

// TestOneOfTwoRedisServersIsDead: each limit whose server works is decided. If the request
// is answered with an error, its charge is given back.
func TestOneOfTwoRedisServersIsDead(t *testing.T) {
	t.Parallel()
	const yaml = `
domain: edge
descriptors:
  - {key: %[1]s_allow, rate_limit: {unit: %[1]s, requests_per_unit: 3, on_backend_error: allow}}
  - {key: %[1]s_error, rate_limit: {unit: %[1]s, requests_per_unit: 3}}
  - {key: %[1]s_deny, rate_limit: {unit: %[1]s, requests_per_unit: 3, on_backend_error: deny}}
  - {key: %[1]s_local, rate_limit: {unit: %[1]s, requests_per_unit: 3, on_backend_error: local}}
  - {key: %[1]s_shadow, shadow_mode: true, rate_limit: {unit: %[1]s, requests_per_unit: 3}}
  - {key: both, rate_limits: [{unit: %[1]s, requests_per_unit: 9}, {unit: %[2]s, requests_per_unit: 3}]}
  - {key: both_deny, rate_limits: [{unit: %[1]s, requests_per_unit: 9, on_backend_error: deny, denied_hits: drop}, {unit: %[2]s, requests_per_unit: 3, denied_hits: drop}]}
  - {key: well, rate_limit: {unit: %[2]s, requests_per_unit: 3, on_backend_error: allow}}
`
	for name, tt := range map[string]struct{ dead, well string }{
		"that of limits per second": {"second", "hour"}, "that of the others": {"hour", "second"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := map[string]*redistest.Server{"second": redistest.Start(t, redistest.Config{}), "hour": redistest.Start(t, redistest.Config{})}
			var now atomic.Int64
			now.Store(noon)
			f := serve(t, fmt.Sprintf(yaml, tt.dead, tt.well), func(o *limiter.Options) {
				o.Local, o.Spread = store(t, &now), true
				// Seconds that do not pass, so that a slow machine changes nothing.
				o.Backend = &persecond.Backend{
					Seconds: openRedis(t, redis.Options{Addrs: []string{servers["second"].Addr}, Clock: now.Load}),
					Others:  openRedis(t, redis.Options{Addrs: []string{servers["hour"].Addr}, Clock: now.Load}),
				}
			})
			well := desc("well=full")
			if got := f.admitted(4, well, desc("both=full")); got != 3 {
				t.Fatalf("%d pass before, want 3", got)
			}
			servers[tt.dead].Kill()
			for _, dead := range []string{"allow", "error", "deny", "local", "shadow"} {
				if code, err := f.try(desc(tt.dead+"_"+dead+"=a"), well); code != over || err != none {
					t.Errorf("used up, beside %s: %v, error %v; want a refusal", dead, code, err)
				}
			}
			if code, err := f.try(desc("both=full")); code != over || err != none {
				t.Errorf("used up, in one descriptor: %v, error %v; want a refusal", code, err)
			}

			for range 5 {
				for _, ask := range [][]*ask{
					{desc("well=a"), desc(tt.dead + "_error=a")}, {desc("both=a")},
				} {
					if code, err := f.try(ask...); err != backendFailed {
						t.Errorf("%v: %v, error %v; want an error", ask, code, err)
					}
				}
				if code, err := f.try(desc("both_deny=a")); code != over || err != none {
					t.Errorf("both, one denied: %v, error %v; want a refusal", code, err)
				}
			}
			for i, want := range []code{ok, ok, ok, over} { // all room is there still
				if code, err := f.try(desc("well=a"), desc(tt.dead+"_allow=a"), desc(tt.dead+"_shadow=a")); code != want || err != none {
					t.Errorf("after errors, request %d: %v, error %v; want %v", i, code, err, want)
				}
			}
			servers[tt.dead].Restart()
			redistest.Eventually(t, "the server is back", func() bool {
				_, err := f.try(withHits(desc(tt.dead+"_error=a"), 0))
				return err == none
			})
			for _, key := range []string{"both", "both_deny"} {
				if got := f.admitted(4, desc(key+"=a")); got != 3 {
					t.Errorf("%s: %d pass after the outage, want 3: nothing was charged", key, got)
				}
			}
		})
	}
}

// TestClusterWithADeadMaster: a client can't pass a limit that is used up by naming a
// second value whose slot is gone.
func TestClusterWithADeadMaster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	for _, s := range append(c.Masters, c.Replicas...) { // the other masters go on
		s.Do("CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	f := serve(t, `
domain: edge
descriptors:
  - {key: error, rate_limit: {unit: hour, requests_per_unit: 3}}
  - {key: allow, rate_limit: {unit: hour, requests_per_unit: 3, on_backend_error: allow}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 3}}
`, func(o *limiter.Options) {
		o.Spread = true
		now := &atomic.Int64{}
		now.Store(noon)
		o.Backend = openRedis(t, redis.Options{Mode: redis.Cluster, Addrs: c.Addrs(), Clock: now.Load})
	})
	const values = 24
	value := func(rule string, i int) *ask { return desc(fmt.Sprintf("%s=%d", rule, i)) }
	for i := range values {
		if got := f.admitted(4, value("allow", i)); got != 3 {
			t.Fatalf("%d pass before, want 3", got)
		}
	}
	c.Replicas[0].Kill() // nobody takes over
	c.Masters[0].Kill()

	// Single requests show which values are gone.
	var dead, well, full []int
	redistest.Eventually(t, "some values fail, and others do not", func() bool {
		dead, well, full = nil, nil, nil
		for i := range values {
			if _, err := f.try(withHits(value("error", i), 0)); err == none {
				well = append(well, i)
			} else {
				dead = append(dead, i)
			}
			if code, _ := f.try(value("allow", i)); code == over {
				full = append(full, i)
			}
		}
		return len(dead) > 0 && len(well) > 0 && len(full) > 0
	})
	for _, i := range full {
		for _, beside := range []*ask{value("error", dead[0]), value("shadow", dead[0])} {
			for _, ask := range [][]*ask{{value("allow", i), beside}, {beside, value("allow", i)}} {
				if code, err := f.try(ask...); code != over || err != none {
					t.Errorf("%v: %v, error %v; want a refusal, because one is used up", ask, code, err)
				}
			}
		}
	}
	for range 5 {
		if code, err := f.try(value("error", well[0]), value("error", dead[0])); err != backendFailed {
			t.Errorf("%v, error %v; want an error", code, err)
		}
	}
	if got := f.admitted(4, value("error", well[0])); got != 3 {
		t.Errorf("%d pass after errors, want 3: what was charged for them went back", got)
	}
	if code, err := f.try(value("shadow", dead[0]), value("shadow", well[0])); code != ok || err != none {
		t.Errorf("rehearsals: %v, error %v", code, err)
	}
}
