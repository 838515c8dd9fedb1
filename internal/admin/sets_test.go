package admin

import (
	"net/http"
	"strings"
	"testing"
)

// TestLimitsOnSets takes limits on sets of entries through the API: they are stored,
// loaded again, in force, listed, counted, reset and deleted.
func TestLimitsOnSets(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	const body = `{"domain": "edge", "limits": [
		{"name": "writes", "match": {"method": ["POST", "PUT"], "who": {}}, "count_by": ["who"], "rate_limit": {"unit": "day", "requests_per_unit": 3}},
		{"name": "puts", "match": {"method": "PUT"}, "rate_limit": {"unit": "day", "requests_per_unit": 9}}]}`
	if got := f.apply(t, "", body); got != "created limits.writes, created limits.puts" {
		t.Fatal(got)
	}
	if got := f.apply(t, "", body); got != "unchanged limits.writes, unchanged limits.puts" {
		t.Error(got)
	}
	writes := f.one(t, "limits.writes")
	if writes.Source != "admin" || writes.Rule["name"] != "writes" {
		t.Errorf("%+v", writes)
	}
	if passed := f.hit(t, 5, "who=a,method=PUT"); passed != 3 {
		t.Errorf("%d pass, want 3", passed)
	}
	if c := f.counters(t, "method=PUT,who=a").Counters; len(c) != 2 || c[0].Remaining != 0 || c[1].Remaining != 6 {
		t.Errorf("%+v", c)
	}
	for _, path := range []string{"/stats", "/stats?format=json", "/rlconfig"} {
		if text := f.get(t, path); !strings.Contains(text, "limits.writes") {
			t.Errorf("%s: %s", path, text)
		}
	}
	var result struct{ Counters int }
	f.send(t, http.MethodPost, "/admin/reset", `{"domain": "edge", "entries": [{"key": "who", "value": "a"}, {"key": "method", "value": "PUT"}]}`).into(t, http.StatusOK, &result)
	if result.Counters != 1 {
		t.Errorf("%d counters, want that of writes: all descriptors share that of puts", result.Counters)
	}
	f.send(t, http.MethodPost, "/admin/reset", `{"rule": "`+f.one(t, "limits.puts").Key+`"}`).into(t, http.StatusOK, &result)
	if result.Counters != 1 {
		t.Errorf("%d counters of puts", result.Counters)
	}
	var explained struct {
		Outcome string
		Limits  []struct{ Path string }
		Unmet   []struct{ Keys []string }
	}
	f.send(t, http.MethodPost, "/admin/explain", `{"domain": "edge", "entries": [{"key": "method", "value": "PUT"}]}`).into(t, http.StatusOK, &explained)
	if explained.Outcome != "matched" || len(explained.Limits) != 1 || len(explained.Unmet) != 1 || explained.Unmet[0].Keys[0] != "who" {
		t.Errorf("%+v", explained)
	}
	var deleted writeResult
	f.send(t, http.MethodDelete, "/admin/rules/"+writes.Key, "").into(t, http.StatusOK, &deleted)
	if deleted.text() != "deleted limits.writes" {
		t.Error(deleted.text())
	}
	if passed := f.hit(t, 5, "who=a,method=POST"); passed != 5 {
		t.Errorf("%d pass after it was deleted", passed)
	}
	f.send(t, http.MethodPost, "/admin/rules", `{"domain": "edge", "limits": [{"name": "x", "match": {"a": []}}]}`).problem(t, http.StatusUnprocessableEntity, invalidRules)
}
