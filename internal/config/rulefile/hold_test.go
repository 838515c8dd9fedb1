package rulefile_test

import (
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

func parseHold(text string) (*config.Rules, error) {
	return rulefile.Parse([]rulefile.Source{{Name: "rules.yaml", Data: []byte(text)}}, rulefile.Options{})
}

const heldRules = `domain: edge
limits:
  - name: in_flight
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 10}
  - name: tokens
    match: {user: {}}
    hold: {by: request_id, expires: 5m, settled_by: {phase: done}}
    rate_limits:
      - {unit: hour, requests_per_unit: 100000}
      - {algorithm: token_bucket, unit: minute, requests_per_unit: 5000, burst: 9000, denied_hits: drop}
`

func TestHoldsAreRead(t *testing.T) {
	rules, err := parseHold(heldRules)
	if err != nil {
		t.Fatal(err)
	}
	first, second := rules.Domains[0].Limits[0], rules.Domains[0].Limits[1]
	if want := (config.Hold{By: "request_id", Expires: time.Minute, SettledBy: sets.Entry{Key: "phase", Value: "done"}}); *first.Hold != want {
		t.Errorf("%+v", first.Hold)
	}
	if p, want := first.Limits[0].Algo.Params(), (algo.Params{Algorithm: algo.Concurrency, Limit: 10, Window: time.Minute}); p != want {
		t.Errorf("%+v", p)
	}
	for _, l := range second.Limits {
		if p := l.Algo.Params(); p.Hold != 5*time.Minute || l.Algo.DeniedHits() != algo.Drop {
			t.Errorf("%+v", p)
		}
	}
	want := []string{
		"concurrency, 10 at once, hold 1m (hold by request_id, settled by phase=done)",
		"fixed_window, 100000 per hour, hold 5m; token_bucket, 5000 per minute, burst 9000, denied_hits drop, hold 5m (hold by request_id, settled by phase=done)",
	}
	for i, d := range rules.Domains[0].Limits {
		if got := d.LimitsText(); got != want[i] {
			t.Errorf("%s\nwant %s", got, want[i])
		}
	}
	if text := rules.String(); !strings.Contains(text, "edge.limits.in_flight: unit=UNKNOWN requests_per_unit=10, shadow_mode: false, quota_mode: false, algorithm: concurrency, hold: 1m, by: request_id, settled_by: phase=done\n") {
		t.Error(text)
	}
}

func TestHoldsAreWrittenBack(t *testing.T) {
	rules, err := parseHold(heldRules)
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(rulefile.Domain{Domain: rules.Domains[0]})
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseHold(string(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if again.Digest() != rules.Digest() {
		t.Errorf("written back it says\n%s", text)
	}
	other, err := parseHold(strings.ReplaceAll(heldRules, "phase: done", "phase: over"))
	if err != nil {
		t.Fatal(err)
	}
	if other.Digest() == rules.Digest() {
		t.Error("the digest does not know what settles")
	}
}

func TestHoldsSayWhatIsWrong(t *testing.T) {
	rule := func(hold, limit string) string {
		return "domain: edge\nlimits:\n  - name: x\n    match: {user: {}}\n    count_by: [user]\n    hold: " + hold + "\n    rate_limit: " + limit + "\n"
	}
	const hold, concurrency = "{by: id, expires: 60s, settled_by: {phase: done}}", "{algorithm: concurrency, requests_per_unit: 10}"
	for _, c := range []struct{ text, want string }{
		{rule("5", concurrency), "rules.yaml:6:11: limits[0].hold: want a mapping"},
		{rule(hold, "{window: {calendar: day}, requests_per_unit: 10}"), "windows of a calendar can't hold"},
		{rule("{expires: 60s, settled_by: {phase: done}}", concurrency), "rules.yaml:6:11: limits[0].hold.by: by is missing or empty; write the key of the entry"},
		{rule("{by: id, settled_by: {phase: done}}", concurrency), "rules.yaml:6:11: limits[0].hold.expires: expires is missing"},
		{rule("{by: id, expires: soon, settled_by: {phase: done}}", concurrency), `rules.yaml:6:29: limits[0].hold.expires: "soon" is not a duration; write a duration with its unit, longer than the longest request`},
		{rule("{by: id, expires: 0s, settled_by: {phase: done}}", concurrency), "limits[0].hold.expires: a hold can't expire after 0s: 1ms is the least"},
		{rule("{by: id, expires: 400d, settled_by: {phase: done}}", concurrency), "limits[0].hold.expires: a hold can't expire after 400d: 366d is the most; write a duration"},
		{"domain: edge\ndescriptors:\n  - {key: user, hold: {by: id}, rate_limit: {unit: hour, requests_per_unit: 10}}\n", `descriptors[0].hold: unknown key "hold"; that is for limits: of the domain: write the rule there, with match in place of key and value`},
		{rule("{by: id, expires: 60s}", concurrency), "limits[0].hold.settled_by: settled_by is missing; write the entry"},
		{rule("{by: id, expires: 60s, settled_by: done}", concurrency), "rules.yaml:6:46: limits[0].hold.settled_by: want a mapping"},
		{rule("{by: id, expires: 60s, settled_by: {}}", concurrency), "limits[0].hold.settled_by: no entry; write one"},
		{rule("{by: id, expires: 60s, settled_by: {a: b, c: d}}", concurrency), "limits[0].hold.settled_by: more than one entry"},
		{rule("{by: id, expires: 60s, settled_by: {phase: ''}}", concurrency), "limits[0].hold.settled_by.phase: an entry without a value"},
		{rule("{by: user, expires: 60s, settled_by: {phase: done}}", concurrency), `rules.yaml:5:16: limits[0].hold.by: count_by names "user"`},
		{rule("{by: id, expires: 60s, settled_by: {id: done}}", concurrency), `"id" is also by`},
		{rule("{by: id, expires: 60s, settled_by: {user: done}}", concurrency), `match names "user" too`},
		{rule("{bye: id, expires: 60s, settled_by: {phase: done}}", concurrency), "bye"},
		{rule(hold, "{algorithm: concurrency, requests_per_unit: 10, unit: second}"), "rules.yaml:7:71: limits[0].rate_limit.unit: concurrency has no unit: it limits how many are in flight at once; remove it"},
		{rule(hold, "{algorithm: concurrency, requests_per_unit: 1001}"), "rules.yaml:7:61: limits[0].rate_limit.requests_per_unit: a concurrency of 1001"},
		{rule(hold, "{algorithm: concurrency, requests_per_unit: 10, lease: 0.1}"), "limits[0].rate_limit.lease: lease together with hold"},
		{rule(hold, "{algorithm: concurrency, requests_per_unit: 10, denied_hits: count}"), "limits[0].rate_limit.denied_hits: denied_hits together with hold: a refused request holds nothing, and its settlement charges it; remove it"},
		{rule(hold, "{unlimited: true}"), "limits[0].rate_limit.unlimited: unlimited together with hold"},
		{rule(hold, "{algorithm: sliding_log, unit: hour, requests_per_unit: 10}"), "rules.yaml:7:29: limits[0].rate_limit.algorithm: sliding_log can't hold: it remembers when each hit came"},
		{rule(hold, "{algorithm: leaky_bucket, unit: hour, requests_per_unit: 10}"), "limits[0].rate_limit.algorithm: leaky_bucket can't hold"},
		{"domain: edge\ndescriptors:\n  - {key: user, rate_limit: {algorithm: concurrency, requests_per_unit: 10}}\n", "rules.yaml:3:41: descriptors[0].rate_limit.algorithm: concurrency without a hold; move the limit to limits: of the domain, and beside it write hold: {by: request_id, expires: 60s, settled_by: {phase: done}}"},
		{"domain: edge\nlimits:\n  - {name: x, rate_limit: {algorithm: concurrency, requests_per_unit: 10}}\n", "limits[0].rate_limit.algorithm: concurrency without a hold"},
	} {
		if _, err := parseHold(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\ngot  %v\nwant %s", c.text, err, c.want)
		}
	}
}

// TestWarningsAboutHolds: what is taken literally, and tables that no request of the rule
// has a row of.
func TestWarningsAboutHolds(t *testing.T) {
	rule := func(match, settled, by string) string {
		return "domain: edge\nlimits:\n  - name: x\n    match: {user: {}" + match + "}\n    count_by: [user]\n    hold: {by: id, expires: 60s, settled_by: {phase: '" + settled + "'}}\n" +
			"    rate_limit: {unit: hour, requests_per_unit: {by: " + by + ", values: {gold: 9}, default: 5}}\n"
	}
	for _, c := range []struct{ text, want string }{
		{rule("", "done", "plan"), ""},
		{rule(", plan: {}", "done", "plan"), ""},
		{rule("", "do*", "plan"), "rules.yaml:6:54: limits[0].hold.settled_by.phase: the * in phase=do* stands for itself"},
		{rule(", plan: {absent: true}", "done", "plan"), "rules.yaml:7:54: limits[0].rate_limit.requests_per_unit: the table follows plan, which match wants to be absent: its default serves every request; follow another entry"},
		{rule("", "done", "phase"), "the table follows phase, which only settlements have"},
		{rule("", "done", "id"), "the table follows id, which says which request it is"},
	} {
		rules, err := parseHold(c.text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range rules.Warnings {
			got = append(got, w.Error())
		}
		if text := strings.Join(got, "\n"); !strings.Contains(text, c.want) || (c.want == "") != (text == "") {
			t.Errorf("%s\ngot  %s\nwant %s", c.text, text, c.want)
		}
	}
}
