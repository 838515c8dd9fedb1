package config_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// smooth is the default of most tests.
var smooth = config.Default{Algorithm: algo.TokenBucket, Burst: config.Burst{Percent: 20 * config.OnePercent}, By: "DEFAULT_ALGORITHM"}

// assemble reads texts, named 0.yaml and so on, as rules that are not adjusted. A text that
// begins with "# xds" or "# admin" comes from there.
func assemble(t *testing.T, opts rulefile.Options, texts ...string) *config.Rules {
	t.Helper()
	var sources []rulefile.Source
	for i, text := range texts {
		s := rulefile.Source{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(text)}
		for _, origin := range []config.Origin{config.FromXDS, config.FromAdmin} {
			if strings.HasPrefix(text, "# "+origin.String()+"\n") {
				s.Origin = origin
			}
		}
		sources = append(sources, s)
	}
	rules, err := rulefile.Parse(sources, opts)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// limits returns "domain path: limits" of all rules.
func limits(rules *config.Rules) (list []string) {
	for r := range rules.All() {
		list = append(list, fmt.Sprintf("%s %s: %s", r.Domain.Name, r.Name(), r.Descriptor().LimitsText()))
	}
	return list
}

func written(t *testing.T, rules *config.Rules) string {
	t.Helper()
	var b strings.Builder
	for _, d := range rules.Domains {
		text, err := yaml.Marshal(rulefile.Domain{Domain: d})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}

func TestDefaultAlgorithm(t *testing.T) {
	rule := func(fields string) string { return "domain: edge\ndescriptors: [{key: user, " + fields + "}]\n" }
	limit := func(fields string) string { return rule("rate_limit: {" + fields + "}") }
	for _, tt := range []struct {
		name, text string
		by         config.Default
		opts       rulefile.Options
		want       string
		warning    string // part of one
	}{
		{name: "names none", text: limit("unit: minute, requests_per_unit: 100"), want: "token_bucket, 100 per minute, burst 20 (20%), denied_hits count"},
		{name: "null is none", text: limit("algorithm: null, unit: minute, requests_per_unit: 100"), want: "token_bucket, 100 per minute, burst 20 (20%), denied_hits count"},
		{name: "explicit fixed_window", text: limit("algorithm: fixed_window, unit: minute, requests_per_unit: 100"), want: "fixed_window, 100 per minute"},
		{name: "another algorithm", text: limit("algorithm: sliding_log, unit: minute, requests_per_unit: 100"), want: "sliding_log, 100 per minute"},
		{name: "a bucket without burst", text: limit("algorithm: token_bucket, unit: minute, requests_per_unit: 100"), want: "token_bucket, 100 per minute"},
		{name: "unlimited", text: limit("unlimited: true"), want: "unlimited"},
		{name: "quota", text: rule("quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 100}"), want: "fixed_window, 100 per minute (quota_mode)"},
		{name: "a day", text: limit("unit: day, requests_per_unit: 100"), want: "fixed_window, 100 per day"},
		{name: "a month", text: limit("unit: month, requests_per_unit: 100"), want: "fixed_window, 100 per month"},
		{name: "24 hours", text: limit("window: 24h, requests_per_unit: 100"), want: "fixed_window, 100 per day"},
		{name: "23 hours", text: limit("window: 23h, requests_per_unit: 100"), want: "token_bucket, 100 per 23h, burst 20 (20%), denied_hits count"},
		{name: "charges nothing", text: limit("unit: minute, requests_per_unit: 100, denied_hits: drop"), want: "token_bucket, 100 per minute, burst 20 (20%), denied_hits drop"},
		{name: "all or nothing", text: "consume: all_or_nothing\n" + limit("unit: minute, requests_per_unit: 100"), want: "token_bucket, 100 per minute, burst 20 (20%), denied_hits drop"},
		{name: "nothing is charged", opts: rulefile.Options{DropDenied: true}, text: limit("unit: minute, requests_per_unit: 100"), want: "token_bucket, 100 per minute, burst 20 (20%), denied_hits drop"},
		{
			name: "several", text: rule("rate_limits: [{unit: second, requests_per_unit: 10}, {unit: day, requests_per_unit: 1000}, {algorithm: fixed_window, unit: hour, requests_per_unit: 100}]"),
			want: "token_bucket, 10 per second, burst 2 (20%), denied_hits drop; fixed_window, 1000 per day, denied_hits drop; fixed_window, 100 per hour, denied_hits drop",
		},
		{name: "what else it has", text: rule("shadow_mode: true, rate_limit: {name: a, unit: minute, requests_per_unit: 5, on_backend_error: allow, replaces: [{name: b}]}"), want: "a: token_bucket, 5 per minute, burst 1 (20%), denied_hits count, on_backend_error allow, replaces b (shadow_mode)"},
		{name: "rounded up", text: limit("unit: minute, requests_per_unit: 6"), want: "token_bucket, 6 per minute, burst 2 (20%), denied_hits count"},
		{name: "at least 1", text: limit("unit: minute, requests_per_unit: 0"), want: "token_bucket, 0 per minute, burst 1 (20%), denied_hits count"},
		{name: "a calendar", by: smooth, text: limit("window: {calendar: day}, requests_per_unit: 100"), want: "fixed_window, 100 per calendar day (UTC)"},
		{name: "more than the limit", by: config.Default{Algorithm: algo.TokenBucket, Burst: config.Burst{Percent: 250 * config.OnePercent}}, text: limit("unit: minute, requests_per_unit: 3"), want: "token_bucket, 3 per minute, burst 8 (250%), denied_hits count"},
		{name: "more than a number", by: config.Default{Algorithm: algo.TokenBucket, Burst: config.Burst{Percent: 250 * config.OnePercent}}, text: limit("unit: minute, requests_per_unit: 4294967295"), want: "token_bucket, 4294967295 per minute, burst 4294967295 (250%), denied_hits count"},
		{name: "a number", by: config.Default{Algorithm: algo.LeakyBucket, Burst: config.Burst{Hits: 7}}, text: limit("unit: minute, requests_per_unit: 100"), want: "leaky_bucket, 100 per minute, burst 7, denied_hits count"},
		{name: "no burst", by: config.Default{Algorithm: algo.SlidingWindow}, text: limit("unit: minute, requests_per_unit: 100"), want: "sliding_window, 100 per minute, denied_hits count"},
		{name: "that rules have anyway", by: config.Default{Algorithm: algo.FixedWindow, By: "DEFAULT_ALGORITHM"}, text: limit("unit: minute, requests_per_unit: 100"), want: "fixed_window, 100 per minute"},
		{
			name: "cannot be", by: config.Default{Algorithm: algo.SlidingLog, By: "DEFAULT_ALGORITHM"}, text: limit("unit: minute, requests_per_unit: 100000"), want: "fixed_window, 100000 per minute",
			warning: "0.yaml:2:39: DEFAULT_ALGORITHM is not for all limits: the limit of user in domain edge (0.yaml:2:39) can't be so: a sliding_log of 100000",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.by == (config.Default{}) {
				tt.by = smooth
			}
			rules := assemble(t, tt.opts, tt.text)
			asWritten := written(t, rules)
			adjusted, err := config.NewOverlay(tt.by).Apply(rules)
			if err != nil {
				t.Fatal(err)
			}
			if got := limits(adjusted); len(got) != 1 || got[0] != "edge user: "+tt.want {
				t.Errorf("got %q, want %q", got, "edge user: "+tt.want)
			}
			if tt.warning != "" && !slices.ContainsFunc(adjusted.Warnings, func(p config.Problem) bool { return strings.HasPrefix(p.Error(), tt.warning) }) {
				t.Errorf("warnings %v, want one of %s", adjusted.Warnings, tt.warning)
			}
			// Written back, the rules are the original ones, and adjust to the same.
			text := written(t, adjusted)
			if text != asWritten {
				t.Errorf("written as\n%s\nwant\n%s", text, asWritten)
			}
			again, err := config.NewOverlay(tt.by).Apply(assemble(t, tt.opts, text))
			if err != nil || !slices.Equal(limits(again), limits(adjusted)) {
				t.Errorf("written back and read, they are %q, want %q (%v)", limits(again), limits(adjusted), err)
			}
		})
	}
}

// TestAdjustments checks which limits an adjustment selects, and how it changes them.
func TestAdjustments(t *testing.T) {
	const rules = `domain: edge
descriptors:
  - key: route
    value: a
    descriptors:
      - key: masked_remote_address
        value: 10.0.0.0/8
        rate_limit: {unit: second, requests_per_unit: 50}
      - key: remote_address
        rate_limit: {name: each, unit: second, requests_per_unit: 5}
  - key: token
    quota_mode: true
    rate_limit: {name: budget, unit: month, requests_per_unit: 1000}
  - key: sliding
    rate_limit: {algorithm: sliding_window, strict: true, sub_windows: 5, unit: minute, requests_per_unit: 9}
  - key: many
    shadow_mode: true
    rate_limits:
      - {name: one, algorithm: fixed_window, unit: second, requests_per_unit: 10}
      - {name: two, unit: day, requests_per_unit: 100}
limits:
  - name: writes
    match: {method: POST}
    rate_limit: {unit: minute, requests_per_unit: 30}
---
domain: other
descriptors:
  - key: user
    rate_limit: {unit: second, requests_per_unit: 7}
  - key: free
    rate_limit: {unlimited: true}
`
	before := limits(assemble(t, rulefile.Options{}, rules))
	for _, tt := range []struct {
		name, adjust string
		by           config.Default
		want         []string // limits that changed
		by0          string   // explanation of the first of them
		warning      string   // part of one
	}{
		{
			name: "path", adjust: `[{rules: {path: "*masked_remote_address*"}, set: {algorithm: token_bucket, burst: 20%}}]`,
			want: []string{"edge route_a.masked_remote_address_10.0.0.0/8: token_bucket, 50 per second, burst 10 (20%), denied_hits count"},
			by0:  "1.yaml:1:10: algorithm token_bucket, burst 20%",
		},
		{name: "exact path", adjust: `[{rules: {path: route_a.remote_address}, set: {lease: 0.1}}]`, want: []string{"edge route_a.remote_address: each: fixed_window, 5 per second, lease 0.1"}},
		{name: "part of a path without *", adjust: `[{rules: {path: remote_address}, set: {lease: 0.1}}]`, warning: "1.yaml:1:10: adjust[0].rules: no limit is selected"},
		{name: "name", adjust: `[{rules: {name: each}, set: {on_backend_error: local, denied_hits: drain}}]`, want: []string{"edge route_a.remote_address: each: fixed_window, 5 per second, denied_hits drain, on_backend_error local"}},
		{name: "domain", adjust: `[{rules: {domain: oth*}, set: {raw_body: slow}}]`, want: []string{"other user: fixed_window, 7 per second, raw_body 4 bytes"}},
		{name: "path and name", adjust: `[{rules: {path: many, name: t*}, set: {algorithm: sliding_log}}]`, want: []string{"edge many: one: fixed_window, 10 per second, denied_hits drop; two: sliding_log, 100 per day, denied_hits drop (shadow_mode)"}},
		{name: "limits on sets", adjust: `[{rules: {path: limits.writes}, set: {algorithm: leaky_bucket}}]`, want: []string{"edge limits.writes: leaky_bucket, 30 per minute, denied_hits drop"}},
		{name: "unlimited alone", adjust: `[{rules: {path: free}, set: {shadow_mode: true}}]`, warning: "adjust[0].rules: no limit is selected"},
		{name: "a quota by the month, named", adjust: `[{rules: {name: budget}, set: {algorithm: sliding_window}}]`, want: []string{"edge token: budget: sliding_window, 1000 per month, denied_hits count (quota_mode)"}},
		{name: "an algorithm leaves what is another's", adjust: `[{rules: {path: sliding}, set: {algorithm: token_bucket}}]`, want: []string{"edge sliding: token_bucket, 9 per minute"}},
		{name: "an algorithm keeps what is its own, too", adjust: `[{rules: {path: sliding}, set: {algorithm: hybrid, burst: 3}}]`, want: []string{"edge sliding: hybrid, 9 per minute, burst 3, strict, sub_windows 5"}},
		{name: "strict no more", adjust: `[{rules: {path: sliding}, set: {strict: false}}]`, want: []string{"edge sliding: sliding_window, 9 per minute"}},
		{name: "more parts", adjust: `[{rules: {path: sliding}, set: {strict: true, sub_windows: 20}}]`, want: []string{"edge sliding: sliding_window, 9 per minute, strict, sub_windows 20"}},
		{
			name: "the later wins", adjust: `[{rules: {domain: other}, set: {algorithm: token_bucket, burst: 5, lease: 0.5}}, {rules: {domain: "*", path: user}, set: {burst: 100%}}]`,
			want: []string{"other user: token_bucket, 7 per second, burst 7 (100%), denied_hits count, lease 0.5"}, by0: "1.yaml:1:10: algorithm token_bucket, burst 5, lease 0.5; 1.yaml:1:90: burst 100%",
		},
		{name: "a later algorithm leaves an earlier burst", adjust: `[{rules: {domain: other}, set: {algorithm: token_bucket, burst: 5}}, {rules: {path: user}, set: {algorithm: sliding_window}}]`, want: []string{"other user: sliding_window, 7 per second, denied_hits count"}},
		{name: "a burst before its algorithm", adjust: `[{rules: {path: user}, set: {burst: 5}}, {rules: {path: user}, set: {algorithm: token_bucket}}]`, want: []string{"other user: token_bucket, 7 per second, burst 5, denied_hits count"}},
		{name: "shadow", adjust: `[{rules: {path: user}, set: {shadow_mode: true}}]`, want: []string{"other user: fixed_window, 7 per second, shadow_mode"}},
		{name: "enforced after all", adjust: `[{rules: {path: user}, set: {shadow_mode: true}}, {rules: {path: user}, set: {shadow_mode: false}}]`, want: []string{}, by0: ""},
		{name: "one of two enforced", adjust: `[{rules: {name: one}, set: {shadow_mode: false}}]`, want: []string{"edge many: one: fixed_window, 10 per second, denied_hits drop; two: fixed_window, 100 per day, denied_hits drop, shadow_mode"}},
		{name: "both enforced", adjust: `[{rules: {path: many}, set: {shadow_mode: false}}]`, want: []string{"edge many: one: fixed_window, 10 per second, denied_hits drop; two: fixed_window, 100 per day, denied_hits drop"}},
		{
			name: "beside a default", by: smooth, adjust: `[{rules: {path: "*.remote_address"}, set: {algorithm: fixed_window}}, {rules: {path: user}, set: {burst: 50%}}]`,
			want: []string{
				"edge route_a.masked_remote_address_10.0.0.0/8: token_bucket, 50 per second, burst 10 (20%), denied_hits count",
				"edge limits.writes: token_bucket, 30 per minute, burst 6 (20%), denied_hits drop", "other user: token_bucket, 7 per second, burst 4 (50%), denied_hits count",
			},
			by0: "DEFAULT_ALGORITHM: algorithm token_bucket, burst 20%",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			adjusted, err := config.NewOverlay(tt.by).Apply(assemble(t, rulefile.Options{}, rules, "adjust: "+tt.adjust))
			if err != nil {
				t.Fatal(err)
			}
			got := slices.DeleteFunc(limits(adjusted), func(s string) bool { return slices.Contains(before, s) })
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			if tt.by0 != "" {
				for r := range adjusted.All() {
					if by := r.Descriptor().AdjustedBy(); by != nil {
						var told []string
						for _, a := range config.DescribeAdjustments(by) {
							told = append(told, a.String())
						}
						if got := strings.Join(told, "; "); got != tt.by0 {
							t.Errorf("adjusted by %q, want %q", got, tt.by0)
						}
						break
					}
				}
			}
			switch {
			case tt.warning == "" && len(adjusted.Warnings) != len(assemble(t, rulefile.Options{}, rules).Warnings):
				t.Errorf("warnings %v", adjusted.Warnings)
			case tt.warning != "" && !strings.Contains((&config.Invalid{Problems: adjusted.Warnings}).Error(), tt.warning):
				t.Errorf("warnings %v, want %s", adjusted.Warnings, tt.warning)
			}
		})
	}
}

// TestAdjustmentThatMakesARuleInvalid checks that it is an error with both positions if
// the rule is in a file too, and that a rule from elsewhere goes on without it.
func TestAdjustmentThatMakesARuleInvalid(t *testing.T) {
	const (
		file   = "domain: files\ndescriptors:\n  - key: user\n    rate_limit: {unit: second, requests_per_unit: 5}\n  - key: path\n    rate_limit: {unit: second, requests_per_unit: 5}\n"
		xds    = "# xds\ndomain: plane\ndescriptors:\n  - key: user\n    rate_limit: {unit: second, requests_per_unit: 5}\n"
		bucket = "domain: files\ndescriptors:\n  - key: user\n    rate_limit: {algorithm: token_bucket, unit: second, requests_per_unit: 5}\n"
		admin  = "# admin\ndomain: files\ndescriptors:\n  - key: user\n    rate_limit: {unit: second, requests_per_unit: 6}\n  - key: path\n    rate_limit: {unit: second, requests_per_unit: 6}\n"
		adjust = "adjust:\n  - rules: {domain: \"*\"}\n    set: {denied_hits: drop}\n  - rules: {domain: \"*\"}\n    set: {burst: 20%, lease: 0.1}\n"
	)
	_, err := config.NewOverlay(config.Default{}).Apply(assemble(t, rulefile.Options{}, file, xds, adjust))
	const want = "2.yaml:4:5: adjust[1].set: the limit of user in domain files (0.yaml:4:17) can't be so: fixed_window has no burst (and 1 more); remove it, or write algorithm: token_bucket, leaky_bucket or hybrid; or select other rules"
	if bad, ok := errors.AsType[*config.Invalid](err); !ok || bad.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
	// An overridden rule counts too, so that the other rule can be removed at any time.
	if _, err := config.NewOverlay(config.Default{}).Apply(assemble(t, rulefile.Options{}, file, admin, adjust)); err == nil || err.Error() != want {
		t.Errorf("overridden: error\n%v\nwant\n%s", err, want)
	}
	for _, tt := range []struct {
		name   string
		texts  []string
		limits []string
		told   string
	}{
		{
			"xDS", []string{xds, adjust}, []string{"plane user: fixed_window, 5 per second, denied_hits drop"},
			"1.yaml:4:5: adjust[1].set: the limit of user in domain plane (0.yaml:5:17) can't be so: fixed_window has no burst: it goes on without this adjustment; remove it, or write algorithm: token_bucket, leaky_bucket or hybrid; or select other rules",
		},
		{
			"admin", []string{bucket, admin, adjust}, []string{"files path: fixed_window, 6 per second, denied_hits drop", "files user: fixed_window, 6 per second, denied_hits drop"},
			"2.yaml:4:5: adjust[1].set: the limit of path in domain files (1.yaml:7:17) can't be so: fixed_window has no burst (and 1 more): it goes on without this adjustment; remove it, or write algorithm: token_bucket, leaky_bucket or hybrid; or select other rules",
		},
	} {
		adjusted, err := config.NewOverlay(config.Default{}).Apply(assemble(t, rulefile.Options{}, tt.texts...))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := limits(adjusted); !slices.Equal(got, tt.limits) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.limits)
		}
		if len(adjusted.Unadjusted) != 1 || adjusted.Unadjusted[0].Error() != tt.told {
			t.Errorf("%s: unadjusted\n%v\nwant\n%s", tt.name, adjusted.Unadjusted, tt.told)
		}
	}
}

// TestUnchangedDomainsComeOutTheSame checks that unchanged domains are not compiled again,
// as long as their adjustments are the same too.
func TestUnchangedDomainsComeOutTheSame(t *testing.T) {
	const (
		a      = "domain: a\ndescriptors: [{key: user, rate_limit: {unit: second, requests_per_unit: 5}}]\n"
		b      = "domain: b\ndescriptors: [{key: user, rate_limit: {unit: second, requests_per_unit: 5}}]\n"
		adjust = "adjust:\n  - rules: {domain: a}\n    set: {algorithm: token_bucket, burst: 20%}\n"
	)
	parser := rulefile.NewParser(rulefile.Options{})
	overlay := config.NewOverlay(config.Default{})
	last := map[string]*config.Domain{}
	for _, step := range []struct {
		name    string
		texts   []string
		changed string // domains that changed
		limit   string // of a
		fails   bool
	}{
		{"at first", []string{a, b, adjust}, "ab", "token_bucket, 5 per second, burst 1 (20%), denied_hits count", false},
		{"the same", []string{a, b, adjust}, "", "token_bucket, 5 per second, burst 1 (20%), denied_hits count", false},
		{"another burst", []string{a, b, strings.Replace(adjust, "20%", "3", 1)}, "a", "token_bucket, 5 per second, burst 3, denied_hits count", false},
		{"a comment above, which moves its place", []string{a, b, "# smooth\n" + strings.Replace(adjust, "20%", "3", 1)}, "a", "token_bucket, 5 per second, burst 3, denied_hits count", false},
		{"another rule", []string{strings.Replace(a, "5}", "10}", 1), b, "# smooth\n" + strings.Replace(adjust, "20%", "3", 1)}, "a", "token_bucket, 10 per second, burst 3, denied_hits count", false},
		{"a bad one", []string{strings.Replace(a, "5}", "10}", 1), b, strings.Replace(adjust, "algorithm: token_bucket, ", "", 1)}, "", "", true},
		{"as before the bad one", []string{strings.Replace(a, "5}", "10}", 1), b, "# smooth\n" + strings.Replace(adjust, "20%", "3", 1)}, "", "token_bucket, 10 per second, burst 3, denied_hits count", false},
		{"one that is for the other as well", []string{strings.Replace(a, "5}", "10}", 1), b, "# smooth\n" + strings.Replace(adjust, "20%", "3", 1), "adjust: [{rules: {domain: b}, set: {lease: 0.1}}]"}, "b", "token_bucket, 10 per second, burst 3, denied_hits count", false},
		{"none", []string{strings.Replace(a, "5}", "10}", 1), b}, "ab", "fixed_window, 10 per second", false},
	} {
		var sources []rulefile.Source
		for i, text := range step.texts {
			sources = append(sources, rulefile.Source{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(text)})
		}
		rules, err := parser.Parse(sources)
		if err != nil {
			t.Fatal(err)
		}
		rules, err = overlay.Apply(rules)
		if step.fails {
			if err == nil {
				t.Errorf("%s: no error", step.name)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		changed := ""
		for _, d := range rules.Domains {
			if d != last[d.Name] {
				changed += d.Name
			}
			last[d.Name] = d
		}
		if changed != step.changed {
			t.Errorf("%s: %q are others, want %q", step.name, changed, step.changed)
		}
		if got := last["a"].Descriptors[0].LimitsText(); got != step.limit {
			t.Errorf("%s: %s, want %s", step.name, got, step.limit)
		}
	}
}

// TestAdjustmentsLeaveHoldsWhole: a slot is no rate, and a rate is no slot.
func TestAdjustmentsLeaveHoldsWhole(t *testing.T) {
	const rules = `domain: edge
descriptors: [{key: user, rate_limit: {name: rate, unit: minute, requests_per_unit: 5}}]
limits:
  - name: slots
    match: {user: {}}
    hold: {by: id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {name: slots, algorithm: concurrency, requests_per_unit: 5}
`
	for set, want := range map[string]string{
		`{rules: {name: slots}, set: {algorithm: token_bucket, burst: 20%}}`: "a limit that holds keeps its algorithm",
		`{rules: {name: slots}, set: {denied_hits: count}}`:                  "is charged by its settlement",
		`{rules: {name: slots}, set: {lease: 0.1}}`:                          "takes no lease",
		`{rules: {name: rate}, set: {algorithm: concurrency}}`:               "concurrency needs a hold",
	} {
		adjusted, err := config.NewOverlay(config.Default{}).Apply(assemble(t, rulefile.Options{}, rules, "adjust: ["+set+"]"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error with %q", set, err, want)
		} else if adjusted != nil {
			t.Errorf("%s: there are rules beside the error", set)
		}
	}
	if err := (config.Default{Algorithm: algo.Concurrency}).Check(); err == nil || !strings.Contains(err.Error(), "needs a hold") {
		t.Errorf("as a default: %v", err)
	}
}

// TestAdjustmentsReachTheRowsOfTables: each row is a limit of its own.
func TestAdjustmentsReachTheRowsOfTables(t *testing.T) {
	const rules = `domain: edge
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: {by: plan, values: {gold: 1000, silver: 95}, default: 10}}
`
	adjusted, err := config.NewOverlay(smooth).Apply(assemble(t, rulefile.Options{}, rules))
	if err != nil {
		t.Fatal(err)
	}
	l := adjusted.Domains[0].Descriptors[0].Limits[0]
	bursts := map[string]uint32{"": l.Algo.Params().Burst}
	for _, r := range l.Table.Rows {
		p := r.Limit.Algo.Params()
		if p.Algorithm != algo.TokenBucket || r.Limit.BurstPercent != 20*config.OnePercent {
			t.Errorf("%s: %+v, burst of %v", r.Value, p, r.Limit.BurstPercent)
		}
		bursts[r.Value] = p.Burst
	}
	if want := map[string]uint32{"": 2, "gold": 200, "silver": 19}; !maps.Equal(bursts, want) {
		t.Errorf("bursts %v, want %v", bursts, want)
	}
	adjusted, err = config.NewOverlay(config.Default{}).Apply(assemble(t, rulefile.Options{}, rules, "adjust: [{rules: {path: user}, set: {lease: 0.1}}]"))
	if err == nil || !strings.Contains(err.Error(), "or one from a table, takes no lease") {
		t.Errorf("%v, %v: a lease is an error", limits(adjusted), err)
	}
}

func TestBurstAsText(t *testing.T) {
	for text, want := range map[string]config.Burst{"20": {Hits: 20}, "20%": {Percent: 20 * config.OnePercent}, "12.5%": {Percent: 1250}, "7 %": {Percent: 7 * config.OnePercent}, "4294967295": {Hits: 4294967295}, "1000%": {Percent: 1000 * config.OnePercent}} {
		if got, err := config.ParseBurst(text); err != nil || got != want {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "0", "0%", "-1", "1.5", "12.345%", "20 %%", "4294967296", "much"} {
		if got, err := config.ParseBurst(text); err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		}
	}
}
