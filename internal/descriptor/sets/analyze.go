package sets

import (
	"bytes"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/descriptor/cidr"
	"github.com/distlimiter/ratelimit/internal/descriptor/glob"
)

// Findings are what can be told about rules from their conditions alone. All of it
// is certain; not all that is so is found.
type Findings struct {
	Never   []Never   // by rule
	Covered []Covered // by rule, then by the other
	Crowds  []Crowd   // the largest first
}

// Never is a rule that applies to no descriptor, because no value of the key is in
// Any, if there is one, and not in Not.
type Never struct {
	Rule int
	Key  string
}

// Covered is a rule such that whenever it applies another one does, which counts
// every hit that it counts in a counter that is the same or serves more descriptors.
// If the other's limit is as strict, the rule never refuses what the other lets pass.
type Covered struct {
	Rule, By int
	// Equal reports that By is covered by Rule too: they apply to the same
	// descriptors and tell the same counters apart. By is then the earlier one.
	Equal bool
}

// Crowd is a number of rules, 100 or more, that have to be tried one by one on each
// descriptor with a value, because nothing by which rules are found tells them apart.
type Crowd struct {
	Key   string // empty: on every descriptor
	Value string // an exact text, a pattern or a prefix of addresses; * for any
	Rules int
}

const crowd = 100

// mostCovering bounds how many rules are compared with one.
const mostCovering = 64

// Analyze looks for rules that never apply, for those that others cover, and for
// crowds. It compares each rule with the rules, 64 at most, that apply to one of its
// descriptors.
func (x *Index) Analyze(task *background.Task) Findings {
	out := Findings{Crowds: x.crowds}
	var found []int
	for i := range x.rules {
		task.Yield()
		r := &x.rules[i]
		if key, never := r.never(); never {
			out.Never = append(out.Never, Never{i, key})
			continue
		}
		entries, ok := r.example()
		if !ok {
			continue
		}
		found, _ = x.Lookup(found[:0], entries, mostCovering)
		for _, by := range found {
			if by == i || !x.covers(by, i) {
				continue
			}
			equal := x.covers(i, by)
			if equal && by > i {
				continue // reported with the other
			}
			out.Covered = append(out.Covered, Covered{i, by, equal})
		}
	}
	return out
}

// never returns the key of a condition that is never met, if there is one.
func (r *rule) never() (key string, never bool) {
	for i := range r.conditions {
		c := &r.conditions[i]
		if c.not != nil && (c.not.all() || c.any != nil && c.not.hasAll(c.any)) {
			return c.key, true
		}
	}
	return "", false
}

// example returns a descriptor to which the rule applies, if one is found.
func (r *rule) example() (entries []Entry, ok bool) {
	for i := range r.conditions {
		c := &r.conditions[i]
		if c.absent {
			continue
		}
		value, ok := c.example()
		if !ok {
			return nil, false
		}
		entries = append(entries, Entry{c.key, value})
	}
	return entries, true
}

// odd is a text that few patterns match.
const odd = "\x01odd\x02"

func (c *condition) example() (value string, ok bool) {
	members := c.anyMembers()
	for i := range members {
		for _, v := range members[i].examples() {
			if c.not == nil || !c.not.has(v) {
				return v, true
			}
		}
	}
	return "", false
}

// examples returns some values of the member.
func (m *member) examples() []string {
	switch {
	case m.pattern != nil:
		return []string{m.with(odd), m.with("")}
	case m.kind == exact:
		return []string{m.text}
	case m.kind == every:
		return []string{odd, ""}
	}
	return []string{m.prefix.String(), m.prefix.Addr().String()}
}

// with returns the text that the pattern is if text stands for each *.
func (m *member) with(text string) string {
	parts := append(append([]string{m.pattern.Prefix}, m.pattern.Middles...), m.pattern.Suffix)
	return strings.Join(parts, text)
}

// covers reports whether rule i applies and counts whenever j does, as far as it
// sees.
func (x *Index) covers(i, j int) bool {
	r, s := &x.rules[i], &x.rules[j]
	for i := range r.conditions {
		c := &r.conditions[i]
		j := slices.IndexFunc(s.conditions, func(d condition) bool { return d.key == c.key })
		if j < 0 || !c.follows(&s.conditions[j]) {
			return false
		}
	}
	return !slices.ContainsFunc(x.countBy[i], func(key string) bool { return !slices.Contains(x.countBy[j], key) })
}

// follows reports whether c is met whenever d is, which has the same key. That no
// value is in c's Not follows from d's Not alone: a key may have other values beside
// the one that is in d's Any.
func (c *condition) follows(d *condition) bool {
	if c.absent || d.absent {
		return c.absent && d.absent
	}
	return (c.any == nil || d.any != nil && c.any.hasAll(d.any)) &&
		(c.not == nil || d.not != nil && d.not.hasAll(c.not))
}

// hasAll reports whether each value of t is in s because of one member of s.
func (s *set) hasAll(t *set) bool {
	if s == t {
		return true
	}
	for i := range t.members {
		if !s.hasMember(&t.members[i]) {
			return false
		}
	}
	return true
}

func (s *set) hasMember(m *member) bool {
	if m.pattern == nil && m.kind == exact {
		return s.has(m.text)
	}
	return slices.ContainsFunc(s.members, func(n member) bool { return n.hasAll(m) })
}

// hasAll reports whether all values of n, which is a pattern or a prefix of
// addresses, are m's.
func (m *member) hasAll(n *member) bool {
	switch {
	case m.all():
		return true
	case m.pattern != nil && n.pattern != nil:
		// A byte that m doesn't have can only be matched by a * of m, and that would
		// match any text in its place.
		free, ok := absentByte(m.pattern)
		return ok && m.pattern.Match(n.with(string([]byte{free})))
	case m.pattern == nil && n.pattern == nil && m.kind == addresses:
		return cidr.Covers(m.prefix, n.prefix)
	}
	return false
}

// absentByte returns a byte that no part of the pattern has.
func absentByte(p *glob.Pattern) (b byte, ok bool) {
	parts := []byte(p.Prefix + strings.Join(p.Middles, "") + p.Suffix)
	for c := range 256 {
		if bytes.IndexByte(parts, byte(c)) < 0 {
			return byte(c), true
		}
	}
	return 0, false
}
