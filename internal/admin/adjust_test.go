package admin

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/config"
)

// TestAdjustedRules: the API shows them as they are in force, with the source of each
// adjustment, and also as they are written, so that they can be changed and sent back.
func TestAdjustedRules(t *testing.T) {
	f := newFixture(t)
	const adjust = "---\nadjust:\n  - rules: {path: \"user*\"}\n    set: {burst: 50%, algorithm: token_bucket}\n  - rules: {path: late}\n    set: {burst: 50%}\n"
	if err := f.load(t, rules+adjust); err != nil {
		t.Fatal(err)
	}
	user := f.one(t, "user")
	if user.Limits != "token_bucket, 10 per minute, burst 5 (50%), denied_hits count" || user.Written != "fixed_window, 10 per minute" ||
		len(user.Adjusted) != 1 || user.Adjusted[0] != (config.AdjustedBy{By: f.file + ":12:5", Set: "algorithm token_bucket, burst 50%"}) {
		t.Errorf("%+v", user)
	}
	if limit, ok := user.Rule["rate_limit"].(map[string]any); !ok || limit["algorithm"] != nil || limit["burst"] != nil {
		t.Errorf("the rule is given as %v, not as it is written", user.Rule)
	}
	if other := f.one(t, "remote_address_10.0.0.1"); other.Written != "" || other.Adjusted != nil {
		t.Errorf("%+v is not adjusted", other)
	}
	expect(t, f.get(t, "/rlconfig"), "edge.user: unit=MINUTE requests_per_unit=10, shadow_mode: false, quota_mode: false, algorithm: token_bucket, burst: 5 (50%), denied_hits: count, adjusted_by: "+f.file+":12:5\n")
	expect(t, f.send(t, http.MethodPost, "/admin/explain", `{"domain": "edge", "entries": [{"key": "user", "value": "a"}]}`).body, `"written":"fixed_window, 10 per minute"`, `"adjusted":[{"by":"`+f.file+`:12:5","set":"algorithm token_bucket, burst 50%"}]`)
	if passed := f.hit(t, 9, "user=a"); passed != 5 {
		t.Errorf("%d pass, want the burst", passed)
	}

	// A rule that is written here is adjusted, too. A rule that an adjustment would make
	// invalid is in force without it, and its writer gets a warning, as in a dry run.
	const late = `{"domain": "edge", "descriptors": [{"key": "user", "rate_limit": {"unit": "minute", "requests_per_unit": 8}},
		{"key": "late", "rate_limit": {"unit": "minute", "requests_per_unit": 8}}]}`
	var dry, result writeResult
	f.send(t, http.MethodPost, "/admin/rules?dry_run=1", late).into(t, http.StatusOK, &dry)
	f.send(t, http.MethodPost, "/admin/rules", late).into(t, http.StatusOK, &result)
	if !slices.Equal(dry.Warnings, result.Warnings) {
		t.Errorf("a dry run warns of %v, and the write of %v", dry.Warnings, result.Warnings)
	}
	if !result.InForce || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0].What, "edge.yaml:14:5: adjust[1].set: the limit of late in domain edge") {
		t.Errorf("%+v", result)
	}
	if got := f.one(t, "user"); got.Limits != "token_bucket, 8 per minute, burst 4 (50%), denied_hits count" || got.Source != "admin" {
		t.Errorf("%+v", got)
	}
	if got := f.one(t, "late"); got.Limits != "fixed_window, 8 per minute" || got.Adjusted != nil {
		t.Errorf("%+v", got)
	}
	if got := f.get(t, "/healthcheck"); !strings.HasPrefix(got, "OK\nrules from file: not all of them are in force; see ") {
		t.Errorf("/healthcheck: %s", got)
	}
	expect(t, f.get(t, "/admin/reloads"), `"source":"file","state":"bad","in_force":true,"partial":true`, "it goes on without this adjustment")
	var again writeResult // a write tells of what it causes, not of what was there
	f.send(t, http.MethodPost, "/admin/rules", `{"domain": "edge", "descriptors": [{"key": "a_first", "rate_limit": {"unit": "minute", "requests_per_unit": 8}}]}`).into(t, http.StatusOK, &again)
	if len(again.Warnings) > 0 {
		t.Errorf("told again: %v", again.Warnings)
	}
	f.send(t, http.MethodPost, "/admin/rules", `{"adjust": [{"rules": {"domain": "*"}, "set": {"burst": 1}}]}`).problem(t, http.StatusUnprocessableEntity, invalidRules)
}

// TestARuleBesideATableSaysThatItLiftsIt: a rule of the API for an entry that a table of
// other rules follows takes that entry away from the table. Its writer learns of it, in a
// dry run too.
func TestARuleBesideATableSaysThatItLiftsIt(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: minute, requests_per_unit: {by: plan, values: {gold: 9}, default: 5}}}\n"); err != nil {
		t.Fatal(err)
	}
	const below = `{"domain": "edge", "descriptors": [{"key": "user", "descriptors": [{"key": "plan", "value": ["gold", "silver"], "rate_limit": {"unit": "hour", "requests_per_unit": 8}}]}]}`
	for _, query := range []string{"?dry_run=1", ""} {
		var result writeResult
		f.send(t, http.MethodPost, "/admin/rules"+query, below).into(t, http.StatusOK, &result)
		if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0].What, "edge.yaml:3:5: the table of user follows plan, but not where that entry leads to plan_[gold|silver] (an admin rule) instead") {
			t.Errorf("%q: %+v", query, result.Warnings)
		}
	}
}
