package descriptor

import "slices"

// A limit with a table follows an entry that the tree need not know. The walk skips an
// entry that leads nowhere if the rule at its end follows that key. The entry may be
// anywhere in the descriptor. It is not part of the counter's key. The walk never skips an
// entry that leads somewhere, so a table changes nothing for other rules.

// follow holds the additional fields of a rule whose limits have tables.
type follow struct {
	key    string // of the entry
	depth  int    // of the rule: the number of entries that lead to it
	domain *Domain
}

// skip continues a look-up whose i-th entry leads nowhere from a place.
func (d *Domain) skip(at place, entries []Entry, i int) *Rule {
	if !slices.Contains(d.followed, entries[i].Key) {
		return nil
	}
	key := entries[i].Key
	for i++; i < len(entries); i++ {
		next := nowhere
		if at.flags&hasLevel != 0 {
			next = d.step(at, entries[i].Key, entries[i].Value)
		}
		switch {
		case next.slot != none:
			at = next
		case entries[i].Key != key:
			return nil
		}
	}
	if at.flags&hasRule == 0 {
		return nil
	}
	if r := &d.rules[at.slot]; r.follow != nil && r.follow.key == key {
		return r
	}
	return nil
}

// leading returns the entries that lead to the rule. If the walk skipped some, it appends
// the others to dst.
func (r *Rule) leading(dst, entries []Entry) []Entry {
	f := r.follow
	if f == nil || len(entries) == f.depth {
		return entries
	}
	at := f.domain.top
	for i := range entries {
		if at.flags&hasLevel == 0 {
			break
		}
		if next := f.domain.step(at, entries[i].Key, entries[i].Value); next.slot != none {
			at = next
			dst = append(dst, entries[i])
		}
	}
	return dst
}
