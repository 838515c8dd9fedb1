package descriptor

import (
	"hash/maphash"
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
)

// Compile returns the matcher for rules, which must be valid. Of siblings with
// the same key and value only the first is found.
func Compile(rules *config.Rules) *Matcher {
	m := &Matcher{domains: make(map[string]*Domain, len(rules.Domains))}
	all := make([]Rule, 0, rules.Len())
	tags := map[string][]string{}
	for _, c := range rules.Domains {
		b := builder{
			domain: &Domain{config: c, prefix: string(appendSized(nil, c.Name)) + "|"},
			edges:  make([]edge, 1), nodes: make([]*node, 1), below: map[edgeID]int{},
			rules: all, tags: tags,
		}
		b.addLevel(rootEdge, c.Descriptors, nil, "")
		all = b.rules
		m.domains[c.Name] = b.domain
		for !b.place(maphash.MakeSeed()) {
			// Two hashes are alike, which another seed changes.
		}
	}
	m.rules = make([]*Rule, len(all))
	for i := range all {
		m.rules[i] = &all[i]
	}
	for _, d := range m.domains {
		d.rules = all
	}
	return m
}

// builder collects the tree of one domain.
type builder struct {
	domain *Domain
	edges  []edge // parents first; edges[rootEdge] stands for the top
	nodes  []*node
	below  map[edgeID]int
	rules  []Rule
	tags   map[string][]string // lists of tags that rules have in common
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
	r := Rule{
		Index: len(b.rules), Domain: b.domain.config.Name, Path: path, Config: c, Detailed: c.DetailedMetric,
		prefix: b.domain.prefix, tags: b.ruleTags(c.Limits), levels: levels,
	}
	for _, n := range levels {
		r.shares = r.shares || n.shared != ""
		anyValue := n.config.Value == "" || n.match != nil && !n.config.ShareThreshold
		r.Detailed = r.Detailed || n.config.ValueToMetric && anyValue || n.starKey
	}
	b.rules = append(b.rules, r)
	b.edges[at].rule = uint32(len(b.rules))
}

// place makes the table, unless hashes by this seed are too alike.
func (b *builder) place(seed maphash.Seed) bool {
	d := b.domain
	d.seed = seed
	b.edges[rootEdge].hash = rootHash
	for i := 1; i < len(b.edges); i++ {
		e := &b.edges[i]
		up := setHash(uint32(e.up))
		if e.kind == keyEdge || e.kind == valueEdge {
			up = b.edges[e.up].hash
		}
		e.hash = d.hash(up, e.kind, e.text)
	}
	slots, ok := d.table.place(b.edges[1:])
	if !ok {
		return false
	}
	d.root = uint32(len(d.records) - 1)
	slots = append([]uint32{d.root}, slots...)
	d.nodes = make([]*node, len(d.records))
	for i, e := range b.edges {
		r := e.record
		if i != rootEdge {
			up := uint32(e.up)
			if e.kind == keyEdge || e.kind == valueEdge {
				up = slots[up]
			}
			r.from, r.size = edgeFrom(up, e.kind), uint32(len(e.text))
			copy(r.inline[:], e.text)
		}
		d.records[slots[i]], d.texts[slots[i]], d.nodes[slots[i]] = r, e.text, b.nodes[i]
	}
	for i := range d.sets {
		d.sets[i].land(func(edge uint32) (uint32, uint64) { return slots[edge], b.edges[edge].hash })
	}
	return true
}
