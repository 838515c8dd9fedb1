package descriptor

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/match/cidr"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// Hidden returns a warning for each descriptor that can never apply because earlier ones
// of its level, with a *, match everything that it matches. It also returns a warning for
// each pattern or range of a list that makes no difference.
func Hidden(rules *config.Rules) (warnings []config.Problem) {
	return new(HiddenFinder).Find(rules)
}

// HiddenFinder finds the same as [Hidden] in rules that change. It looks only at domains
// that it has not seen in the last rules. Only one goroutine may use it at a time.
type HiddenFinder struct {
	found map[*config.Domain][]config.Problem
}

// Find returns the warnings of all domains of the rules.
func (f *HiddenFinder) Find(rules *config.Rules) (warnings []config.Problem) {
	task := background.New()
	defer task.Close()
	found := make(map[*config.Domain][]config.Problem, len(rules.Domains))
	for _, d := range rules.Domains {
		of, known := f.found[d]
		if !known {
			of = hiddenIn(d.Descriptors, nil, task)
		}
		found[d] = of
		warnings = append(warnings, of...)
	}
	f.found = found
	return warnings
}

// hiddenIn adds the warnings of a level and of those below it.
func hiddenIn(level []*config.Descriptor, warnings []config.Problem, task *background.Task) []config.Problem {
	var alone, open []*config.Descriptor // patterns, each without the descriptors below it
	of := map[*config.Descriptor]*config.Descriptor{}
	ranged, mixed := false, false
	for _, c := range level {
		warnings = hiddenIn(c.Descriptors, warnings, task)
		task.Step()
		values := []string{c.Value}
		if c.HasList() {
			values = c.AnyOf.Values
		}
		for _, v := range values {
			if isPattern(c.Key + v) {
				p := &config.Descriptor{Key: c.Key, Value: v}
				alone, of[p] = append(alone, p), c
			}
		}
		if c.Value == "" && !c.HasList() && !isPattern(c.Key) {
			open = append(open, c)
		}
		ranged = ranged || len(c.AnyOf.CIDRs) > 0
		mixed = mixed || c.HasList() && hasExact(c) && (len(c.AnyOf.CIDRs) > 0 || slices.ContainsFunc(c.AnyOf.Values, isPattern))
	}
	if mixed {
		warnings = exactInOwn(level, warnings, task)
	}
	if ranged {
		warnings = rangesInOwn(level, warnings, task)
	}
	if len(alone) == 0 {
		return warnings
	}
	d := Compile(&config.Rules{Domains: []*config.Domain{{Descriptors: alone}}}).Domain("")
	// Only a * matches a *. So a pattern that matches the text of another one matches
	// everything that the other matches.
	first := func(key, value string) *config.Descriptor {
		at := d.landing(d.firstWildcard(d.top, d.splits(d.top, key, value), key, value))
		if at.slot == none {
			return nil
		}
		return d.nodes[at.slot].config
	}
	lost := map[*config.Descriptor]int{} // values of a list that earlier patterns match
	for _, p := range alone {
		c := of[p]
		task.Step()
		by := first(p.Key, p.Value)
		switch {
		case by == nil || by == p: // by another key that is joined, or none
		case !c.HasList():
			warnings = append(warnings, hiddenBy(c, of[by], "write it before that one"))
		case of[by] == c:
			warnings = append(warnings, redundantValue(c, p.Value, by.Value))
			lost[c]++
		default:
			lost[c]++
			if lost[c] == len(c.AnyOf.Values) && len(c.AnyOf.CIDRs) == 0 {
				warnings = append(warnings, hiddenBy(c, of[by], "write it before that one"))
				break
			}
			warnings = append(warnings, config.Problem{Pos: c.Pos,
				What:   fmt.Sprintf("the value %s of %s never applies: %s matches all that it matches, and goes before it", config.Quote(p.Value), *newNodeInfo(c), *newNodeInfo(of[by])),
				Remedy: "write the list before that one, or leave the value out"})
		}
	}
	for _, c := range open { // they match any value that no pattern matches
		if by := first(c.Key, "*"); by != nil {
			warnings = append(warnings, hiddenBy(c, of[by], "leave one of them out"))
		}
		task.Step()
	}
	return warnings
}

func hiddenBy(c, by *config.Descriptor, remedy string) config.Problem {
	return config.Problem{
		Pos:    c.Pos,
		What:   fmt.Sprintf("%s can never apply: %s matches all that it matches, and goes before it", entryText(Entry{Key: c.Key, Value: c.ValueText()}), *newNodeInfo(by)),
		Remedy: remedy,
	}
}

// redundantValue warns of a value of a list if another value matches everything that it
// matches.
func redundantValue(c *config.Descriptor, value, by string) config.Problem {
	return config.Problem{Pos: c.Pos,
		What:   fmt.Sprintf("the value %s of %s makes no difference: %s, in the same list, matches all that it matches", config.Quote(value), *newNodeInfo(c), config.Quote(by)),
		Remedy: "leave it out",
	}
}

// exactInOwn adds a warning for each exact value of a list that leads to the list without
// it too, by a pattern or a range of the same list.
func exactInOwn(level []*config.Descriptor, warnings []config.Problem, task *background.Task) []config.Problem {
	bare := make([]*config.Descriptor, len(level)) // without exact values
	of := make(map[*config.Descriptor]*config.Descriptor, len(level))
	for i, c := range level {
		task.Step()
		b := &config.Descriptor{Key: c.Key, Value: c.Value}
		if c.HasList() {
			b.AnyOf.CIDRs = c.AnyOf.CIDRs
			b.AnyOf.Values = slices.DeleteFunc(slices.Clone(c.AnyOf.Values), func(v string) bool { return !isPattern(v) })
		}
		if c.Value != "" && !isPattern(c.Value) || c.HasList() && len(b.AnyOf.Values)+len(b.AnyOf.CIDRs) == 0 {
			b.Value, b.AnyOf = exactMark+c.ValueText(), sets.Set{} // no value leads there
		}
		bare[i], of[b] = b, c
	}
	d := Compile(&config.Rules{Domains: []*config.Domain{{Descriptors: bare}}}).Domain("")
	for _, c := range level {
		if !c.HasList() || len(c.AnyOf.CIDRs) == 0 && !slices.ContainsFunc(c.AnyOf.Values, isPattern) {
			continue
		}
		for _, v := range c.AnyOf.Values {
			task.Step()
			if isPattern(v) {
				continue
			}
			if at := d.step(d.top, c.Key, v); at.slot != none && of[d.nodes[at.slot].config] == c {
				warnings = append(warnings, config.Problem{Pos: c.Pos,
					What:   fmt.Sprintf("the value %s of %s makes no difference: a pattern or a range of the same list matches it", config.Quote(v), *newNodeInfo(c)),
					Remedy: "leave it out"})
			}
		}
	}
	return warnings
}

// exactMark is the start of values that stand for exact ones, and that no rule has.
const exactMark = "\x00exact:"

// rangesInOwn adds a warning for each range of a list that lies in another range of the
// list, with no range of another descriptor between the two.
func rangesInOwn(level []*config.Descriptor, warnings []config.Problem, task *background.Task) []config.Problem {
	type ranged struct {
		prefixes []netip.Prefix
		of       []*config.Descriptor
		seen     map[netip.Prefix]bool
	}
	keys := map[string]*ranged{}
	for _, c := range level {
		for _, text := range c.AnyOf.CIDRs {
			task.Step()
			p, err := cidr.Parse(text)
			if err != nil {
				continue
			}
			k := keys[c.Key]
			if k == nil {
				k = &ranged{seen: map[netip.Prefix]bool{}}
				keys[c.Key] = k
			}
			if !k.seen[p] {
				k.seen[p] = true
				k.prefixes, k.of = append(k.prefixes, p), append(k.of, c)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		k := keys[key]
		table := cidr.New(k.prefixes, task)
		for i, c := range k.of {
			if up := table.Parent(i); up >= 0 && k.of[up] == c {
				warnings = append(warnings, redundantValue(c, k.prefixes[i].String(), k.prefixes[up].String()))
			}
			task.Step()
		}
	}
	return warnings
}
