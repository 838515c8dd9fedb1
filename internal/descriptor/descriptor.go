// Package descriptor owns the compiled matcher: from a domain and the entries
// of a request descriptor to the rule that applies and the keys of its
// counters, and why. Reading and validating rules is left to config, deciding
// to algo and backend. A [Matcher] is immutable; a reload compiles a new one.
//
// A descriptor is matched entry by entry, from the domain's top level down. On
// each level
//
//   - a configured key and value that are the entry's win over
//   - the first in the file whose value is a pattern (each * stands for zero or
//     more characters) that matches, which wins over
//   - a configured key without a value,
//
// and the choice is final, whether or not it leads to a limit. The rule on which
// the last entry lands applies.
//
// As in envoyproxy/ratelimit, keys and values are compared joined by "_": the
// entry a_b=c also lands on a configured a=b_c, and a * may match across the
// joint. A configured descriptor with just the entry's key and value goes first.
package descriptor

import (
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
)

// Entry is one key and value of a request descriptor.
type Entry struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Rule is one descriptor of the configuration that has limits.
type Rule struct {
	// Index is dense over all rules of the matcher: 0 … len(Matcher.Rules())-1.
	Index int
	keys  *keyForm
	// Domain and Path name the rule in statistics and logs. Path joins the
	// configured keys and values, as envoyproxy/ratelimit does: "user_alice.path".
	Domain, Path string
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
	table
	config *config.Domain
	prefix string  // of all counter keys
	root   uint32  // record above the top level
	rules  []Rule  // by slot, as its record is found: without waiting for another load
	nodes  []*node // by slot; nil for what is no descriptor
	levels []level // by record.level - 1
	sets   []set   // by record.set - 1
}

// node is one descriptor of the configuration.
type node struct {
	config  *config.Descriptor
	joined  string   // key, or key_value
	match   *pattern // nil if joined has no *
	starKey bool     // the key has one
	shared  string   // what stands for the entry in counter keys if all values share one; else empty
}

// level is what there is below a descriptor, or in a domain.
type level struct {
	descriptors []*config.Descriptor
	longest     int  // length of the longest key
	underscores bool // some key contains a _
	set         uint32
}

// Name returns the domain's name.
func (d *Domain) Name() string { return d.config.Name }

// Consume says what a request with several descriptors is charged.
func (d *Domain) Consume() config.Consume { return d.config.Consume }

// Lookup returns the rule that applies to a descriptor with these entries; nil
// if no limit applies. It does not keep entries and, oddities of keys aside
// (see odd.go), does not allocate.
func (d *Domain) Lookup(entries []Entry) *Rule {
	at, way := d.root, d.seed
	for i := range entries {
		if at, way = d.step(at, way, entries[i].Key, entries[i].Value); at == none {
			return nil
		}
	}
	if d.records[at].flags&hasRule == 0 {
		return nil
	}
	return &d.rules[at]
}

// step returns the record on which an entry lands and the hash of the way there;
// none if it matches nothing.
func (d *Domain) step(at uint32, way uint64, key, value string) (uint32, uint64) {
	below := d.records[at].level
	if below == 0 {
		return none, 0
	}
	keyWay := hash(way, keyEdge, key)
	k := d.find(keyWay, at, keyEdge, key)
	if k == none {
		if l := &d.levels[below-1]; l.underscores || l.set != 0 || strings.IndexByte(key, '_') >= 0 {
			return d.stepOddly(at, way, key, value)
		}
		return none, 0
	}
	r := &d.records[k]
	if r.flags&isOdd != 0 {
		return d.stepOddly(at, way, key, value)
	}
	if r.flags&hasValues != 0 {
		valueWay := hash(keyWay, valueEdge, value)
		if v := d.find(valueWay, k, valueEdge, value); v != none {
			return v, valueWay
		}
		if r.set != 0 {
			if c := d.wildcard(r.set-1, value, nothing); c != nothing {
				return c.record, d.ways[c.record]
			}
		}
	}
	if r.flags&isNode != 0 {
		return k, keyWay
	}
	return none, 0
}
