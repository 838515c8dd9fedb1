package sets

import (
	"fmt"
	"testing"
)

// TestFewAreTried counts the rules that a look-up tries, which is its cost, among thousands
// that share their keys and some of their values.
func TestFewAreTried(t *testing.T) {
	const n = 5000
	plans, methods := []string{"gold", "silver", "bronze"}, []string{"GET", "POST"}
	anyOf := func(key string, values ...string) Condition { return Condition{Key: key, Any: Set{Values: values}} }
	for name, own := range map[string]struct {
		condition func(i int) Condition
		value     func(i int) string
	}{
		"exact":  {func(i int) Condition { return anyOf("own", fmt.Sprint("user-", i)) }, func(i int) string { return fmt.Sprint("user-", i) }},
		"list":   {func(i int) Condition { return anyOf("own", fmt.Sprint("a", i), fmt.Sprint("b", i)) }, func(i int) string { return fmt.Sprint("b", i) }},
		"start":  {func(i int) Condition { return anyOf("own", fmt.Sprintf("/tenant-%d/*", i)) }, func(i int) string { return fmt.Sprintf("/tenant-%d/x", i) }},
		"end":    {func(i int) Condition { return anyOf("own", fmt.Sprintf("/api/*/tenant-%d", i)) }, func(i int) string { return fmt.Sprintf("/api/v1/tenant-%d", i) }},
		"middle": {func(i int) Condition { return anyOf("own", fmt.Sprintf("/*-%06d-*/", i)) }, func(i int) string { return fmt.Sprintf("/x-%06d-y/", i) }},
		"cidr": {func(i int) Condition {
			return Condition{Key: "own", Any: Set{CIDRs: []string{fmt.Sprintf("10.%d.%d.0/24", i>>8, i&0xff), fmt.Sprintf("2001:db8:%x::/48", i)}}}
		}, func(i int) string { return fmt.Sprintf("10.%d.%d.7", i>>8, i&0xff) }},
		"presence of a rare key": {func(i int) Condition { return Condition{Key: fmt.Sprint("key-", i)} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			rules := make([]Rule, n)
			for i := range rules {
				rules[i] = Rule{Name: fmt.Sprint(i), Match: []Condition{
					anyOf("plan", plans[i%3]), {Key: "user", Not: Set{Values: []string{"root"}}}, anyOf("method", methods[i%2], "PUT"), own.condition(i),
				}}
			}
			x, err := Compile(rules, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < n; i += 17 {
				entries := []Entry{{"user", "alice"}, {"plan", plans[i%3]}, {"method", "PUT"}, {own.condition(i).Key, "x"}}
				if own.value != nil {
					entries[3].Value = own.value(i)
				}
				tried := len(x.always)
				for _, e := range entries {
					if f := x.keys[e.Key]; f != nil {
						f.each(e.Value, func(owner) bool {
							tried++
							return true
						})
					}
				}
				if found, _ := x.Lookup(nil, entries, n); len(found) != 1 || found[0] != i || tried != 1 {
					t.Fatalf("%q: found %d after trying %d, want %d alone", entries, found, tried, i)
				}
			}
		})
	}
}
