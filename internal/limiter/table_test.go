package limiter_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

const byPlan = `
domain: edge
descriptors:
  - key: user
    rate_limit: {name: per_user, algorithm: %s, unit: minute, requests_per_unit: {by: plan, values: {gold: 10, silver: 4, none: 0}, default: 2}}
    descriptors:
      - {key: path, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: other, rate_limit: {unit: minute, requests_per_unit: 1}}
`

func TestALimitFollowsAnEntryWhereverItStands(t *testing.T) {
	f := serve(t, fmt.Sprintf(byPlan, "token_bucket"))
	for i, c := range []struct {
		descriptor string // %d: a user of its own
		limit      int
	}{
		{"user=u%d,plan=gold", 10}, {"plan=gold,user=u%d", 10}, {"user=u%d,plan=silver", 4}, {"user=u%d,plan=bronze", 2}, {"user=u%d", 2},
		{"user=u%d,plan=none", 0}, {"plan=bronze,user=u%d,plan=gold", 10}, {"user=u%d,path=/", 1}, {"plan=gold,user=u%d,path=/", 99}, {"user=u%d,plan=gold,x=y", 99},
		{"plan=gold,other=o%d", 99}, {"plan=gold", 99},
	} {
		d := c.descriptor
		if d != "plan=gold" {
			d = fmt.Sprintf(d, i)
		}
		if got := f.admitted(20, desc(d)); got != min(c.limit, 20) {
			t.Errorf("%s: %d of 20 pass, want %d", d, got, c.limit)
		}
		if limit := f.ask(desc(d)).Statuses[0].CurrentLimit; c.limit == 99 && limit != nil || c.limit < 99 && (limit == nil || int(limit.RequestsPerUnit) != c.limit) {
			t.Errorf("%s: current_limit %+v, want %d", d, limit, c.limit)
		}
	}
	if c := f.counts("user", ""); c.Denied == 0 || c.Allowed != 10+10+4+2+2+0+10 {
		t.Errorf("the statistics of the rule have %+v", c)
	}
}

func TestWhatWasUsedStaysUsedUnderAnotherPlan(t *testing.T) {
	for _, algorithm := range []string{"fixed_window", "sliding_window", "sliding_log", "token_bucket", "hybrid"} {
		f := serve(t, fmt.Sprintf(byPlan, algorithm+", denied_hits: drop"))
		if n := f.admitted(3, desc("user=alice,plan=silver")); n != 3 {
			t.Fatalf("%s: %d of 3 pass", algorithm, n)
		}
		if n := f.admitted(20, desc("user=alice,plan=gold")); n != 7 {
			t.Errorf("%s: 3 of 4 used, %d more pass of 10, want 7", algorithm, n)
		}
		if n := f.admitted(3, desc("user=alice,plan=silver")) + f.admitted(3, desc("user=alice")); n != 0 {
			t.Errorf("%s: 10 used of 10, %d more pass of 4 and of 2", algorithm, n)
		}
	}
}

func TestASetFollowsAnEntry(t *testing.T) {
	f := serve(t, `
domain: edge
limits:
  - name: per_user
    match: {user: {}}
    count_by: user
    rate_limit: {algorithm: token_bucket, unit: minute, burst: 50%, requests_per_unit: {by: plan, values: {gold: 10}, default: 3}}
`)
	if got := f.admitted(20, desc("x=y,plan=gold,user=a")); got != 5 {
		t.Errorf("%d pass, want half of 10", got)
	}
	if got := f.admitted(20, desc("user=b,x=y")); got != 2 {
		t.Errorf("%d pass, want half of 3, rounded up", got)
	}
	if _, counters, err := f.Look(context.Background(), "edge", desc("user=a,plan=gold").entries); err != nil || len(counters) != 1 || counters[0].Limit.String() != "token_bucket, 10 per minute, burst 5 (50%)" {
		t.Errorf("a look finds %+v, %v", counters, err)
	}
}

func TestALimitOfTheRequestKeepsTheRatioOfItsRow(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {algorithm: token_bucket, unit: minute, burst: 20, requests_per_unit: {by: plan, values: {gold: 10}, default: 40}}}
  - {key: percent, rate_limit: {algorithm: token_bucket, unit: minute, burst: 10%, requests_per_unit: 3}}
`)
	for text, want := range map[string]int{"user=a,plan=gold": 60, "user=b": 15, "percent=a": 3} {
		if got := f.admitted(100, override(desc(text), 30, config.Hour)); got != want {
			t.Errorf("%s: %d pass of a limit of 30, want %d", text, got, want)
		}
	}
	// The entry that is followed is no part of its counter either.
	if got := f.admitted(100, override(desc("user=b,plan=silver"), 30, config.Hour)); got != 0 {
		t.Errorf("under another plan %d more pass", got)
	}
	if got := f.admitted(1, times(override(desc("user=c"), 30, config.Hour), 2)); got != 1 {
		t.Error("with a unit_multiplier none passes")
	}
	if _, err := f.decide(context.Background(), "edge", override(desc("percent=a"), 4_000_000_000, config.Hour)); failureOf(err) != none {
		t.Errorf("10%% of 4,000,000,000: %v", err)
	}
}

func TestACandidateWithATableIsCountedInOnePlace(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limits:
      - {unit: minute, requests_per_unit: 100}
      - {name: new, shadow_mode: true, unit: minute, requests_per_unit: {by: plan, values: {gold: 3}, default: 1}}
`)
	f.admitted(5, desc("user=a,plan=gold"))
	f.admitted(5, desc("user=b"))
	if c := f.counts("user", "new"); c.ShadowDenied != 2+4 {
		t.Errorf("the candidate would have refused %d, want 6", c.ShadowDenied)
	}
}

func TestReasonsNameTheRowThatRefused(t *testing.T) {
	f := serve(t, fmt.Sprintf(byPlan, "token_bucket"))
	f.admitted(4, desc("user=a,plan=silver"))
	r := &limiter.Request{Domain: "edge"}
	r.AddDescriptor(desc("user=a,plan=silver").entries...)
	if err := f.Decide(context.Background(), r, time.Now()); err != nil {
		t.Fatal(err)
	}
	reasons := slices.Collect(f.Reasons(r))
	if len(reasons) != 1 || reasons[0].Limit != "per_user: token_bucket, 4 per minute" {
		t.Errorf("refused because of %+v", reasons)
	}
}

// TestTableInRedis: a refusal that is remembered under one plan refuses nothing under
// another, and used hits stay used.
func TestTableInRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	for _, algorithm := range []string{"fixed_window, denied_hits: drop", "sliding_window", "sliding_log", "token_bucket", "hybrid"} {
		server.Do("FLUSHALL")
		f := serve(t, fmt.Sprintf(byPlan, algorithm), func(o *limiter.Options) {
			now := &atomic.Int64{}
			now.Store(noon)
			o.Backend = openRedis(t, redis.Options{Addrs: []string{server.Addr}, Clock: now.Load, LocalCacheBytes: 1 << 20})
		})
		silver, gold, other := desc("user=u,plan=silver"), desc("plan=gold,user=u"), desc("user=u")
		if n := f.admitted(6, silver); n != 4 {
			t.Errorf("%s: %d pass under silver, want 4", algorithm, n)
		}
		if n := f.admitted(1, gold) + f.admitted(2, silver) + f.admitted(2, other) + f.admitted(9, gold) + f.admitted(2, silver); n != 6 {
			t.Errorf("%s: %d pass after 4 of 10 were used, want 6, all under gold", algorithm, n)
		}
	}
}
