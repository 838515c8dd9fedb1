package limiter_test

import (
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/stats"
)

const candidate = `
domain: edge
descriptors:
  - key: user
    rate_limits: [{name: live, unit: minute, requests_per_unit: 5}, {unit: minute, requests_per_unit: 3, name: cand, shadow_mode: true}]
`

// TestCandidateRefusesNobody: a limit in shadow mode beside one that is enforced
// neither refuses nor is reported, and charges it nothing less.
func TestCandidateRefusesNobody(t *testing.T) {
	f := serve(t, candidate)
	for i, code := range []code{ok, ok, ok, ok, ok, over} {
		resp := f.ask(desc("user=a"))
		if st := resp.Statuses[0]; resp.OverallCode != code || st.Code != code || st.CurrentLimit.Name != "live" || st.LimitRemaining != uint32(max(0, 4-i)) {
			t.Errorf("request %d: %+v, want %v by live with %d left", i, st, code, max(0, 4-i))
		}
		if resp.Minimum != 0 {
			t.Errorf("request %d: the minimum is that of descriptor %d", i, resp.Minimum)
		}
		if i == 3 {
			if c := f.counts("user", "cand"); c.ShadowDenied != 1 || c.OverLimit != 1 || c.Allowed != 3 {
				t.Errorf("after four: cand has %+v", c)
			}
		}
	}
	// The sixth is refused by both, and was not let through by shadow mode.
	if c, wanted := f.counts("user", ""), (stats.Counts{WithinLimit: 5, NearLimit: 1, DeniedHits: 1, OverLimit: 1, ShadowMode: 2, Allowed: 5, Denied: 1}); c != wanted {
		t.Errorf("the rule %+v, want %+v", c, wanted)
	}
	if c, wanted := f.counts("user", "cand"), (stats.Counts{WithinLimit: 3, NearLimit: 1, DeniedHits: 3, OverLimit: 3, ShadowMode: 3, Allowed: 3, ShadowDenied: 3}); c != wanted {
		t.Errorf("cand %+v, want %+v", c, wanted)
	}
}

// TestCandidateReplacesNothing.
func TestCandidateReplacesNothing(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: base, rate_limit: {name: base, unit: hour, requests_per_unit: 1}}
  - key: user
    rate_limits: [{unit: hour, requests_per_unit: 9}, {unit: hour, requests_per_unit: 9, shadow_mode: true, replaces: [{name: base}]}]
`)
	if got := f.admitted(3, desc("base=a"), desc("user=a")); got != 1 {
		t.Errorf("%d pass, want the one of base", got)
	}
}

// TestCandidateAlone: when the limits beside it are replaced, nothing is in force.
func TestCandidateAlone(t *testing.T) {
	f := serve(t, candidate+`  - {key: vip, rate_limit: {unit: hour, requests_per_unit: 100, replaces: [{name: live}]}}
  - {key: quota, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 0}}
`)
	for range 7 {
		resp := f.ask(desc("user=a"), desc("vip=a"))
		if st := resp.Statuses[0]; resp.OverallCode != ok || st.CurrentLimit != nil {
			t.Errorf("%v", resp)
		}
	}
	if c := f.counts("user", "cand"); c.ShadowDenied != 4 {
		t.Errorf("cand %+v", c)
	}
	if got := f.ask(desc("quota=a"), desc("vip=a"), desc("user=b")).OverallCode; got != over {
		t.Errorf("%v: a candidate is no quota", got)
	}
}

// TestLimitsAllInShadowMode: they act as a rule in shadow mode.
func TestLimitsAllInShadowMode(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limits: [{name: a, unit: hour, requests_per_unit: 2, shadow_mode: true}, {name: b, unit: day, requests_per_unit: 9, shadow_mode: true}]
  - {key: one, rate_limit: {unit: hour, requests_per_unit: 2, shadow_mode: true}}
`)
	for i := range 4 {
		resp := f.ask(desc("user=a"), desc("one=a"))
		for _, st := range resp.Statuses {
			if resp.OverallCode != ok || st.Code != ok || st.LimitRemaining != uint32(max(0, 1-i)) || st.CurrentLimit.RequestsPerUnit != 2 {
				t.Errorf("request %d: %v", i, st)
			}
		}
	}
	for _, path := range []string{"user", "one"} {
		if c := f.counts(path, ""); c.Allowed != 2 || c.ShadowDenied != 2 || c.ShadowMode != 2 {
			t.Errorf("%s: %+v", path, c)
		}
	}
	if n := len(f.stats.Candidates()); n != 0 {
		t.Errorf("%d candidates: there is nothing beside them", n)
	}
}

// TestOverrideOfARuleWithACandidate: it has the algorithm of the enforced limit.
func TestOverrideOfARuleWithACandidate(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limits: [{unit: hour, requests_per_unit: 9, shadow_mode: true}, {algorithm: token_bucket, unit: hour, requests_per_unit: 9}]
`)
	o := func() *ask { return override(desc("user=a"), 2, 2) } // MINUTE
	f.admitted(2, o())
	f.advance(30 * time.Second)
	if got := f.admitted(2, o()); got != 1 {
		t.Errorf("%d pass, want the one that has refilled", got)
	}
}

// TestCandidatesInARequestRefusedAsAWhole: they charge nothing, and report the decision
// that they would have made.
func TestCandidatesInARequestRefusedAsAWhole(t *testing.T) {
	for _, spread := range []bool{false, true} {
		f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limits: [{unit: hour, requests_per_unit: 9}, {name: cand, unit: hour, requests_per_unit: 2, shadow_mode: true}]
  - {key: site, rate_limit: {unit: hour, requests_per_unit: 1, denied_hits: drop}}
`, func(o *limiter.Options) { o.DropRefused, o.Spread = true, spread })
		f.ask(desc("user=a"), desc("site=a"))
		f.ask(desc("user=a"), desc("site=a"))
		f.ask(desc("user=a"), desc("site=a"))
		if c := f.counts("user", "cand"); c.WithinLimit != 1 || c.ShadowDenied != 0 {
			t.Errorf("spread %v: cand %+v, want one hit charged and no refusal", spread, c)
		}
		f.ask(desc("user=a"))
		f.ask(desc("user=a"))
		if c := f.counts("user", "cand"); c.WithinLimit != 2 || c.ShadowDenied != 1 {
			t.Errorf("spread %v: cand %+v", spread, c)
		}
	}
}

// TestCandidatesAloneAreGivenBackWhatTheyWereCharged, and no more: one of two that
// stand alone refuses, so neither is charged.
func TestCandidatesAloneAreGivenBackWhatTheyWereCharged(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limits:
      - {name: live, unit: hour, requests_per_unit: 9}
      - {name: hourly, unit: hour, requests_per_unit: 2, denied_hits: drop, shadow_mode: true}
      - {name: minutely, unit: minute, requests_per_unit: 1, denied_hits: drop, shadow_mode: true}
  - {key: vip, rate_limit: {unit: hour, requests_per_unit: 100, replaces: [{name: live}]}}
  - {key: site, rate_limit: {unit: hour, requests_per_unit: 0}}
`, func(o *limiter.Options) { o.DropRefused, o.Spread = true, true })
	f.ask(desc("user=a"), desc("vip=a"))
	f.ask(desc("user=a"), desc("vip=a"), desc("site=a"))
	f.advance(time.Minute)
	f.ask(desc("user=a"), desc("vip=a"))
	f.advance(time.Minute)
	f.ask(desc("user=a"), desc("vip=a"))
	if c := f.counts("user", "hourly"); c.ShadowDenied != 1 {
		t.Errorf("hourly %+v, want the third hit that was charged refused", c)
	}
}

// TestCandidateFailsNobody when the store is gone.
func TestCandidateFailsNobody(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limits: [{unit: hour, requests_per_unit: 9, on_backend_error: allow}, {unit: hour, requests_per_unit: 2, shadow_mode: true, on_backend_error: error}]
`, func(o *limiter.Options) { o.Backend = broken{} })
	if got := f.admitted(3, desc("user=a")); got != 3 {
		t.Errorf("%d of 3 pass", got)
	}
}
