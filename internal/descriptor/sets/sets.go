// Package sets owns rules on sets of entries: which of them apply to a request
// descriptor, whatever the order of its entries. How the rules are written and what
// their limits are is left to config, and how counters are named to descriptor.
//
// A rule applies if all its conditions are met. A condition is about the values
// that a descriptor has for one key. Most descriptors have one; two generic_key
// actions give two. All rules that apply count: none comes before another.
//
// # Cost
//
// An [Index] files each rule under one of its conditions, the one that fewest rules
// share, and there under each of the condition's values: an exact text, the start,
// the end or a middle part of a pattern, or a prefix of addresses. For each entry of
// a descriptor, a look-up takes
//
//   - one probe for the exact value,
//   - a binary search over the lengths that starts have, and one over those of ends:
//     two probes for up to 3 lengths, five for up to 31,
//   - at most 6 probes for an IPv4 address, or 8 for IPv6,
//   - one pass over the value for all middle parts.
//
// It then tries the rules that are filed under what it has found. So the number of
// rules does not matter, but the number of those that are alike in all by which
// they could be told apart:
//
//   - 1,000 rules with plan: gold, and beyond it only not, absent and keys that all
//     of them have, are tried on each descriptor with plan=gold.
//   - Rules with nothing but not or present are tried on each descriptor with their
//     key; rules with nothing but absent, or without conditions, on every descriptor.
//   - Of patterns whose starts are starts of each other (a*x, aa*y, aaa*z), those are
//     tried whose start the value has.
package sets

import "slices"

// Entry is one key and value of a request descriptor.
type Entry struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Rule is a rule as written.
type Rule struct {
	Name    string      // unique
	Match   []Condition // all must be met; each has a key of its own
	CountBy []string    // keys whose values tell counters apart
}

// Condition is about the values that a descriptor has for a key. Without any of the
// other fields the key must be present.
type Condition struct {
	Key string
	// Any is met if any of the values is in it.
	Any Set
	// Not is met if the key is present and none of the values is in it.
	Not Set
	// Absent is met if there is no value. It stands alone.
	Absent bool
}

// Set is a set of values. A value is in it if any of its members says so. A list
// that is not nil must not be empty.
type Set struct {
	// Values are exact texts, or patterns in which each * stands for zero or more
	// characters.
	Values []string
	// CIDRs are prefixes of addresses, such as 10.0.0.0/8. A value that is such a
	// prefix itself, as Envoy's masked_remote_address, must be covered as a whole.
	CIDRs []string
}

func (s *Set) given() bool { return s.Values != nil || s.CIDRs != nil }

// Index finds rules. It is immutable and safe for concurrent use.
type Index struct {
	rules   []rule
	countBy [][]string         // by rule, sorted
	keys    map[string]*finder // whose owners are rules
	always  []owner            // filed under no key
	crowds  []Crowd            // the largest first
}

// rule is a compiled rule.
type rule struct {
	conditions []condition // the one that it is filed under first
}

// condition is a compiled condition.
type condition struct {
	key      string
	any, not *set // nil: none
	absent   bool
}

// Lookup appends the rules, by their index as given to [Compile] and in that order,
// that apply to a descriptor with these entries. If there are more than most, it
// returns any that many of them and more: the caller decides what that means.
// most should be small, as each rule found is compared with the others. Lookup keeps
// none of its arguments. It does not allocate if dst has room, but for a value that
// looks like an address and is none where a rule has prefixes of addresses.
func (x *Index) Lookup(dst []int, entries []Entry, most int) (found []int, more bool) {
	s := search{index: x, entries: entries, found: dst, start: len(dst), most: most}
	ok := s.tryAll(x.always)
	for i := 0; ok && i < len(entries); i++ {
		if f := x.keys[entries[i].Key]; f != nil {
			ok = f.each(entries[i].Value, s.try)
		}
	}
	return s.found, !ok
}

// AppendCounted appends the entries whose values tell apart the counters of a rule
// that applies to these entries: those of each key of CountBy, key by key in the
// order of their bytes, so that the order in which a rule names them does not
// matter; those of one key in their order.
func (x *Index) AppendCounted(dst []Entry, rule int, entries []Entry) []Entry {
	for _, key := range x.countBy[rule] {
		for i := range entries {
			if entries[i].Key == key {
				dst = append(dst, entries[i])
			}
		}
	}
	return dst
}

// Unmet returns the keys of the rule's conditions that a descriptor with these
// entries does not meet, sorted; none if the rule applies.
func (x *Index) Unmet(rule int, entries []Entry) (keys []string) {
	for i := range x.rules[rule].conditions {
		if c := &x.rules[rule].conditions[i]; !c.isMet(entries, false) {
			keys = append(keys, c.key)
		}
	}
	slices.Sort(keys)
	return keys
}

// search is one look-up.
type search struct {
	index   *Index
	entries []Entry
	found   []int // from start on, in order
	start   int
	most    int
}

// try adds the rule if it applies. It reports whether there was room.
func (s *search) try(o owner) bool {
	i, ok := slices.BinarySearch(s.found[s.start:], o.index())
	if ok {
		return true // by another of its values
	}
	if o&applies == 0 && !s.index.rules[o.index()].applies(s.entries, o&isMet != 0) {
		return true
	}
	if len(s.found)-s.start == s.most {
		return false
	}
	s.found = slices.Insert(s.found, s.start+i, o.index())
	return true
}

func (s *search) tryAll(owners []owner) bool {
	for _, o := range owners {
		if !s.try(o) {
			return false
		}
	}
	return true
}

// applies reports whether all conditions are met. anyIsMet says that some value is
// known to be in the first condition's Any.
func (r *rule) applies(entries []Entry, anyIsMet bool) bool {
	for i := range r.conditions {
		if !r.conditions[i].isMet(entries, anyIsMet && i == 0) {
			return false
		}
	}
	return true
}

func (c *condition) isMet(entries []Entry, anyIsMet bool) bool {
	present := false
	anyIsMet = anyIsMet || c.any == nil
	for i := range entries {
		e := &entries[i]
		if e.Key != c.key {
			continue
		}
		if c.absent || c.not != nil && c.not.has(e.Value) {
			return false
		}
		present = true
		anyIsMet = anyIsMet || c.any.has(e.Value)
	}
	return c.absent || present && anyIsMet
}
