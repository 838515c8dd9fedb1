package rulefile

import (
	"fmt"
	"testing"
)

// TestUselessComparesRows: a limit hides another one only if each of its rows is as strict
// as each of the other's.
func TestUselessComparesRows(t *testing.T) {
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
		if got := Useless(rules); len(got) != c.hidden {
			t.Errorf("%s before %s: %v", c.by, c.of, got)
		}
	}
}
