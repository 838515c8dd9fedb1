package sets

import (
	"bytes"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/match/cidr"
	"github.com/distlimiter/ratelimit/internal/match/glob"
)

// Findings are facts about rules that follow from their conditions alone. They are certain
// but not complete.
type Findings struct {
	Never   []Never   // by rule
	Covered []Covered // by rule, then by the other
	Crowds  []Crowd   // the largest first
	Idle    []Idle    // by rule
}

// Idle is a member of a set of values that makes no difference: another member of the set
// has all its values.
type Idle struct {
	Rule       int
	Key        string
	Member, By string // exact texts, patterns or prefixes of addresses
}

// Never is a rule that applies to no descriptor, because no value of the key is in
// Any, if there is one, and not in Not.
type Never struct {
	Rule int
	Key  string
}

// Covered is a rule that another rule covers. Whenever the rule applies, the other applies
// too and charges the same hits to a counter that serves at least the same descriptors. If
// the other's limit is at least as strict, the rule never refuses a request that the other
// lets pass.
type Covered struct {
	Rule, By int
	// Equal reports whether Rule covers By too: both apply to the same descriptors
	// and have the same counters. By is then the earlier one.
	Equal bool
}

// Crowd is a group of 100 or more rules that a look-up must try one by one on each
// descriptor with a value, because the index can't distinguish them.
type Crowd struct {
	Key   string // empty: on every descriptor
	Value string // an exact text, a pattern or a prefix of addresses; * for any
	Rules int
}

const crowd = 100

// mostCovering bounds the rules that are compared with one rule.
const mostCovering = 64

// Analyze finds rules that never apply, rules that others cover, and crowds. It compares
// each rule with at most 64 rules that apply to one of its descriptors.
func (x *Index) Analyze(task *background.Task) Findings {
	out := Findings{Crowds: x.crowds}
	var found []int
	for i := range x.rules {
		task.Yield()
		r := &x.rules[i]
		out.Idle = r.appendIdle(out.Idle, i)
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

// appendIdle appends the idle members of the rule's conditions.
func (r *rule) appendIdle(dst []Idle, at int) []Idle {
	for i := range r.conditions {
		c := &r.conditions[i]
		for _, s := range [...]*set{c.any, c.not} {
			if s == nil {
				continue
			}
			for m := range s.members {
				if by := s.other(m); by >= 0 {
					dst = append(dst, Idle{at, c.key, s.members[m].String(), s.members[by].String()})
				}
			}
		}
	}
	return dst
}

// other returns another member that has all values of the i-th; of two with the same values
// the earlier one. -1: there is none.
func (s *set) other(i int) int {
	m := &s.members[i]
	found := -1
	try := func(j int) {
		if found < 0 && j != i && s.members[j].covers(m) && (j < i || !m.covers(&s.members[j])) {
			found = j
		}
	}
	if s.many == nil {
		for j := range s.members {
			try(j)
		}
		return found
	}
	s.many.each(m.examples()[0], func(o owner) bool {
		try(o.index())
		return found < 0
	})
	return found
}

// covers reports whether all values of n, of any kind, are known to be m's.
func (m *member) covers(n *member) bool {
	if n.pattern == nil && n.kind == exact {
		return m.has(n.text)
	}
	return m.hasAll(n)
}

// String returns the member as rules have it.
func (m *member) String() string {
	switch {
	case m.pattern != nil:
		return m.with("*")
	case m.kind == exact:
		return m.text
	}
	return m.prefix.String()
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

// with returns the pattern with text in place of each *.
func (m *member) with(text string) string {
	parts := append(append([]string{m.pattern.Prefix}, m.pattern.Middles...), m.pattern.Suffix)
	return strings.Join(parts, text)
}

// covers reports whether rule i is known to apply and count whenever rule j does.
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

// follows reports whether c is known to be met whenever d is. Both have the same key. Only
// d's Not shows that no value is in c's Not, because a key may have other values beside
// the one in d's Any.
func (c *condition) follows(d *condition) bool {
	if c.absent || d.absent {
		return c.absent && d.absent
	}
	return (c.any == nil || d.any != nil && c.any.hasAll(d.any)) &&
		(c.not == nil || d.not != nil && d.not.hasAll(c.not))
}

// hasAll reports whether one member of s has each value of t.
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
		// Only a * of m can match a byte that m does not have, and that * would match
		// any text in its place.
		free, ok := absentByte(m.pattern)
		return ok && m.pattern.Match(n.with(string([]byte{free})))
	case m.pattern == nil && n.pattern == nil && m.kind == addresses:
		return cidr.Covers(m.prefix, n.prefix)
	}
	return false
}

// absentByte returns a byte that is in no part of the pattern.
func absentByte(p *glob.Pattern) (b byte, ok bool) {
	parts := []byte(p.Prefix + strings.Join(p.Middles, "") + p.Suffix)
	for c := range 256 {
		if bytes.IndexByte(parts, byte(c)) < 0 {
			return byte(c), true
		}
	}
	return 0, false
}
