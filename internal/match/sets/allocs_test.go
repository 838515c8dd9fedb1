//go:build !race

package sets_test

// Under the race detector, a sync.Pool forgets at random.

import (
	"fmt"
	"testing"

	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// TestLookupDoesNotAllocate covers all that a rule may be filed under, and lists
// that are long.
func TestLookupDoesNotAllocate(t *testing.T) {
	var list []string
	for i := range 50 {
		list = append(list, fmt.Sprintf("x%d*y*", i), fmt.Sprintf("*z%d*", i), fmt.Sprintf("v%d", i))
	}
	rules := []sets.Rule{{Name: "all"}, {Name: "absent", Match: []sets.Condition{{Key: "z", Absent: true}}}}
	for _, c := range []sets.Condition{
		{}, {Any: sets.Set{Values: []string{"v7"}}}, {Any: sets.Set{Values: []string{"v*"}}}, {Any: sets.Set{Values: []string{"*7"}}},
		{Any: sets.Set{Values: []string{"*x*", "*y*"}}}, {Any: sets.Set{CIDRs: []string{"10.0.0.0/8", "::/0"}}}, {Any: sets.Set{Values: list}}, {Not: sets.Set{Values: list}},
	} {
		for _, key := range []string{"a", "b"} {
			c.Key = key
			rules = append(rules, sets.Rule{Name: fmt.Sprint(len(rules)), Match: []sets.Condition{c}, CountBy: []string{key}},
				sets.Rule{Name: fmt.Sprint("b", len(rules)), Match: []sets.Condition{c, {Key: "b", Not: sets.Set{CIDRs: []string{"10.1.0.0/16"}}}}})
			if key == "b" {
				rules[len(rules)-1].Match = rules[len(rules)-1].Match[1:]
			}
		}
	}
	x, err := sets.Compile(rules, nil)
	if err != nil {
		t.Fatal(err)
	}
	dst, counted := make([]int, 0, 100), make([]sets.Entry, 0, 10)
	for _, v := range []string{"v7", "x7y", "az8b", "10.1.2.3", "2001:db8::1", "10.0.0.0/8", "xxyyxy", ""} {
		entries := []sets.Entry{{Key: "a", Value: v}, {Key: "b", Value: v}, {Key: "b", Value: "v7"}}
		found := 0
		n := testing.AllocsPerRun(100, func() {
			got, _ := x.Lookup(dst, entries, 100)
			found = len(got)
			for _, i := range got {
				counted = x.AppendCounted(counted[:0], i, entries)
			}
		})
		if n != 0 || found < 5 {
			t.Errorf("%q: %v allocations, %d rules found", v, n, found)
		}
	}
}
