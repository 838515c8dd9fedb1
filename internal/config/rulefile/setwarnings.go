package rulefile

import (
	"fmt"
	"slices"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// SetWarnings warns of rules on sets of entries, seen together: those that never apply,
// values that make no difference, those that never refuse because another one that is as
// strict always applies as well, and those that have to be tried one by one.
func SetWarnings(r *config.Rules) (warnings []config.Problem) {
	task := background.New()
	defer task.Close()
	for _, domain := range r.Domains {
		all := make([]sets.Rule, len(domain.Limits))
		for i, d := range domain.Limits {
			all[i] = *d.Set
		}
		index, err := sets.Compile(all, task)
		if err != nil {
			continue // rules are valid
		}
		replaced := map[string]bool{}
		domain.Walk(func(d *config.Descriptor) {
			for _, l := range d.Limits {
				for _, name := range l.Replaces {
					replaced[name] = true
				}
			}
		})
		found := index.Analyze(task)
		warn := func(rule int, what, remedy string) {
			d := domain.Limits[rule]
			warnings = append(warnings, config.Problem{Pos: d.Pos, What: fmt.Sprintf("the limit %q %s", yamlfile.Abridge(d.Set.Name), what), Remedy: remedy})
		}
		for _, n := range found.Never {
			warn(n.Rule, fmt.Sprintf("never applies: no value of %s meets its condition", yamlfile.Abridge(n.Key)), "mend the condition, or remove the limit")
		}
		warned := make([]bool, len(domain.Limits)) // one rule that hides it is enough
		for _, c := range found.Covered {
			if by := domain.Limits[c.By]; !warned[c.Rule] && hides(by, domain.Limits[c.Rule], replaced) {
				warned[c.Rule] = true
				warn(c.Rule, fmt.Sprintf("never refuses: whenever it applies, %q (%s) does, which is as strict", yamlfile.Abridge(by.Set.Name), by.Pos), "remove it, or make it stricter")
			}
		}
		for _, i := range found.Idle {
			warn(i.Rule, fmt.Sprintf("gains nothing by the value %q of %s: %q, beside it, matches all that it matches", yamlfile.Abridge(i.Member), yamlfile.Abridge(i.Key), yamlfile.Abridge(i.By)), "leave it out")
		}
		for _, c := range found.Crowds {
			on := "every descriptor"
			if c.Key != "" {
				on = fmt.Sprintf("every descriptor with %s=%s", yamlfile.Abridge(c.Key), yamlfile.Abridge(c.Value))
			}
			warnings = append(warnings, config.Problem{Pos: domain.Pos, What: fmt.Sprintf("%d limits are tried one by one on %s, which takes time", c.Rules, on),
				Remedy: "give them values by which they can be told apart"})
		}
	}
	return warnings
}

// hides reports whether a rule refuses whatever another would refuse to the same
// descriptors. A rule without conditions is only held against the first of a request.
func hides(by, rule *config.Descriptor, replaced map[string]bool) bool {
	if by.Hold != nil || rule.Hold != nil || by.ShadowMode || by.QuotaMode || rule.ShadowMode || rule.QuotaMode || len(by.Set.Match) == 0 && len(rule.Set.Match) > 0 {
		return false
	}
	return !slices.ContainsFunc(rule.Limits, func(l *config.Limit) bool {
		return l.ShadowMode || len(l.Replaces) > 0 || l.Unlimited || !slices.ContainsFunc(by.Limits, func(m *config.Limit) bool {
			return !m.ShadowMode && !m.Unlimited && !replaced[m.Name] && asStrict(m, l)
		})
	})
}

// asStrict reports whether m, which counts at least what l counts, refuses whatever l
// refuses. It knows limits that differ in nothing but their numbers.
// Of limits with tables each row of m must be as strict as each of l.
func asStrict(m, l *config.Limit) bool {
	for a := range m.All() {
		for b := range l.All() {
			if !rowAsStrict(a, b) {
				return false
			}
		}
	}
	return true
}

func rowAsStrict(m, l *config.Limit) bool {
	a, b := m.Algo.Params(), l.Algo.Params()
	fits := a.Limit <= b.Limit && m.Algo.Capacity() <= l.Algo.Capacity()
	a.Limit, a.Burst, b.Limit, b.Burst = 0, 0, 0, 0
	return fits && a == b
}
