package sets_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/match/sets"
)

func TestAnalyze(t *testing.T) {
	key := func(anyOf, not sets.Set) []sets.Condition {
		return []sets.Condition{{Key: "k", Any: anyOf, Not: not}}
	}
	values := func(v ...string) sets.Set { return sets.Set{Values: v} }
	none := sets.Set{}
	for _, c := range []struct {
		name    string
		rules   [][]sets.Condition
		counts  [][]string
		never   []int
		covered []sets.Covered
	}{
		{name: "all that any allows, not forbids", never: []int{0, 1, 2, 3}, rules: [][]sets.Condition{
			key(values("a", "b"), values("b", "a*")), key(none, values("*")), key(values("a*b"), values("a*")),
			key(sets.Set{CIDRs: []string{"10.1.0.0/16"}}, sets.Set{CIDRs: []string{"10.0.0.0/8"}}),
		}},
		{name: "something is left", rules: [][]sets.Condition{
			key(values("a", "b"), values("b")), key(values("a*"), values("a*b")), key(sets.Set{CIDRs: []string{"10.0.0.0/8"}}, sets.Set{CIDRs: []string{"10.1.0.0/16"}}),
		}},
		{name: "the same, in another order", rules: [][]sets.Condition{
			{anyOf("k", "a", "b"), {Key: "l"}}, {{Key: "l"}, anyOf("k", "b", "a")},
		}, covered: []sets.Covered{{Rule: 1, By: 0, Equal: true}}},
		{name: "a pattern covers what it matches", rules: [][]sets.Condition{
			key(values("/api/*"), none), key(values("/api/v1"), none), key(values("/api/*/x"), none), key(values("*/x"), none), key(values("/a*"), none),
		}, covered: []sets.Covered{{Rule: 0, By: 4}, {Rule: 1, By: 0}, {Rule: 1, By: 4}, {Rule: 2, By: 0}, {Rule: 2, By: 3}, {Rule: 2, By: 4}}},
		{name: "a prefix covers longer ones and addresses", rules: [][]sets.Condition{
			{within("k", "10.0.0.0/8")}, {within("k", "10.1.0.0/16", "10.2.0.0/16")}, {anyOf("k", "10.3.4.5")}, {within("k", "::/0")},
		}, covered: []sets.Covered{{Rule: 1, By: 0}, {Rule: 2, By: 0}}},
		{name: "fewer conditions cover more, and none all", rules: [][]sets.Condition{
			{anyOf("k", "a"), anyOf("l", "b")}, {anyOf("k", "a")}, {},
		}, covered: []sets.Covered{{Rule: 0, By: 1}, {Rule: 0, By: 2}, {Rule: 1, By: 2}}},
		{name: "a key twice may have a value that not forbids", rules: [][]sets.Condition{
			key(none, values("internal")), key(values("gold"), none), key(values("gold"), values("internal", "x")),
		}, covered: []sets.Covered{{Rule: 2, By: 0}, {Rule: 2, By: 1}}},
		{name: "what counts more finely covers nothing", rules: [][]sets.Condition{{{Key: "k"}, {Key: "l"}}, {{Key: "k"}, {Key: "l"}}, {{Key: "k"}}},
			counts: [][]string{{"k", "l"}, {"k"}, {"k"}}, covered: []sets.Covered{{Rule: 0, By: 1}, {Rule: 0, By: 2}, {Rule: 1, By: 2}}},
		{name: "absent", rules: [][]sets.Condition{{{Key: "k", Absent: true}}, {{Key: "k", Absent: true}, {Key: "l"}}, {{Key: "k"}, {Key: "l"}}},
			covered: []sets.Covered{{Rule: 1, By: 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules := make([]sets.Rule, len(c.rules))
			for i, match := range c.rules {
				rules[i] = rule(i, match...)
				if c.counts != nil {
					rules[i].CountBy = c.counts[i]
				}
			}
			x, err := sets.Compile(rules, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := x.Analyze(nil)
			var never []int
			for _, n := range got.Never {
				never = append(never, n.Rule)
			}
			if !slices.Equal(never, c.never) || !slices.Equal(got.Covered, c.covered) {
				t.Errorf("got %+v, want %d and %+v", got, c.never, c.covered)
			}
		})
	}
}

// TestCrowds has rules that differ only in the values that they forbid, and the same number
// of rules that the index can distinguish.
func TestCrowds(t *testing.T) {
	var rules []sets.Rule
	for i := range 600 {
		var match []sets.Condition
		forbids := func(key string) sets.Condition {
			return sets.Condition{Key: key, Not: sets.Set{Values: []string{fmt.Sprint(i)}}}
		}
		switch {
		case i < 150:
			match = []sets.Condition{anyOf("plan", "gold"), forbids("user")}
		case i < 260:
			match = []sets.Condition{forbids("tenant")}
		case i < 360:
			match = []sets.Condition{{Key: fmt.Sprint("debug", i), Absent: true}}
		case i < 459:
			match = []sets.Condition{within("address", "10.0.0.0/8"), {Key: "x", Absent: true}} // one too few
		default:
			match = []sets.Condition{anyOf("user", fmt.Sprint(i))}
		}
		rules = append(rules, rule(i, match...))
	}
	x, err := sets.Compile(rules, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []sets.Crowd{{Key: "plan", Value: "gold", Rules: 150}, {Key: "tenant", Value: "*", Rules: 110}, {Rules: 100}}
	if got := x.Analyze(nil).Crowds; !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// findingsHold checks the findings of Analyze on random descriptors.
func findingsHold(t *rapid.T) {
	rules := drawRules(t)
	x, err := sets.Compile(rules, nil)
	if err != nil {
		t.Fatal(err)
	}
	found := x.Analyze(nil)
	for range 50 {
		entries := rapid.SliceOfN(request, 0, 6).Draw(t, "entries")
		apply := modelLookup(rules, entries)
		for _, n := range found.Never {
			if slices.Contains(apply, n.Rule) {
				t.Fatalf("%q: %+v should never apply", entries, rules[n.Rule])
			}
		}
		for _, c := range found.Covered {
			rule, by := slices.Contains(apply, c.Rule), slices.Contains(apply, c.By)
			if rule && !by || c.Equal && by && !rule {
				t.Fatalf("%q: %+v applies, or %+v, but not both: %+v", entries, rules[c.Rule], rules[c.By], c)
			}
		}
	}
}

func TestFindingsHold(t *testing.T) { rapid.Check(t, findingsHold) }

// TestMembersThatMakeNoDifference: in a list, another member has all their values. Long
// lists, which are indexed, give the same.
func TestMembersThatMakeNoDifference(t *testing.T) {
	var long []string
	for i := range 50 {
		long = append(long, fmt.Sprintf("v%02d", i))
	}
	for name, tt := range map[string]struct {
		any, not sets.Set
		want     string
	}{
		"a value beside a pattern": {any: sets.Set{Values: []string{"x", "x*", "y"}}, want: "x by x*"},
		"a pattern in a pattern":   {any: sets.Set{Values: []string{"a*", "ab*", "*b"}}, want: "ab* by a*"},
		"a value in a range":       {any: sets.Set{Values: []string{"10.1.2.3"}, CIDRs: []string{"10.0.0.0/8"}}, want: "10.1.2.3 by 10.0.0.0/8"},
		"a range in a range":       {not: sets.Set{CIDRs: []string{"10.1.0.0/16", "10.0.0.0/8"}}, want: "10.1.0.0/16 by 10.0.0.0/8"},
		"twice":                    {any: sets.Set{Values: []string{"a**", "a*"}}, want: "a* by a*"},
		"apart":                    {any: sets.Set{Values: []string{"x", "y*"}}, not: sets.Set{Values: []string{"x*"}}},
		"a long list":              {any: sets.Set{Values: append([]string{"v0*"}, long[9:]...)}, want: "v09 by v0*"},
	} {
		x, err := sets.Compile([]sets.Rule{{Name: "r", Match: []sets.Condition{{Key: "k", Any: tt.any, Not: tt.not}}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range x.Analyze(nil).Idle {
			got = append(got, i.Member+" by "+i.By)
		}
		if text := strings.Join(got, ", "); text != tt.want {
			t.Errorf("%s: got %q, want %q", name, text, tt.want)
		}
	}
}
