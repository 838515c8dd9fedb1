package descriptor_test

import (
	"testing"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// A table follows the entries of its key. Of other entries that lead nowhere it skips none.
func TestATableSkipsNoOtherEntries(t *testing.T) {
	d := descriptor.Compile(parse(t, "test.yaml", `
domain: edge
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: {by: plan, values: {gold: 9}, default: 5}}
`)).Domain("edge")
	for text, applies := range map[string]bool{
		"user=a":                       true,
		"user=a,plan=gold":             true,
		"plan=gold,user=a":             true,
		"plan=gold,user=a,plan=silver": true,
		"user=a,plan=gold,other=x":     false,
		"plan=gold,other=x,user=a":     false,
		"other=x,plan=gold,user=a":     false,
		"user=a,other=x":               false,
	} {
		var entries descriptor.Entries
		if err := entries.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := d.Lookup(entries) != nil; got != applies {
			t.Errorf("%s: the rule applies: %v, want %v", text, got, applies)
		}
	}
}
