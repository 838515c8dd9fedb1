package ruletest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/ruletest"
)

// TestExamples runs the tests of config/examples as users do.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../config/tests/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files of tests: %v", err)
	}
	report := ruletest.Run(files, ruletest.Options{})
	if !report.Passed {
		t.Errorf("failed:\n%s", text(report))
	}
	for _, f := range report.Files {
		if len(f.Tests) == 0 {
			t.Errorf("%s has no tests", f.File)
		}
	}
}

// rules are those of the tests below. The first line of a test is the file's ninth.
const rules = `rules:
  domain: edge
  descriptors:
    - {key: user, rate_limit: {name: per_user, unit: minute, requests_per_unit: 2}}
    - {key: free, rate_limit: {unlimited: true}}
    - key: try
      shadow_mode: true
      rate_limit: {algorithm: token_bucket, unit: minute, requests_per_unit: 1}
`

func TestWhatIsSaidOfAnAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		tests string
		want  string
	}{
		"passes": {`tests: [{name: x, steps: [{descriptors: user=a, repeat: 3, expect: {allowed: 2}}]}]`,
			`stdin: 1 test passed, 3 requests`},
		"the first request of a step that is answered otherwise": {`tests: [{name: x, steps: [{descriptors: user=a, repeat: 5, every: 10s, expect: OK}]}]`,
			`stdin:9:80: tests[0].steps[0].expect: test "x", request 3 of 5 at 20s, user=a: want OK, got OVER_LIMIT; decided by user at stdin:4:7 (per_user: fixed_window, 2 per minute)
stdin: 1 of 1 test failed`},
		"everything of a status": {`tests: [{name: x, steps: [{descriptors: user=a, expect: {verdict: OVER_LIMIT, rule: other, name: foo, remaining: 4, reset: 3s, shadow: true}}]}]`,
			`stdin:9:67: tests[0].steps[0].expect.verdict: test "x" at 0s, user=a: want OVER_LIMIT, got OK; decided by user at stdin:4:7 (per_user: fixed_window, 2 per minute)
stdin:9:85: tests[0].steps[0].expect.rule: test "x" at 0s, user=a: want other, got user; decided by user at stdin:4:7 (per_user: fixed_window, 2 per minute)
stdin:9:98: tests[0].steps[0].expect.name: test "x" at 0s, user=a: want foo, got per_user; decided by user at stdin:4:7 (per_user: fixed_window, 2 per minute)
stdin:9:114: tests[0].steps[0].expect.remaining: test "x" at 0s, user=a: want 4, got 1; decided by user at stdin:4:7 (per_user: fixed_window, 2 per minute)
stdin:9:124: tests[0].steps[0].expect.reset: test "x" at 0s, user=a: want 3s, got 1m0s; decided by user at stdin:4:7 (per_user: fixed_window, 2 per minute)
stdin:9:136: tests[0].steps[0].expect.shadow: test "x" at 0s, user=a: want true, got false; decided by user at stdin:4:7 (per_user: fixed_window, 2 per minute)
stdin: 1 of 1 test failed`},
		"how many pass": {`tests: [{name: x, steps: [{descriptors: user=a, hits: 2, repeat: 5, expect: {allowed: 2}}]}]`,
			`stdin:9:87: tests[0].steps[0].expect.allowed: test "x", request 5 of 5 at 0s: want 2, got 1
stdin: 1 of 1 test failed`},
		"the one of several descriptors": {`tests: [{name: x, steps: [{descriptors: [user=a, user=b], expect: {descriptors: [OK, OVER_LIMIT]}}]}]`,
			`stdin:9:86: tests[0].steps[0].expect.descriptors[1]: test "x" at 0s, user=b: want OVER_LIMIT, got OK; decided by user at stdin:4:7 (per_user: fixed_window, 2 per minute)
stdin: 1 of 1 test failed`},
		"no rule": {`tests: [{name: x, steps: [{descriptors: nothing=a, expect: {verdict: OK, rule: null, name: "", remaining: 0}}, {descriptors: nothing=a, expect: OVER_LIMIT}]}]`,
			`stdin:9:145: tests[0].steps[1].expect: test "x" at 0s, nothing=a: want OVER_LIMIT, got OK; no rule applies
stdin: 1 of 1 test failed`},
		"no limit of the rule": {`tests: [{name: x, steps: [{descriptors: free=a, expect: {rule: free, remaining: 4294967295}}, {descriptors: free=a, expect: OVER_LIMIT}]}]`,
			`stdin:9:125: tests[0].steps[1].expect: test "x" at 0s, free=a: want OVER_LIMIT, got OK; no limit of free at stdin:5:7 applies
stdin: 1 of 1 test failed`},
		"a rehearsal": {`tests: [{name: x, steps: [{descriptors: try=a, repeat: 2, expect: {verdict: OK, shadow: true}}]}]`,
			`stdin: 1 test passed, 2 requests`},
		"hits of its own, given back": {`tests: [{name: x, steps: [{descriptors: [{entries: user=a, hits: 2}]}, {descriptors: user=a, hits: -1}, {descriptors: {entries: [{key: user, value: a}], hits: 0}, expect: {remaining: 1}}]}]`,
			`stdin: 1 test passed, 3 requests`},
		"a limit that the request brings": {`tests: [{name: x, steps: [{descriptors: {entries: none=a, limit: {requests_per_unit: 1, unit: hour}}, repeat: 2, expect: OK}]}]`,
			`stdin:9:122: tests[0].steps[0].expect: test "x", request 2 of 2 at 0s, none=a: want OK, got OVER_LIMIT; decided by the limit that the request brings (fixed_window, 1 per hour)
stdin: 1 of 1 test failed`},
		"a request that can't be decided": {`tests: [{name: x, steps: [{descriptors: {entries: user=a, limit: {requests_per_unit: 1, unit: year, unit_multiplier: 5}}}]}]`,
			`stdin:9:27: tests[0].steps[0]: test "x" at 0s: want a decision, got descriptors[0].limit.unit_multiplier: 5 times YEAR is longer than 366 days: use at most 1
stdin: 1 of 1 test failed`},
		"counters begin anew for each test": {`tests: [{name: x, steps: [{descriptors: user=a, repeat: 2, expect: OK}]}, {name: y, steps: [{descriptors: user=a, repeat: 2, expect: OK}]}]`,
			`stdin: 2 tests passed, 4 requests`},
		"the clock": {"start: 2026-03-29T23:59:59+02:00\n" + `tests: [{name: x, steps: [{descriptors: user=a, repeat: 2, expect: {reset: 1s}}, {after: 1s, descriptors: user=a, expect: {reset: 60s}}, {at: "2026-03-29T22:01:00Z", descriptors: user=a, expect: {remaining: 1}}, {at: 3h, descriptors: user=a, expect: {remaining: 1}}]}]`,
			`stdin: 1 test passed, 5 requests`},
		"anchors": {`tests: [{name: x, steps: [&a {descriptors: user=a, expect: OK}, *a, {<<: *a, expect: OVER_LIMIT}]}]`,
			`stdin: 1 test passed, 3 requests`},
	} {
		t.Run(name, func(t *testing.T) {
			report := ruletest.Run([]string{"-"}, ruletest.Options{Stdin: strings.NewReader(rules + tt.tests)})
			got := text(report)
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if report.Passed != strings.Contains(tt.want, "passed") {
				t.Errorf("passed: %v", report.Passed)
			}
		})
	}
}

func TestWhatIsWrongWithAFile(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"everything at once": {"rulez: a\ntests:\n- steps: [{descriptors: '', at: 3}]\n- {name: x}\n", `stdin:1:1: rulez: unknown key "rulez"; did you mean "rules"?
stdin:3:3: tests[0]: the test has no name; write name: and what it shows
stdin:3:25: tests[0].steps[0].descriptors: entry 1 of "" has no key: write key=value,key=value; write \, for a comma in a value, or entries: [{key: …, value: …}]
stdin:3:33: tests[0].steps[0].at: "3" is not a time; write a time such as 90s, 1h30m, 250ms or 7d
stdin:4:3: tests[1]: the test has no steps; write steps: and a list of requests
stdin: 5 errors`},
		"going back": {"rules: {domain: a}\ntests: [{name: x, steps: [{descriptors: a, repeat: 3, every: 1s}, {at: 1s, descriptors: a}]}]", `stdin:2:72: tests[0].steps[1].at: 1s is before the request above, at 2s; write a later time: the clock of a test only goes on
stdin: 1 error`},
		"octal numbers": {"rules: {domain: a}\ntests: [{name: x, steps: [{descriptors: a, repeat: 010, hits: -010}, {descriptors: a, repeat: 0x10}]}]", `stdin:2:52: tests[0].steps[0].repeat: 010 is 8, because a number that begins with 0 is octal; write the number without the 0
stdin:2:63: tests[0].steps[0].hits: -010 is -8, because a number that begins with 0 is octal; write the number without the 0
stdin: 2 errors`},
		"not YAML": {"tests: [", `stdin:2:1: not YAML: did not find expected node content while parsing a flow node; mend the syntax, there or just above
stdin: 1 error`},
		"empty":       {"", "stdin:1:1: the file is empty; write rules: and tests:\nstdin: 1 error"},
		"not a file":  {"- a", "stdin:1:1: want a mapping, found a list; write keys with values\nstdin: 1 error"},
		"no rules":    {"tests: [{name: x, steps: [{descriptors: a}]}]", "stdin:1:1: no rules to test; write rules: and the path of a file or directory, or the rules themselves\nstdin: 1 error"},
		"bad rules":   {"rules:\n  - domain: edge\n    descriptors: [{key: user, rate_limit: {unit: fortnight, requests_per_unit: 1}}]\ntests: [{name: x, steps: [{descriptors: a}]}]", "stdin:3:50: descriptors[0].rate_limit.unit: unknown unit \"fortnight\"; write second, minute, hour, day, week, month or year\nstdin: 1 error"},
		"which rules": {"rules: nowhere.yaml\ntests: [{name: x, steps: [{descriptors: a}]}]", "nowhere.yaml: can't be read: no such file or directory; write the path of a file or directory with rules\nstdin: 1 error"},
		"which domain": {"rules: [{domain: a, descriptors: [{key: a}]}, {domain: b, descriptors: [{key: a}]}]\ntests: [{name: x, steps: [{descriptors: a}, {domain: b, descriptors: a}]}]",
			"stdin:2:27: tests[0].steps[0]: which of the 2 domains?; write domain: for the step, the test or the file\nstdin: 1 error"},
		"which descriptor": {"rules: {domain: a}\ntests: [{name: x, steps: [{descriptors: [a, b], expect: {remaining: 1}}, {descriptors: [a, b], expect: {descriptors: [OK]}}]}]",
			`stdin:2:69: tests[0].steps[0].expect.remaining: of which of the 2 descriptors?; write it under descriptors: [{…}, {…}], one for each
stdin:2:118: tests[0].steps[1].expect.descriptors: 1 of 2 descriptors; write one for each, and {} for those of which nothing is expected
stdin: 2 errors`},
		"an anchor that contains itself": {"rules: {domain: a}\ntests: &a [*a]", "stdin:2:12: tests[0]: want a mapping, found a list; write keys with values\nstdin: 1 error"},
		"a merge that contains itself":   {"rules: {domain: a}\ntests: [&a {<<: *a, name: x, steps: []}]", "stdin:2:9: tests[0]: the test has no steps; write steps: and a list of requests\nstdin:2:17: tests[0]: << leads to more than 20 others; write out the keys\nstdin: 2 errors"},
	} {
		t.Run(name, func(t *testing.T) {
			report := ruletest.Run([]string{"-"}, ruletest.Options{Stdin: strings.NewReader(tt.in)})
			if got := text(report); got != tt.want || report.Passed {
				t.Errorf("passed %v, got\n%s\nwant\n%s", report.Passed, got, tt.want)
			}
		})
	}
}

// TestRulesAreFoundFromTheFile of tests, and others can take their place.
func TestRulesAreFoundFromTheFile(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"rules/edge.yaml":   "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: minute, requests_per_unit: 2}}]",
		"new.yaml":          "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: minute, requests_per_unit: 3}}]",
		"tests/edge.yaml":   "rules: ../rules\ntests: [{name: two, steps: [{descriptors: user=a, repeat: 5, expect: {allowed: 2}}]}]",
		"tests/smooth.yaml": "rules: [../rules, adjust.yaml]\ntests: [{name: one, steps: [{descriptors: user=a, repeat: 5, expect: {allowed: 1}}]}]",
		"tests/adjust.yaml": "adjust: [{rules: {path: user}, set: {algorithm: token_bucket, burst: 50%}}]",
		"tests/three.yaml":  "tests: [{name: three, steps: [{descriptors: user=a, repeat: 5, expect: {allowed: 3}}]}]",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if report := ruletest.Run([]string{filepath.Join(dir, "tests", "edge.yaml")}, ruletest.Options{}); !report.Passed {
		t.Error(text(report))
	}
	if report := ruletest.Run([]string{filepath.Join(dir, "tests", "smooth.yaml")}, ruletest.Options{}); !report.Passed {
		t.Errorf("the adjustment is not in force: %s", text(report))
	}
	byDefault := ruletest.Options{Default: config.Default{Algorithm: algo.TokenBucket, Burst: config.Burst{Hits: 5}}}
	if report := ruletest.Run([]string{filepath.Join(dir, "tests", "edge.yaml")}, byDefault); report.Passed {
		t.Error("the default algorithm is not in force")
	}
	others := ruletest.Options{Rules: []string{filepath.Join(dir, "new.yaml")}}
	if report := ruletest.Run([]string{filepath.Join(dir, "tests", "three.yaml")}, others); !report.Passed {
		t.Error(text(report))
	}
	if report := ruletest.Run([]string{filepath.Join(dir, "tests", "edge.yaml")}, others); report.Passed {
		t.Error("the rules of the file were tested, not those in their place")
	}
}

func text(r *ruletest.Report) string {
	var b strings.Builder
	r.WriteText(&b)
	return strings.TrimSuffix(b.String(), "\n")
}
