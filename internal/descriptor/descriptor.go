// Package descriptor owns the compiled matcher: from a domain and the entries
// of a request descriptor to the rule that applies and the keys of its
// counters, and why. Reading and validating rules is left to config, deciding
// to algo and backend. A [Matcher] is immutable; a reload compiles a new one.
//
// A descriptor is matched entry by entry, from the domain's top level down. On
// each level
//
//   - a configured key and value that are the entry's, also in a list of values, win over
//   - a configured key with the longest range of addresses that covers the entry's value,
//     which wins over
//   - the first in the file whose value is a pattern (each * stands for zero or
//     more characters) that matches, which wins over
//   - a configured key without a value,
//
// and the choice is final, whether or not it leads to a limit. An entry that leads nowhere
// is skipped if the rule on which the others land follows it: see config.Table. The rule
// on which the last entry lands applies, and beside it all rules on sets of entries whose
// conditions the descriptor meets: see package sets.
//
// As in envoyproxy/ratelimit, keys and values are compared joined by "_": the
// entry a_b=c also lands on a configured a=b_c, and a * may match across the
// joint. A configured descriptor with just the entry's key and value goes first.
package descriptor

import (
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// Entry is one key and value of a request descriptor.
type Entry = sets.Entry

// Rule is one descriptor of the configuration that has limits, or a rule on sets of
// entries.
type Rule struct {
	// Index is dense over all rules of the matcher: 0 … len(Matcher.Rules())-1.
	Index int
	keys  *keyForm
	set   *setRule // nil: it is in the tree
	// follow is nil for rules without tables, and those on sets of entries.
	follow *follow
	// Domain and Path name the rule in statistics and logs. Path joins the
	// configured keys and values, as envoyproxy/ratelimit does: "user_alice.path".
	Domain, Path string
	ends         [2]uint32 // of the first two levels in Path
	// Config is the node the rule was compiled from.
	Config *config.Descriptor
	// Detailed says that AppendMetricKey depends on the entries. Otherwise it
	// gives Path.
	Detailed bool
}

// Matcher finds rules. It is immutable and safe for concurrent use.
type Matcher struct {
	domains map[string]*Domain
	rules   []*Rule
}

// Rules returns all rules, by Index. They must not be changed.
func (m *Matcher) Rules() []*Rule { return m.rules }

// Domain returns the domain of that name; nil if there is none.
func (m *Matcher) Domain(name string) *Domain { return m.domains[name] }

// Domain is a set of rules of its own.
type Domain struct {
	config *config.Domain
	prefix string // of all counter keys
	tree   table  // keyEdge and valueEdge
	top    place  // above the first level
	rules  []Rule // by slot in tree: found without waiting for another load
	first  int    // index of the first rule
	wild   table  // prefixEdge and suffixEdge
	sets   []set
	ranges []ranges
	levels []level
	// followed are the keys of entries that tables of the tree's limits follow.
	followed []string

	limits     *sets.Index    // the rules on sets of entries; nil: none
	byName     map[string]int // their index by name
	limitRules []Rule
	settling   map[Entry]bool // the entries that settle holds; nil: there are none

	// By slot in tree, top's at the end.
	below []uint32 // index of the level below a descriptor
	ways  []uint64 // the hash of the way there
	nodes []*node  // nil for what is no descriptor
}

// node is one descriptor of the configuration.
type node struct {
	config  *config.Descriptor
	joined  string   // key, or key_value
	match   *pattern // nil if joined has no *, or of a list
	starKey bool     // the key has one
	shared  string   // what stands for the entry in counter keys if all values share one; else empty
}

// level holds the descriptors below a descriptor, or those of a domain.
type level struct {
	descriptors []*config.Descriptor
	longest     int    // length of the longest key
	underscores bool   // some key contains a _
	set         uint32 // 1 + index of the patterns with a * in the key; 0: none
}

// Name returns the domain's name.
func (d *Domain) Name() string { return d.config.Name }

// Consume says what a request with several descriptors is charged.
func (d *Domain) Consume() config.Consume { return d.config.Consume }

// place is where entries have led.
type place struct {
	slot  uint32 // none: nowhere
	flags uint8
	way   uint64 // the hash of the way there
}

var nowhere = place{slot: none}

// Lookup returns the rule that applies to a descriptor with these entries; nil
// if no limit applies. It does not keep entries and, oddities of keys aside
// (see odd.go), does not allocate.
func (d *Domain) Lookup(entries []Entry) *Rule {
	at := d.top
	for i := range entries {
		if at.flags&hasLevel == 0 {
			return d.skip(at, entries, i)
		}
		next := d.step(at, entries[i].Key, entries[i].Value)
		if next.slot == none {
			return d.skip(at, entries, i)
		}
		at = next
	}
	if at.flags&hasRule == 0 {
		return nil
	}
	return &d.rules[at.slot]
}

// step returns where an entry leads from a place that hasLevel.
func (d *Domain) step(at place, key, value string) place {
	way := hash(at.way, keyEdge, key)
	k, r := d.tree.find(way, at.slot, keyEdge, key)
	if r == nil {
		if l := d.level(at); l.underscores || l.set != 0 || strings.IndexByte(key, '_') >= 0 {
			return d.stepOddly(at, key, value)
		}
		return nowhere
	}
	if r.flags()&isOdd != 0 {
		return d.stepOddly(at, key, value)
	}
	if r.flags()&hasValues != 0 || r.set != 0 && strings.IndexByte(value, '*') >= 0 {
		valueWay := hash(way, valueEdge, value)
		if v, r := d.tree.find(valueWay, k, valueEdge, value); r != nil {
			if r.flags()&isMember != 0 {
				return d.member(r)
			}
			return place{v, r.flags(), valueWay}
		}
	}
	if r.flags()&hasRanges != 0 {
		if c := d.longest(r.land, value); c.slot != none {
			return d.landing(c)
		}
	}
	if r.set != 0 {
		if c := d.wildcard(r.set-1, value, nothing); c.slot != none {
			return d.landing(c)
		}
	}
	if r.flags()&isNode == 0 {
		return nowhere
	}
	return place{k, r.flags(), way}
}

func (d *Domain) level(at place) *level { return &d.levels[d.below[at.slot]] }
