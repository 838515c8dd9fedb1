// Package sets owns rules on sets of entries. It finds the rules that apply to a request
// descriptor, in any order of its entries. It leaves the grammar and limits of the rules to
// config, and the names of counters to descriptor.
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
// It then tries the rules that are filed under the values that it has found. So the total
// number of rules does not matter. The number of rules that the index can't distinguish
// does:
//
//   - 1,000 rules with plan: gold, and otherwise only not, absent and keys that all of
//     them share, are tried on each descriptor with plan=gold.
//   - Rules with nothing but not or present are tried on each descriptor with their
//     key; rules with nothing but absent, or without conditions, on every descriptor.
//   - If the starts of patterns are starts of each other (a*x, aa*y, aaa*z), all patterns
//     whose start the value has are tried.
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
	CountBy []string    // keys whose values are part of the counter's key
}

// Condition is about the values that a descriptor has for a key. A condition with only a
// key asks for the key to be present.
type Condition struct {
	Key string
	// Any is met if any of the values is in it.
	Any Set
	// Not is met if the key is present and none of the values is in it.
	Not Set
	// Absent is met if there is no value. It stands alone.
	Absent bool
}

// Set is a set of values. A value is in the set if it matches any member. A list that is
// not nil must not be empty.
type Set struct {
	// Values are exact texts, or patterns in which each * stands for zero or more
	// characters.
	Values []string
	// CIDRs are prefixes of addresses, such as 10.0.0.0/8. If a value is a prefix
	// itself, as Envoy's masked_remote_address is, it must be covered as a whole.
	CIDRs []string
}

func (s *Set) given() bool { return s.Values != nil || s.CIDRs != nil }

// Index finds rules. It is immutable and safe for concurrent use.
type Index struct {
	rules   []rule
	countBy [][]string         // by rule, sorted
	keys    map[string]*finder // the owners are rules
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

// Lookup appends the rules that apply to a descriptor with these entries, by their index
// as given to [Compile] and in that order. If more than most rules apply, it returns any
// most of them, and more is true: the caller decides what that means. most should be
// small, because each rule found is compared with the others. Lookup keeps none of its
// arguments. It does not allocate if dst has room, with one exception: a value that looks
// like an address but is not one, where a rule has prefixes of addresses.
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

// AppendCounted appends the entries whose values are part of the counter's key, for a rule
// that applies to these entries. They are the entries of each key of CountBy. The keys come
// in the order of their bytes, so that the order in which a rule names them does not
// matter. The entries of one key keep their order.
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
	found   []int // sorted from start on
	start   int
	most    int
}

// try adds the rule if it applies. It reports whether there was room.
func (s *search) try(o owner) bool {
	i, ok := slices.BinarySearch(s.found[s.start:], o.index())
	if ok {
		return true // found before, by another value
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

// applies reports whether all conditions are met. anyIsMet means that some value is known
// to be in the first condition's Any.
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
