package limiter_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// stores are the stores under test: memory, and Redis with every option that saves calls.
func stores(t *testing.T, test func(t *testing.T, set ...func(*limiter.Options))) {
	t.Run("memory", func(t *testing.T) { test(t) })
	t.Run("redis", func(t *testing.T) {
		server := redistest.Start(t, redistest.Config{})
		test(t, func(o *limiter.Options) {
			o.Backend = openRedis(t, redis.Options{
				Addrs: []string{server.Addr}, Clock: func() int64 { return noon }, LocalCacheBytes: 1 << 20,
			})
		})
	})
}

// credit gives hits back to a descriptor's counters of one limit.
func (f *fixture) credit(text string, hits int64, of string) []limiter.Credited {
	f.t.Helper()
	credited, err := f.Credit(context.Background(), "edge", desc(text).entries, hits, func(rule *descriptor.Rule, l *config.Limit) bool {
		return of == "" || of == l.Name || of == rule.Path
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return credited
}

// TestCreditGivesBackWhatWasUsed of every algorithm, and never more.
func TestCreditGivesBackWhatWasUsed(t *testing.T) {
	stores(t, func(t *testing.T, set ...func(*limiter.Options)) {
		for i, algorithm := range algo.Algorithms() {
			if algo.Algorithm(i).AlwaysHolds() {
				continue // a slot belongs to its request, which gives it back
			}
			burst := ""
			if algorithm == "leaky_bucket" {
				burst = ", burst: 10"
			}
			f := serve(t, fmt.Sprintf("domain: edge\ndescriptors: [{key: %s, rate_limit: {algorithm: %[1]s, unit: day, requests_per_unit: 10%s}}]", algorithm, burst), set...)
			who := algorithm + "=alice"
			if passed := f.admitted(12, desc(who)); passed != 10 {
				t.Fatalf("%s: %d pass, want 10", algorithm, passed)
			}
			denied := int64(0)
			if algorithm == "fixed_window" {
				denied = 2 // it counts refused hits
			}
			counted := f.counts(algorithm, "")
			if c := f.credit(who, 3+denied, ""); len(c) != 1 || c[0].GivenBack != 3+denied || c[0].Decision.Remaining != 3 || c[0].Rule.Path != algorithm {
				t.Errorf("%s: credited %+v", algorithm, c)
			}
			if now := f.counts(algorithm, ""); now != counted {
				t.Errorf("%s: a credit is counted: %+v, before %+v", algorithm, now, counted)
			}
			if passed := f.admitted(5, desc(who)); passed != 3 {
				t.Errorf("%s: %d pass after 3 were given back", algorithm, passed)
			}
			if c := f.credit(who, 100, ""); c[0].GivenBack < 10 || c[0].GivenBack > 14 || c[0].Decision.Remaining != 10 {
				t.Errorf("%s: beyond full: %+v", algorithm, c)
			}
			if c := f.credit(who, 1, ""); c[0].GivenBack != 0 || c[0].Decision.Remaining != 10 {
				t.Errorf("%s: of nothing: %+v", algorithm, c)
			}
			if passed := f.admitted(12, desc(who)); passed != 10 {
				t.Errorf("%s: %d pass when full, want 10", algorithm, passed)
			}
		}
	})
}

// TestCreditOfOneOfSeveralLimits leaves the others alone.
func TestCreditOfOneOfSeveralLimits(t *testing.T) {
	stores(t, func(t *testing.T, set ...func(*limiter.Options)) {
		f := serve(t, `domain: edge
limits:
  - {name: all, rate_limit: {unit: day, requests_per_unit: 100}}
  - {name: budget, match: {user: {}}, count_by: [user], rate_limit: {unit: day, requests_per_unit: 50}}
descriptors:
  - {key: user, rate_limits: [{name: slow, unit: day, requests_per_unit: 20, lease: 0.5}, {name: fast, unit: hour, requests_per_unit: 20}]}
`, set...)
		who := "user=alice"
		f.admitted(8, desc(who))
		if c := f.credit(who, 5, "fast"); len(c) != 1 || c[0].Limit.Name != "fast" || c[0].GivenBack != 5 || c[0].Decision.Remaining != 17 {
			t.Errorf("by name: %+v", c)
		}
		if c := f.credit(who, 5, "limits.budget"); len(c) != 1 || c[0].GivenBack != 5 || c[0].Decision.Remaining != 47 {
			t.Errorf("by rule: %+v", c)
		}
		given := map[string]int64{}
		for _, c := range f.credit(who, 5, "") {
			given[c.Rule.Path+c.Limit.Name] = c.GivenBack
		}
		if want := map[string]int64{"userslow": 5, "userfast": 3, "limits.budget": 3, "limits.all": 5}; fmt.Sprint(given) != fmt.Sprint(want) {
			t.Errorf("all: %v, want %v", given, want)
		}
		if c := f.credit(who, 5, "other"); c != nil {
			t.Errorf("none: %+v", c)
		}
		if c := f.credit("nobody=x", 5, "fast"); c != nil {
			t.Errorf("without a rule: %+v", c)
		}
	})
}

// TestCreditIsBounded, and fails as a whole when the store does.
func TestCreditIsBounded(t *testing.T) {
	yaml := "domain: edge\ndescriptors:\n  - key: user\n    rate_limits:\n"
	for i := range backend.MaxChecks/2 + 1 {
		yaml += fmt.Sprintf("      - {window: %ds, requests_per_unit: 1}\n", i+1)
	}
	f := serve(t, yaml)
	all := func(*descriptor.Rule, *config.Limit) bool { return true }
	if _, err := f.Credit(context.Background(), "edge", desc("user=a").entries, 1, all); err == nil {
		t.Error("too many counters are credited")
	}
	gone := errors.New("gone")
	f = serve(t, perUser, func(o *limiter.Options) { o.Backend = goneStore{gone} })
	if _, err := f.Credit(context.Background(), "edge", desc("user=a").entries, 1, all); !errors.Is(err, gone) {
		t.Errorf("error %v, want that of the store", err)
	}
	empty := limiter.New(limiter.Options{Backend: goneStore{gone}, Log: logger(t)})
	if _, err := empty.Credit(context.Background(), "edge", desc("user=a").entries, 1, all); !errors.Is(err, limiter.ErrNoRules) {
		t.Errorf("error %v before there are rules", err)
	}
}

// goneStore is a store that can't decide.
type goneStore struct{ err error }

func (f goneStore) Decide(context.Context, *backend.Request, []algo.Decision) error { return f.err }

// TestSharedCountersAreKnownByTheirRule alone, so a store that can't list counters can
// forget them.
func TestSharedCountersAreKnownByTheirRule(t *testing.T) {
	stores(t, func(t *testing.T, set ...func(*limiter.Options)) {
		var in backend.Backend
		f := serve(t, `domain: edge
limits: [{name: all, match: {user: {}}, rate_limits: [{unit: day, requests_per_unit: 3}, {unit: hour, requests_per_unit: 5}]}]
`, append(set, func(o *limiter.Options) { in = o.Backend })...)
		f.admitted(5, desc("user=a"))
		rule := f.Matcher().Rules()[0]
		checks := f.Shared(rule)
		if len(checks) != 2 {
			t.Fatalf("%d counters, want 2", len(checks))
		}
		for _, c := range checks {
			if used, err := backend.Reset(context.Background(), in, c); !used || err != nil {
				t.Errorf("%s: used %v, %v", c.Key, used, err)
			}
		}
		if passed := f.admitted(5, desc("user=b")); passed != 3 {
			t.Errorf("%d pass after the reset, want 3", passed)
		}
		f.load("domain: edge\ndescriptors: [{key: user, rate_limit: {unit: day, requests_per_unit: 3}}]")
		if checks := f.Shared(rule); checks != nil {
			t.Errorf("of a rule that is gone: %v", checks)
		}
	})
}
