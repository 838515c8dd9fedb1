package limiter_test

import (
	"fmt"
	"testing"
	"time"
)

// TestCandidateChangesNothingForTheOthers, compared with a rule without it, whatever
// the hits.
func TestCandidateChangesNothingForTheOthers(t *testing.T) {
	for _, live := range []string{
		"{name: live, unit: minute, requests_per_unit: 5}",
		"{name: live, algorithm: token_bucket, unit: minute, requests_per_unit: 5}",
		"{name: live, algorithm: sliding_log, unit: minute, requests_per_unit: 5, denied_hits: drain}",
	} {
		const rule = "domain: edge\ndescriptors:\n  - {key: user, rate_limits: [%s%s]}\n"
		with, without := serve(t, fmt.Sprintf(rule, live, ", {unit: minute, requests_per_unit: 3, shadow_mode: true}")), serve(t, fmt.Sprintf(rule, live, ""))
		for _, hits := range []uint64{1, 3, 0, 2, 1, 0, 9, 1, 0} {
			a := with.ask(withHits(desc("user=a"), hits))
			want(t, a, without.ask(withHits(desc("user=a"), hits)))
		}
	}
}

// TestShadowModeIsARehearsal: a rule in shadow mode counts as enforcement would.
func TestShadowModeIsARehearsal(t *testing.T) {
	const yaml = "domain: edge\ndescriptors:\n  - {key: user, %srate_limit: {unit: hour, requests_per_unit: 300000}}\n"
	shadow, enforced := serve(t, fmt.Sprintf(yaml, "shadow_mode: true, ")), serve(t, fmt.Sprintf(yaml, ""))
	for i, hits := range []uint64{200000, 150000, 20000, 20000, 20000} {
		a, b := shadow.ask(withHits(desc("user=a"), hits)), enforced.ask(withHits(desc("user=a"), hits))
		if a.OverallCode != ok || a.Statuses[0].LimitRemaining != b.Statuses[0].LimitRemaining {
			t.Errorf("request %d: %v in shadow mode, %v enforced", i, a.Statuses[0], b.Statuses[0])
		}
	}
	a, b := shadow.counts("user", ""), enforced.counts("user", "")
	if a.ShadowDenied != b.Denied || a.OverLimit != b.OverLimit || a.NearLimit != b.NearLimit || a.WithinLimit != b.WithinLimit || a.ShadowMode != b.OverLimit {
		t.Errorf("shadow mode counts %+v, enforcement %+v", a, b)
	}
}

// TestLimitOfZeroRefusesLooks.
func TestLimitOfZeroRefusesLooks(t *testing.T) {
	for _, algorithm := range []string{"fixed_window", "sliding_window", "sliding_log", "token_bucket", "leaky_bucket", "hybrid"} {
		f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {algorithm: "+algorithm+", unit: hour, requests_per_unit: 0}}\n")
		for range 2 {
			if got := f.ask(withHits(desc("user=a"), 0)); got.OverallCode != over {
				t.Errorf("%s: %v", algorithm, got)
			}
			f.advance(time.Hour)
		}
	}
}
