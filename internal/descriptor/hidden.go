package descriptor

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor/cidr"
)

// Hidden returns a warning for each descriptor that can never apply because earlier ones
// of its level, with a *, match everything that it matches. It also returns a warning for
// each pattern or range of a list that makes no difference.
func Hidden(rules *config.Rules) (warnings []config.Problem) {
	task := background.New()
	defer task.Close()
	for _, d := range rules.Domains {
		warnings = hiddenIn(d.Descriptors, warnings, task)
	}
	return warnings
}

// hiddenIn adds the warnings of a level and of those below it.
func hiddenIn(level []*config.Descriptor, warnings []config.Problem, task *background.Task) []config.Problem {
	var alone, open []*config.Descriptor // patterns, each without the descriptors below it
	of := map[*config.Descriptor]*config.Descriptor{}
	ranged := false
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
			warnings = append(warnings, uselessIn(c, p.Value, by.Value))
			lost[c]++
		default:
			lost[c]++
			if lost[c] == len(c.AnyOf.Values) && len(c.AnyOf.CIDRs) == 0 {
				warnings = append(warnings, hiddenBy(c, of[by], "write it before that one"))
				break
			}
			warnings = append(warnings, config.Problem{Pos: c.Pos,
				What:   fmt.Sprintf("the value %s of %s never applies: %s matches all that it matches, and goes before it", config.Quote(p.Value), *newPlace(c), *newPlace(of[by])),
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
		What:   fmt.Sprintf("%s can never apply: %s matches all that it matches, and goes before it", entryText(Entry{Key: c.Key, Value: c.ValueText()}), *newPlace(by)),
		Remedy: remedy,
	}
}

// uselessIn warns of a value of a list if another value matches everything that it
// matches.
func uselessIn(c *config.Descriptor, value, by string) config.Problem {
	return config.Problem{Pos: c.Pos,
		What:   fmt.Sprintf("the value %s of %s makes no difference: %s, in the same list, matches all that it matches", config.Quote(value), *newPlace(c), config.Quote(by)),
		Remedy: "leave it out",
	}
}

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
				warnings = append(warnings, uselessIn(c, k.prefixes[i].String(), k.prefixes[up].String()))
			}
			task.Step()
		}
	}
	return warnings
}
