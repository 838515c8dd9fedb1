package descriptor

import (
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/match/cidr"
)

// Example returns entries that lead to the rule; nil if there are none, because others
// always go before it. The fillers stand, one after the other until one will do, for
// what the rule leaves open.
func (d *Domain) Example(rule config.Rule, fillers ...string) Entries {
	if of := rule.Descriptor(); of.Set != nil {
		return d.exampleOfSet(of, fillers)
	}
	for _, filler := range fillers {
		entries := make(Entries, len(rule.Path))
		examples := make([][]string, len(rule.Path))
		tries := 1
		for i, c := range rule.Path {
			entries[i].Key = strings.ReplaceAll(c.Key, "*", filler)
			examples[i] = exampleValues(c, filler)
			tries = max(tries, len(examples[i]))
		}
		for try := range tries {
			for i := range entries {
				entries[i].Value = examples[i][min(try, len(examples[i])-1)]
			}
			if r := d.Lookup(entries); r != nil && r.Config == rule.Descriptor() {
				return entries
			}
		}
	}
	return nil
}

// mostExamples bounds how many values of a list are tried.
const mostExamples = 100

// exampleValues returns values that lead to the descriptor, if no other one goes before
// it. Of a range they are the first address, the last, and the range itself.
func exampleValues(c *config.Descriptor, filler string) (all []string) {
	if !c.HasList() {
		if c.Value == "" {
			return []string{filler}
		}
		return []string{strings.ReplaceAll(c.Value, "*", filler)}
	}
	for _, v := range c.AnyOf.Values {
		all = append(all, strings.ReplaceAll(v, "*", filler))
	}
	for _, text := range c.AnyOf.CIDRs {
		if p, err := cidr.Parse(text); err == nil {
			all = append(all, p.Addr().String(), cidr.Last(p).String(), p.String())
		}
	}
	return all[:min(len(all), mostExamples)]
}
