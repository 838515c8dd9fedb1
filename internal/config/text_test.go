package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// TestEverySurfaceSaysAllOfALimit writes each field of a limit with each algorithm that
// takes it, and looks for it in the text of the limit, in explain's and in /rlconfig's.
func TestEverySurfaceSaysAllOfALimit(t *testing.T) {
	for _, name := range algo.Algorithms() {
		algorithm, err := algo.ParseAlgorithm(name)
		if err != nil {
			t.Fatal(err)
		}
		if algorithm.AlwaysHolds() {
			continue // it is written elsewhere: see rulefile's TestHoldsAreRead
		}
		for _, f := range []struct {
			yaml, text, line string
			takes            bool
		}{
			{"unit: minute", "7 per minute", "unit=MINUTE requests_per_unit=7", true},
			{"window: 90s", "7 per 1m30s", "window: 1m30s", true},
			{"window: {calendar: month, timezone: Europe/Berlin, starts: 15}", "7 per calendar month (Europe/Berlin, from the 15th)",
				"unit=MONTH requests_per_unit=7, shadow_mode: false, quota_mode: false, window: calendar month (Europe/Berlin, from the 15th)", algorithm.Takes(algo.TakesCalendar)},
			{"window: {calendar: quarter}", "7 per calendar quarter (UTC)", "window: calendar quarter (UTC)", algorithm.Takes(algo.TakesCalendar)},
			{"unit: day, burst: 9", ", burst 9", ", burst: 9", algorithm.Takes(algo.TakesBurst)},
			{"unit: day, token_bucket: {capacity: 5, refill_rate: 2/s}", ", burst 5, refill_rate 2/second", ", burst: 5, refill_rate: 2/second", algorithm.Takes(algo.TakesRefill)},
			{"unit: day, strict: true, sub_windows: 12", ", strict, sub_windows 12", ", strict: true, sub_windows: 12", algorithm.Takes(algo.TakesStrict)},
			{"unit: day, denied_hits: count", ", denied_hits count", ", denied_hits: count", true},
			{"unit: day, on_backend_error: local", ", on_backend_error local", ", on_backend_error: local", true},
			{"unit: day, lease: 0.25", ", lease 0.25", ", lease: 0.25", true},
			{"unit: day, raw_body: hello", ", raw_body 5 bytes", ", raw_body: 5 bytes", true},
			{"unit: day, request_headers: {X-B: two words, x-a: 1}", `, request_headers x-a=1 x-b="two words"`, `, request_headers: x-a=1 x-b="two words"`, true},
			{"unit: day, shadow_mode: true", ", shadow_mode", "shadow_mode: true", true},
			{"unit: day, name: by day", `"by day": `, "unit=DAY", true},
			{"unit: day, replaces: [{name: x}]", ", replaces x", "unit=DAY", true},
		} {
			if !f.takes {
				continue
			}
			rules := parse(t, rulefile.Source{Name: "a.yaml", Data: fmt.Appendf(nil,
				"domain: edge\ndescriptors:\n- key: user\n  rate_limit: {algorithm: %s, requests_per_unit: 7, %s}\n", name, f.yaml)})
			d := rules.Domains[0].Descriptors[0]
			text := d.Limits[0].String()
			if !strings.Contains(text, name+", 7 per ") || !strings.Contains(text, f.text) {
				t.Errorf("%s, %s: the limit is %q, without %q", name, f.yaml, text, f.text)
			}
			if got := d.LimitsText(); got != text {
				t.Errorf("the rule is %q, want %q", got, text)
			}
			explained := descriptor.Compile(rules).Explain("edge", []descriptor.Entry{{Key: "user", Value: "x"}})
			if !strings.Contains(explained.String(), "\n   "+text+"\n") {
				t.Errorf("explain says\n%s\nwithout %q", explained, text)
			}
			line := rules.String()
			if !strings.HasPrefix(line, "edge."+explained.Rule.Path+": ") || !strings.Contains(line, f.line) {
				t.Errorf("/rlconfig says %q, without %q", line, f.line)
			}
			if name != "fixed_window" && !strings.Contains(line, ", algorithm: "+name) {
				t.Errorf("/rlconfig says %q, without %s", line, name)
			}
		}
	}
}

// TestEverySurfaceNamesARuleAlike compares the names of rules in lists, in the matcher
// and in /rlconfig.
func TestEverySurfaceNamesARuleAlike(t *testing.T) {
	rules := parse(t, rulefile.Source{Name: "a.yaml", Data: []byte(`
domain: edge
descriptors:
- key: user
  value: alice
  rate_limit: {unit: day, requests_per_unit: 1}
  descriptors:
  - key: path
    rate_limit: {unit: day, requests_per_unit: 1}
    descriptors:
    - {key: method, value: G*, rate_limit: {unit: day, requests_per_unit: 1}}
`)})
	want := []string{"user_alice", "user_alice.path", "user_alice.path.method_G*"}
	compiled := descriptor.Compile(rules)
	entries := []descriptor.Entry{{Key: "user", Value: "alice"}, {Key: "path", Value: "/"}, {Key: "method", Value: "GET"}}
	lines := strings.Split(rules.String(), "\n")
	i := 0
	for r := range rules.All() {
		if r.Name() != want[i] {
			t.Errorf("rule %q, want %q", r.Name(), want[i])
		}
		if x := compiled.Explain("edge", entries[:i+1]); x.Rule == nil || x.Rule.Path != want[i] {
			t.Errorf("explain says %s, want rule %s", x, want[i])
		}
		if !strings.HasPrefix(lines[i], "edge."+want[i]+": ") {
			t.Errorf("/rlconfig says %q, want %s", lines[i], want[i])
		}
		i++
	}
}

var _ fmt.Stringer = (*config.Limit)(nil)
