package descriptor

import (
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
)

// Compile returns the matcher for rules, which must be valid. Of siblings with
// the same key and value only the first is found.
func Compile(rules *config.Rules) *Matcher {
	m := &Matcher{domains: make(map[string]*Domain, len(rules.Domains)), rules: make([]*Rule, 0, rules.Len())}
	forms := map[string]*keyForm{}
	for _, c := range rules.Domains {
		b := builder{
			domain: &Domain{config: c, prefix: string(appendSized(nil, c.Name)) + "|"},
			edges:  make([]edge, 1), nodes: make([]*node, 1), below: map[edgeID]int{},
			forms: forms,
		}
		b.addLevel(rootEdge, c.Descriptors, nil, "")
		for seed := uint64(0); !b.place(seed); seed++ {
			// Another seed helps when the ways of two edges are too alike.
		}
		m.domains[c.Name] = b.domain
		m.rules = b.land(m.rules)
	}
	return m
}

// builder collects the tree of one domain.
type builder struct {
	domain *Domain
	edges  []edge // parents first; edges[rootEdge] stands for the top
	nodes  []*node
	below  map[edgeID]int
	rules  []foundRule
	slots  []uint32            // by edge but the first
	forms  map[string]*keyForm // by tags, of rules that need no more
}

// foundRule is a rule whose place is not known yet.
type foundRule struct {
	Rule
	edge int
}

const rootEdge = 0

// edgeID says where an edge begins and what it is for.
type edgeID struct {
	up   int
	kind kind
	text string
}

// edge returns the index of an edge, which it adds if need be.
func (b *builder) edge(up int, k kind, text string) int {
	id := edgeID{up, k, text}
	i, ok := b.below[id]
	if !ok {
		i = len(b.edges)
		b.below[id] = i
		b.edges = append(b.edges, edge{edgeID: id})
		b.nodes = append(b.nodes, nil)
	}
	return i
}

// addLevel adds the descriptors below up, to which levels and path lead.
func (b *builder) addLevel(up int, descriptors []*config.Descriptor, levels []*node, path string) {
	if len(descriptors) == 0 {
		return
	}
	l := level{descriptors: descriptors}
	var keys []int // edges
	var anyKey []pattern
	byKey := map[int][]pattern{}
	for order, c := range descriptors {
		n := &node{config: c, joined: c.Key, starKey: strings.Contains(c.Key, "*")}
		at := b.edge(up, keyEdge, c.Key)
		key := at
		if c.Value != "" {
			n.joined = c.Key + "_" + c.Value
			b.edges[key].flags |= hasValues
			at = b.edge(key, valueEdge, c.Value)
		} else {
			b.edges[key].flags |= isNode
		}
		if b.nodes[at] != nil {
			continue
		}
		b.nodes[at] = n
		keys = append(keys, key)
		if strings.Contains(n.joined, "*") {
			p := newPattern(n.joined)
			n.match = &p
			p.order, p.record = uint32(order), uint32(at)
			if n.starKey {
				anyKey = append(anyKey, p)
			} else {
				byKey[key] = append(byKey[key], p.after(c.Key+"_"))
			}
		}
		n.shared = sharedText(n)
		levels := append(levels[:len(levels):len(levels)], n)
		path := path + n.joined
		if len(c.Limits) > 0 {
			b.addRule(at, levels, path)
		}
		b.addLevel(at, c.Descriptors, levels, path+".")
	}
	for _, k := range keys {
		if patterns := byKey[k]; patterns != nil {
			b.edges[k].set = 1 + b.addSet(patterns, prefixEdge)
			delete(byKey, k)
		}
		if len(anyKey) > 0 {
			b.edges[k].flags |= isOdd
		}
		b.markOdd(&l, up, k)
	}
	if len(anyKey) > 0 {
		l.set = 1 + b.addSet(anyKey, prefixEdge)
	}
	b.domain.levels = append(b.domain.levels, l)
	b.edges[up].level = uint32(len(b.domain.levels))
}

// markOdd marks a key and others of the level that are its start up to an
// underscore.
func (b *builder) markOdd(l *level, up, k int) {
	key := b.edges[k].text
	l.longest = max(l.longest, len(key))
	for i := range len(key) {
		if key[i] != '_' {
			continue
		}
		l.underscores = true
		if start, ok := b.below[edgeID{up, keyEdge, key[:i]}]; ok {
			b.edges[start].flags |= isOdd
			b.edges[k].flags |= isOdd
		}
	}
}

func (b *builder) addRule(at int, levels []*node, path string) {
	c := levels[len(levels)-1].config
	r := Rule{Domain: b.domain.config.Name, Path: path, Config: c, Detailed: c.DetailedMetric}
	shares := false
	for _, n := range levels {
		shares = shares || n.shared != ""
		anyValue := n.config.Value == "" || n.match != nil && !n.config.ShareThreshold
		r.Detailed = r.Detailed || n.config.ValueToMetric && anyValue || n.starKey
	}
	r.keys = b.keyForm(c.Limits)
	if shares || r.Detailed {
		r.keys = &keyForm{prefix: r.keys.prefix, tags: r.keys.tags, levels: levels}
	}
	b.rules = append(b.rules, foundRule{r, at})
	b.edges[at].flags |= hasRule
}

// place makes the table, unless hashes by this seed are too alike.
func (b *builder) place(seed uint64) bool {
	d := b.domain
	d.seed = mix(seed, 0)
	b.edges[rootEdge].way = d.seed
	for i := 1; i < len(b.edges); i++ {
		e := &b.edges[i]
		up := d.setWay(uint32(e.up))
		if e.kind == keyEdge || e.kind == valueEdge {
			up = b.edges[e.up].way
		}
		e.way = hash(up, e.kind, e.text)
	}
	var ok bool
	b.slots, ok = d.table.place(b.edges[1:])
	return ok
}

// land fills the table and appends the rules.
func (b *builder) land(rules []*Rule) []*Rule {
	d := b.domain
	d.root = uint32(len(d.records) - 1)
	slots := append([]uint32{d.root}, b.slots...)
	d.nodes, d.rules = make([]*node, len(d.records)), make([]Rule, len(d.records))
	for i, e := range b.edges {
		r, slot := e.record, slots[i]
		if i != rootEdge {
			up := uint32(e.up)
			if e.kind == keyEdge || e.kind == valueEdge {
				up = slots[up]
			} else {
				r.land = slots[r.land]
			}
			r.from, r.tag, r.size = edgeFrom(up, e.kind), uint32(e.way>>16), uint16(min(len(e.text), maxSize))
			copy(r.inline[:], e.text)
		}
		d.records[slot], d.texts[slot], d.ways[slot], d.nodes[slot] = r, e.text, e.way, b.nodes[i]
	}
	for _, w := range d.sets {
		for i := range w.patterns {
			w.patterns[i].record = slots[w.patterns[i].record]
		}
	}
	for _, r := range b.rules {
		at := &d.rules[slots[r.edge]]
		*at = r.Rule
		at.Index = len(rules)
		rules = append(rules, at)
	}
	return rules
}
