package admin

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/adminclient"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// TestListsAndTables takes rules with lists of values, ranges and tables through the API:
// they are stored, loaded again, in force, listed, exported, looked up, counted and reset.
func TestListsAndTables(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	const body = `{"domain": "edge", "descriptors": [
		{"key": "method", "value": ["PUT", "POST"], "descriptors": [{"key": "address", "value": {"cidr": ["10.0.0.0/8"]}, "share_threshold": true, "rate_limit": {"unit": "day", "requests_per_unit": 3}}]},
		{"key": "tenant", "rate_limit": {"algorithm": "token_bucket", "unit": "hour", "unit_multiplier": 24, "burst": "50%", "requests_per_unit": {"by": "plan", "values": {"gold": 8}, "default": 2}}}]}`
	const lists, table = "method_[POST|PUT].address_[cidr:10.0.0.0/8]", "tenant"
	if got := f.apply(t, "", body); got != "created "+lists+", created "+table {
		t.Fatal(got)
	}
	if got := f.apply(t, "", body); got != "unchanged "+lists+", unchanged "+table {
		t.Error(got)
	}
	if passed := f.hit(t, 2, "method=PUT,address=10.1.2.3") + f.hit(t, 4, "method=PUT,address=::ffff:10.9.9.9"); passed != 3 {
		t.Errorf("%d of those that share a counter pass, want 3", passed)
	}
	if passed := f.hit(t, 3, "tenant=a,plan=gold"); passed != 3 {
		t.Errorf("%d pass, want 3", passed)
	}
	if c := f.counters(t, "plan=gold,tenant=a").Counters; len(c) != 1 || c[0].Remaining != 1 || c[0].RequestsPerUnit != 8 {
		t.Errorf("%+v", c)
	}
	for path, want := range map[string]string{"/stats": "method_[POST_PUT].address_[cidr_10_0_0_0/8]", "/stats?format=json": lists, "/rlconfig": lists} {
		if text := f.get(t, path); !strings.Contains(text, want) {
			t.Errorf("%s: %s", path, text)
		}
	}
	if text := f.get(t, "/rlconfig"); !strings.Contains(text, "edge.tenant: unit=HOUR requests_per_unit=2, shadow_mode: false, quota_mode: false, algorithm: token_bucket, window: 1d, by plan: 8 for plan=gold, else 2, burst: 50%") {
		t.Error(text)
	}
	var explained struct {
		Levels []struct{ Skipped bool }
		Rule   struct {
			Limits []struct{ Table struct{ Value string } }
		}
	}
	f.send(t, http.MethodPost, "/admin/explain", `{"domain": "edge", "entries": [{"key": "plan", "value": "gold"}, {"key": "tenant", "value": "a"}]}`).into(t, http.StatusOK, &explained)
	if len(explained.Levels) != 2 || !explained.Levels[0].Skipped || explained.Rule.Limits[0].Table.Value != "gold" {
		t.Errorf("%+v", explained)
	}
	if rule := f.one(t, table); rule.Limits != "token_bucket, 8 for plan=gold, else 2 per day, burst 50%" {
		t.Error(rule.Limits)
	}
	f.exportsWhatItHas(t, lists, table)
	var result struct{ Counters int }
	for _, reset := range []string{
		`{"domain": "edge", "entries": [{"key": "tenant", "value": "a"}, {"key": "plan", "value": "gold"}]}`,
		`{"domain": "edge", "entries": [{"key": "method", "value": "PUT"}, {"key": "address", "value": "10.3.4.5"}]}`,
	} {
		if f.send(t, http.MethodPost, "/admin/reset", reset).into(t, http.StatusOK, &result); result.Counters != 1 {
			t.Errorf("%s: %d counters", reset, result.Counters)
		}
	}
	// A rule for one value of a list leaves the others as they are.
	if got := f.apply(t, "", `{"domain": "edge", "descriptors": [{"key": "method", "value": "PUT", "rate_limit": {"unlimited": true}}]}`); got != "created method_PUT, created method_POST.address_[cidr:10.0.0.0/8], created method_PUT.address_[cidr:10.0.0.0/8], deleted "+lists {
		t.Error(got)
	}
	if n := f.hit(t, 5, "method=POST,address=10.1.2.3"); n != 3 {
		t.Errorf("%d pass, want 3", n)
	}
	f.send(t, http.MethodPost, "/admin/rules", `{"domain": "edge", "descriptors": [{"key": "x", "value": {"cidr": "10.0.0.1"}, "rate_limit": {"unit": "day", "requests_per_unit": {"by": "plan"}}}]}`).problem(t, http.StatusUnprocessableEntity, invalidRules)
}

// exportsWhatItHas checks that `rules list` writes the rules in force.
func (f *fixture) exportsWhatItHas(t *testing.T, paths ...string) {
	t.Helper()
	client := &adminclient.Client{Addr: f.server.URL, Timeout: time.Minute}
	list, err := client.Rules("edge", "", "")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := list.WriteYAML(&text); err != nil {
		t.Fatal(err)
	}
	exported, err := rulefile.Parse([]rulefile.Source{{Name: "exported", Data: text.Bytes()}}, rulefile.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, &text)
	}
	texts := map[string]string{}
	for r := range exported.All() {
		texts[r.Name()] = r.Descriptor().LimitsText()
	}
	for _, path := range paths {
		if rule := f.one(t, path); texts[path] != rule.Limits {
			t.Errorf("%s is exported as %q\n%s", path, texts[path], &text)
		}
	}
}
