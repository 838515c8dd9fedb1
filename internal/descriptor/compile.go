package descriptor

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
)

// Compile returns the matcher for rules, which must be valid. Of siblings with
// the same key and value only the first is found.
func Compile(rules *config.Rules) *Matcher { return (&Matcher{}).Recompile(rules) }

// Recompile does the same as Compile, but does not compile the domains again that m has
// already. It does not change m.
func (m *Matcher) Recompile(rules *config.Rules) *Matcher {
	task := background.New()
	defer task.Close()
	next := &Matcher{domains: make(map[string]*Domain, len(rules.Domains)), rules: make([]*Rule, 0, rules.Len())}
	for _, c := range rules.Domains {
		if d := m.domains[c.Name]; d != nil && d.config == c {
			next.adopt(d)
			continue
		}
		nodes := count(c.Descriptors)
		b := builder{
			domain: &Domain{config: c, prefix: string(appendSized(nil, c.Name)) + "|", first: len(next.rules)},
			tree:   newEdges(nodes), wild: newEdges(0), forms: map[string]*keyForm{}, task: task,
		}
		// Allocating megabytes takes milliseconds, so yield in between.
		task.Yield()
		b.nodes = make([]node, 0, nodes)
		task.Yield()
		b.rules = make([]foundRule, 0, nodes)
		task.Yield()
		if nodes > 0 {
			b.addLevel(rootEdge, c.Descriptors, make([]*node, 0, 8), "")
		}
		next.rules = b.addLimits(c.Limits, b.finish(next.rules))
		next.domains[c.Name] = b.domain
	}
	return next
}

// adopt adds a domain of another matcher. It copies the domain's rules only if their
// indices change.
func (m *Matcher) adopt(d *Domain) {
	shift := len(m.rules) - d.first
	if shift != 0 {
		moved := *d
		moved.first, moved.rules, moved.limitRules = len(m.rules), slices.Clone(d.rules), slices.Clone(d.limitRules)
		d = &moved
	}
	for _, rules := range [...][]Rule{d.rules, d.limitRules} {
		for i := range rules {
			r := &rules[i]
			if r.Config == nil {
				continue // a slot without a rule
			}
			if shift != 0 {
				r.Index += shift
			}
			for len(m.rules) <= r.Index {
				m.rules = append(m.rules, nil)
			}
			m.rules[r.Index] = r
		}
	}
	m.domains[d.Name()] = d
}

// builder compiles a domain. Places are edges of the tree until the domain is finished,
// then slots.
type builder struct {
	domain     *Domain
	tree, wild edges
	nodes      []node // in one piece of memory: all live as long
	rules      []foundRule
	forms      map[string]*keyForm // of rules that need no more, by id
	id         []byte              // reused
	task       *background.Task
}

func count(descriptors []*config.Descriptor) int {
	n := len(descriptors)
	for _, d := range descriptors {
		n += count(d.Descriptors)
	}
	return n
}

// foundRule is a rule with its place.
type foundRule struct {
	Rule
	edge int
}

// addLevel adds the descriptors below up, to which levels and path lead. It overwrites the
// elements after levels.
func (b *builder) addLevel(up int, descriptors []*config.Descriptor, levels []*node, path string) {
	l := level{descriptors: descriptors}
	keys := make([]int, 0, len(descriptors)) // edges
	var anyKey []pattern
	byKey := map[int][]pattern{}
	ranged := map[int]*rangesBuilder{}
	for order, c := range descriptors {
		b.task.Step()
		key, at := b.addNode(up, c)
		if at == rootEdge {
			continue
		}
		keys = append(keys, key)
		n := b.tree.list[at].node
		levels := append(levels, n)
		path := path + n.joined
		if len(c.Limits) > 0 {
			b.addRule(at, levels, path)
		}
		if len(c.Descriptors) > 0 {
			b.addLevel(at, c.Descriptors, levels, path+".")
		}
		to := candidate{slot: uint32(at), order: uint32(order), flags: b.tree.list[at].flags}
		for _, p := range n.patternsOf() {
			p.candidate = to
			if n.starKey {
				anyKey = append(anyKey, p)
			} else {
				byKey[key] = append(byKey[key], p.after(c.Key+"_"))
			}
		}
		if len(c.AnyOf.CIDRs) > 0 {
			if ranged[key] == nil {
				ranged[key] = &rangesBuilder{seen: map[netip.Prefix]bool{}}
			}
			ranged[key].add(c.AnyOf.CIDRs, to)
		}
	}
	for _, k := range keys {
		if patterns := byKey[k]; patterns != nil {
			b.tree.list[k].set = 1 + b.addSet(patterns, prefixEdge)
			delete(byKey, k)
		}
		if r := ranged[k]; r != nil {
			b.tree.list[k].flags |= hasRanges
			b.tree.list[k].land = b.addRanges(r)
			delete(ranged, k)
		}
		if len(anyKey) > 0 {
			b.tree.list[k].flags |= isOdd
		}
		b.markOdd(&l, up, k)
		b.task.Step()
	}
	if len(anyKey) > 0 {
		l.set = 1 + b.addSet(anyKey, prefixEdge)
	}
	b.tree.list[up].flags |= hasLevel
	b.tree.list[up].level = uint32(len(b.domain.levels))
	b.domain.levels = append(b.domain.levels, l)
}

// addNode adds a descriptor below up. It returns the edge of its key and the edge to
// itself; the latter is rootEdge if an equal descriptor exists already.
func (b *builder) addNode(up int, c *config.Descriptor) (key, at int) {
	b.nodes = append(b.nodes, node{config: c, joined: c.NamePart(), starKey: isPattern(c.Key)})
	n := &b.nodes[len(b.nodes)-1]
	key = b.tree.add(up, keyEdge, c.Key)
	at = key
	switch {
	case c.HasList():
		at = b.addList(key, n)
	case c.Value != "":
		at = b.tree.add(key, valueEdge, c.Value)
	}
	if at == rootEdge || b.tree.list[at].node != nil || b.tree.list[at].flags&isMember != 0 {
		return key, rootEdge
	}
	b.tree.list[at].node = n
	switch {
	case hasExact(c):
		b.tree.list[key].flags |= hasValues
	case at == key:
		b.tree.list[key].flags |= isNode
	}
	if !c.HasList() && isPattern(n.joined) {
		p := newPattern(n.joined)
		n.match = &p
	}
	n.shared = sharedText(n)
	return key, at
}

func isPattern(s string) bool { return strings.Contains(s, "*") }

// markOdd marks a key, and the other keys of the level that equal its start up to an
// underscore.
func (b *builder) markOdd(l *level, up, k int) {
	key := b.tree.list[k].text
	l.longest = max(l.longest, len(key))
	for i := range len(key) {
		if key[i] != '_' {
			continue
		}
		l.underscores = true
		if start, ok := b.tree.index[edgeID{up, keyEdge, key[:i]}]; ok {
			b.tree.list[start].flags |= isOdd
			b.tree.list[k].flags |= isOdd
		}
	}
}

func (b *builder) addRule(at int, levels []*node, path string) {
	c := levels[len(levels)-1].config
	r := Rule{Domain: b.domain.config.Name, Path: path, Config: c, Detailed: c.DetailedMetric}
	r.ends[0] = uint32(len(levels[0].joined))
	if r.ends[1] = r.ends[0]; len(levels) > 1 {
		r.ends[1] += uint32(len(".") + len(levels[1].joined))
	}
	shares := false
	for _, n := range levels {
		shares = shares || n.shared != ""
		anyValue := n.config.Value == "" && !n.config.HasList() || (n.match != nil || n.config.HasList()) && !n.config.ShareThreshold
		r.Detailed = r.Detailed || n.config.ValueToMetric && anyValue || n.starKey
	}
	if key := c.TableKey(); key != "" {
		r.follow = &follow{key, len(levels), b.domain}
		if !slices.Contains(b.domain.followed, key) {
			b.domain.followed = append(b.domain.followed, key)
		}
	}
	r.keys = b.keyForm(c.Limits)
	if shares || r.Detailed {
		r.keys = &keyForm{prefix: r.keys.prefix, tags: r.keys.tags, levels: slices.Clone(levels)}
	}
	b.rules = append(b.rules, foundRule{r, at})
	b.tree.list[at].flags |= hasRule
}

// finish completes the domain and appends its rules.
func (b *builder) finish(rules []*Rule) []*Rule {
	d := b.domain
	var slots []uint32
	d.tree, slots = newTable(b.tree.list, b.task)
	for i := range b.wild.list {
		b.wild.list[i].land = slots[b.wild.list[i].land]
	}
	d.wild, _ = newTable(b.wild.list, b.task)
	for _, w := range d.sets {
		for i := range w.patterns {
			w.patterns[i].slot = slots[w.patterns[i].slot]
		}
		if w.scan != nil {
			w.scan.land(w.patterns)
		}
	}
	n := len(d.tree.records) + 1
	b.task.Yield()
	d.rules = make([]Rule, n)
	b.task.Yield()
	d.below, d.ways, d.nodes = make([]uint32, n), make([]uint64, n), make([]*node, n)
	for i, e := range b.tree.list {
		slot := slots[i]
		d.ways[slot], d.nodes[slot], d.below[slot] = e.way, e.node, e.level
		b.task.Step()
	}
	d.top = place{slots[rootEdge], b.tree.list[rootEdge].flags, d.tree.seed}
	for _, r := range b.rules {
		at := &d.rules[slots[r.edge]]
		*at = r.Rule
		at.Index = len(rules)
		rules = append(rules, at)
		b.task.Step()
	}
	return rules
}
