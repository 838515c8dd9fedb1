package admin

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestCandidatesHaveTheirOwnStatistics: those of the rule count calls that passed.
func TestCandidatesHaveTheirOwnStatistics(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, `
domain: edge
descriptors:
  - key: user
    rate_limits: [{unit: minute, requests_per_unit: 5}, {unit: minute, requests_per_unit: 3, name: cand, shadow_mode: true}]
  - key: plain
    rate_limits: [{unit: minute, requests_per_unit: 5}, {unit: minute, requests_per_unit: 2, shadow_mode: true}]
`); err != nil {
		t.Fatal(err)
	}
	if passed := f.hit(t, 4, "user=a"); passed != 4 {
		t.Errorf("%d of 4 pass", passed)
	}
	f.hit(t, 3, "plain=a")
	type activity struct {
		Key        string
		Totals     totals
		Candidates []candidate
	}
	var all struct{ Rules []activity }
	if err := json.Unmarshal([]byte(f.get(t, "/admin/stats")), &all); err != nil {
		t.Fatal(err)
	}
	var one activity
	if err := json.Unmarshal([]byte(f.get(t, "/admin/stats/"+all.Rules[0].Key)), &one); err != nil {
		t.Fatal(err)
	}
	for _, a := range []activity{all.Rules[0], one} {
		if a.Totals.Allowed != 4 || a.Totals.ShadowDenied != 0 || a.Totals.Denied != 0 || a.Totals.OverLimit != 0 || a.Totals.Hits != 4 {
			t.Errorf("the rule: %+v", a.Totals)
		}
		if c := a.Candidates; len(c) != 1 || c[0].Limit != "cand" || c[0].Totals.ShadowDenied != 1 || c[0].Totals.Allowed != 3 || c[0].Totals.OverLimit != 1 {
			t.Errorf("candidates: %+v", c)
		}
	}
	metrics := f.get(t, "/metrics")
	for _, series := range []string{
		`ratelimit_candidate_decisions_total{domain="edge",limit="cand",result="shadow_denied",rule="user"} 1`,
		`ratelimit_candidate_decisions_total{domain="edge",limit="cand",result="allowed",rule="user"} 3`,
		`ratelimit_candidate_over_limit_hits_total{domain="edge",limit="cand",rule="user"} 1`,
		`ratelimit_candidate_decisions_total{domain="edge",limit="#2",result="shadow_denied",rule="plain"} 1`,
		`ratelimit_decisions_total{domain="edge",result="allowed",rule="user"} 4`,
		`ratelimit_service_rate_limit_total_hits{domain="edge",key1="user"} 4`,
		`ratelimit_service_rate_limit_over_limit{domain="edge",key1="user"} 0`,
		`ratelimit_service_rate_limit_shadow_mode{domain="edge",key1="user"} 1`,
	} {
		if !strings.Contains(metrics, series+"\n") {
			t.Errorf("no %s", series)
		}
	}
	if text := f.get(t, "/stats"); !strings.Contains(text, "ratelimit.service.rate_limit.edge.user.shadow_mode: 1\n") || strings.Contains(text, "cand") {
		t.Errorf("/stats: %s", text)
	}
}
