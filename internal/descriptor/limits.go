package descriptor

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// setRule is what a rule on sets of entries has beyond others.
type setRule struct {
	index *sets.Index
	at    int // in the index
}

// HasSets reports whether there are rules on sets of entries.
func (d *Domain) HasSets() bool { return d.limits != nil }

// LookupSets appends the rules on sets of entries that apply to a descriptor with
// these entries, in the order in which they are written. first reports that it is the
// first descriptor of its request, which alone is held against rules without
// conditions: they limit requests. The error is that of more than config.MaxSets.
// found is reused memory, which is returned.
func (d *Domain) LookupSets(dst []*Rule, found []int, entries []Entry, first bool) ([]*Rule, []int, error) {
	found, more := d.limits.Lookup(found[:0], entries, config.MaxSets)
	if more {
		return dst, found, fmt.Errorf("more than %d of the limits of domain %s apply, the most that a descriptor may meet: %s and %s are two of them; give them conditions that fewer descriptors meet",
			config.MaxSets, config.Quote(d.Name()), config.Quote(d.limitRules[found[0]].Path), config.Quote(d.limitRules[found[1]].Path))
	}
	for _, i := range found {
		r := &d.limitRules[i]
		if (first || len(r.Config.Set.Match) > 0 || r.Config.Hold != nil) && (d.settling == nil || d.meets(r, entries)) {
			dst = append(dst, r)
		}
	}
	return dst, found, nil
}

// exampleOfSet is Example for a rule on sets of entries. Where a rule holds, the entry with
// the ID of the request is empty, because a request without an ID holds each time that it asks.
func (d *Domain) exampleOfSet(of *config.Descriptor, fillers []string) Entries {
	rule, hold := of.Set, of.Hold
	for _, filler := range fillers {
		var entries Entries
		for _, c := range rule.Match {
			value := filler
			switch {
			case c.Absent:
				continue
			case hold != nil && c.Key == hold.By:
				continue
			case len(c.Any.Values) > 0:
				value = strings.ReplaceAll(c.Any.Values[0], "*", filler)
			case len(c.Any.CIDRs) > 0:
				value, _, _ = strings.Cut(c.Any.CIDRs[0], "/")
			}
			entries = append(entries, Entry{Key: c.Key, Value: value})
		}
		if hold != nil {
			entries = append(entries, Entry{Key: hold.By})
		}
		if entries == nil {
			entries = Entries{{Key: "any", Value: filler}}
		}
		found, _ := d.limits.Lookup(nil, entries, math.MaxInt)
		if slices.Contains(found, d.byName[rule.Name]) {
			return entries
		}
	}
	return nil
}

// addLimits adds the rules on sets of entries to the domain. Rules that are not valid,
// which is for config to find, are left out.
func (b *builder) addLimits(limits []*config.Descriptor, rules []*Rule) []*Rule {
	d := b.domain
	all := make([]sets.Rule, len(limits))
	for i, c := range limits {
		all[i] = *c.Set
	}
	index, err := sets.Compile(all, b.task)
	if len(limits) == 0 || err != nil {
		return rules
	}
	d.limits, d.byName, d.limitRules = index, make(map[string]int, len(limits)), make([]Rule, len(limits))
	for i, c := range limits {
		d.byName[c.Set.Name] = i
		d.limitRules[i] = Rule{
			Index: len(rules), Domain: d.Name(), Path: c.NamePart(), Config: c, Detailed: c.DetailedMetric && len(c.Set.CountBy) > 0,
			keys: b.keyForm(c.Limits), set: &setRule{index, i}, ends: [2]uint32{uint32(len("limits")), uint32(len(c.NamePart()))},
		}
		rules = append(rules, &d.limitRules[i])
		if c.Hold != nil {
			if d.settling == nil {
				d.settling = map[Entry]bool{}
			}
			d.settling[c.Hold.SettledBy] = true
		}
		b.task.Step()
	}
	return rules
}

// appendSetKey is AppendKey for a rule on sets of entries.
func (r *Rule) appendSetKey(dst []byte, entries []Entry, tag string) []byte {
	dst = append(append(dst, r.keys.prefix...), '@')
	dst = append(appendSized(dst, r.Config.Set.Name), '|')
	var room [8]Entry
	counted := r.set.index.AppendCounted(room[:0], r.set.at, entries)
	for i := range counted {
		dst = appendEntry(dst, &counted[i])
	}
	return append(dst, tag...)
}

// appendSetMetricKey is AppendMetricKey for a rule on sets of entries.
func (r *Rule) appendSetMetricKey(dst []byte, entries []Entry) []byte {
	dst = append(dst, r.Path...)
	var room [8]Entry
	for _, e := range r.set.index.AppendCounted(room[:0], r.set.at, entries) {
		dst = append(append(append(append(dst, '.'), e.Key...), '_'), e.Value...)
	}
	return dst
}
