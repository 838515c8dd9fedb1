package rulefile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/config"
)

// TestSetWarningsCompareRows: a limit hides another one only if each of its rows is as strict
// as each of the other's.
func TestSetWarningsCompareRows(t *testing.T) {
	for _, c := range []struct {
		by, of string
		hidden int
	}{
		{"5", "{by: plan, values: {gold: 10, none: 4}, default: 20}", 0},
		{"5", "{by: plan, values: {gold: 10, none: 5}, default: 20}", 1},
		{"{by: plan, values: {gold: 10}, default: 5}", "7", 0},
		{"{by: plan, values: {gold: 7}, default: 5}", "8", 1},
	} {
		text := fmt.Sprintf(`domain: edge
limits:
  - {name: a, match: {user: {}}, rate_limit: {unit: minute, requests_per_unit: %s}}
  - {name: b, match: {user: {}, path: /}, rate_limit: {unit: minute, requests_per_unit: %s}}
`, c.by, c.of)
		rules, err := Parse([]Source{{Name: "r.yaml", Data: []byte(text)}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := SetWarnings(rules); len(got) != c.hidden {
			t.Errorf("%s before %s: %v", c.by, c.of, got)
		}
	}
}

// TestTheTextOfAMistakeIsFoundWhateverAliasesStandFor: the place of a mistake in a list is
// looked for once in what aliases stand for. Written out, this file has 10^9 values.
func TestTheTextOfAMistakeIsFoundWhateverAliasesStandFor(t *testing.T) {
	text := "domain: edge\nlimits:\n- name: x\n  match: {user: {}}\n  count_by: &a0 [user, user]\n"
	for i := 1; i <= 9; i++ {
		list := strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10)
		text += fmt.Sprintf("- name: x%d\n  count_by: &a%d [%s]\n", i, i, strings.TrimSuffix(list, ", "))
	}
	_, err := Parse([]Source{{Name: "r.yaml", Data: []byte(text)}}, Options{})
	if err == nil || !strings.Contains(err.Error(), `r.yaml:5:24: limits[0].count_by: key "user" twice in count_by`) {
		t.Error(err)
	}
}

// TestATableIsEclipsedByRulesOfOtherSources: the entry that a table follows may lead to a
// rule that another source lays beside it or below it.
func TestATableIsEclipsedByRulesOfOtherSources(t *testing.T) {
	file := Source{Name: "r.yaml", Origin: config.FromFile, Data: []byte("domain: edge\ndescriptors:\n  - key: org\n    descriptors:\n      - {key: user, rate_limit: {unit: minute, requests_per_unit: {by: plan, values: {gold: 2}, default: 1}}}\n")}
	for name, test := range map[string]struct{ admin, want string }{
		"below it":  {"[{key: org, descriptors: [{key: user, descriptors: [{key: plan, value: gold, rate_limit: {unit: minute, requests_per_unit: 1}}]}]}]", "plan_gold"},
		"beside it": {"[{key: org, descriptors: [{key: plan, rate_limit: {unit: minute, requests_per_unit: 1}}]}]", "plan"},
		"above it":  {"[{key: plan, value: g*, rate_limit: {unit: minute, requests_per_unit: 1}}]", "plan_g*"},
		"elsewhere": {"[{key: other, descriptors: [{key: plan, rate_limit: {unit: minute, requests_per_unit: 1}}]}]", ""},
	} {
		admin := Source{Name: "admin:edge", Origin: config.FromAdmin, Data: []byte("{domain: edge, descriptors: " + test.admin + "}")}
		rules, err := Parse([]Source{file, admin}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		if test.want != "" {
			want = []string{"r.yaml:5:9: the table of org.user follows plan, but not where that entry leads to " + test.want + " (an admin rule) instead; write one of the two under limits, with match and count_by"}
		}
		var got []string
		for _, w := range rules.Warnings {
			got = append(got, w.Error())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
