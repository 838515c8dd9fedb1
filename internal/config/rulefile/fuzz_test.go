package rulefile_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// FuzzParse feeds any text to Parse. It must return rules, or problems with positions.
// Rules written back, as YAML and as JSON, must be read as the same rules, even after they
// have been adjusted.
func FuzzParse(f *testing.F) {
	rulefile.AddSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, err := rulefile.Parse([]rulefile.Source{{Name: "a.yaml", Data: data}}, rulefile.Options{})
		if err != nil {
			checkProblems(t, err)
			return
		}
		checkRoundTrip(t, rules)
		checkAdjusted(t, rules)
	})
}

// checkAdjusted applies the rules' own adjustments and a default. The result must be rules
// or problems. Written back, rules must be as before the adjustments.
func checkAdjusted(t *testing.T, rules *config.Rules) {
	t.Helper()
	overlay := config.NewOverlay(config.Default{Algorithm: algo.TokenBucket, Burst: config.Burst{Percent: 20 * config.OnePercent}, By: "a.yaml"})
	adjusted, err := overlay.Apply(rules)
	if err != nil {
		checkProblems(t, err)
		return
	}
	_ = adjusted.String()
	for i, domain := range adjusted.Domains {
		got, err := json.Marshal(rulefile.Domain{Domain: domain})
		want, err2 := json.Marshal(rulefile.Domain{Domain: rules.Domains[i]})
		if err != nil || err2 != nil || string(got) != string(want) {
			t.Fatalf("adjusted rules are written as\n%s\nwant\n%s (%v, %v)", got, want, err, err2)
		}
	}
	if again, err := overlay.Apply(rules); err != nil || !slices.Equal(again.Domains, adjusted.Domains) {
		t.Errorf("the same rules are adjusted anew: %v", err)
	}
}

func checkProblems(t *testing.T, err error) {
	t.Helper()
	var bad *config.Invalid
	if !errors.As(err, &bad) || len(bad.Problems) == 0 {
		t.Fatalf("not an *Invalid with problems: %v", err)
	}
	for _, p := range bad.Problems {
		if p.File != "a.yaml" || p.Line < 1 || p.Column < 1 || p.What == "" || p.Remedy == "" {
			t.Errorf("a problem without place, cause or remedy: %+v", p)
		}
	}
}

func checkRoundTrip(t *testing.T, rules *config.Rules) {
	t.Helper()
	_ = rules.String()
	for _, domain := range rules.Domains {
		checkDomainRoundTrip(t, rules, domain)
	}
}

func checkDomainRoundTrip(t *testing.T, rules *config.Rules, domain *config.Domain) {
	t.Helper()
	for name, marshal := range map[string]func(any) ([]byte, error){"YAML": yaml.Marshal, "JSON": json.Marshal} {
		text, err := marshal(rulefile.Domain{Domain: domain})
		if err != nil {
			t.Fatalf("as %s: %v", name, err)
		}
		again, err := rulefile.Parse([]rulefile.Source{{Name: "again", Data: text}}, rulefile.Options{})
		if err != nil {
			t.Fatalf("as %s:\n%s\n%v", name, text, err)
		}
		if got, want := withoutPlaces(again.Domains[0]), withoutPlaces(domain); !reflect.DeepEqual(got, want) {
			t.Fatalf("as %s:\n%s\nread back as\n%s\nwant\n%s", name, text, again, rules)
		}
	}
}

// withoutPlaces returns a copy of the domain that has no positions.
func withoutPlaces(d *config.Domain) *config.Domain {
	c := *d
	c.Pos = config.Pos{}
	c.Descriptors = levelWithoutPlaces(d.Descriptors)
	c.Limits = levelWithoutPlaces(d.Limits)
	return &c
}

func levelWithoutPlaces(level []*config.Descriptor) (copies []*config.Descriptor) {
	for _, d := range level {
		c := *d
		c.Pos = config.Pos{}
		if d.Set != nil { // conditions have no order
			set := *d.Set
			set.Match = slices.SortedFunc(slices.Values(set.Match), func(a, b sets.Condition) int { return strings.Compare(a.Key, b.Key) })
			c.Set = &set
		}
		c.Limits = nil
		for _, l := range d.Limits {
			limit := *l
			limit.Pos = config.Pos{}
			if l.Table != nil {
				table := &config.Table{By: l.Table.By}
				for _, r := range l.Table.Rows {
					row := *r.Limit
					row.Pos = config.Pos{}
					table.Rows = append(table.Rows, config.Row{Value: r.Value, Limit: &row})
				}
				limit.Table = table
			}
			c.Limits = append(c.Limits, &limit)
		}
		c.Descriptors = levelWithoutPlaces(d.Descriptors)
		copies = append(copies, &c)
	}
	return copies
}
