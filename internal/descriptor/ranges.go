package descriptor

import (
	"net/netip"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/match/cidr"
)

// A descriptor with a list of values is found by each of them. An exact value has an edge
// that leads to the edge of the whole list. A pattern is one of the patterns of its key,
// and a range one of the ranges of its key. So the subtree below a list exists only once.

// ranges finds the longest range of a key that covers a value; see [cidr.Search]. The
// nodes of the search are edges (prefixEdge) of the domain's table wild, so that each
// probe touches one cache line.
type ranges struct {
	at     uint32 // the set from which the edges leave
	v4, v6 []int  // lengths
}

// longest returns where the longest range leads, of the i-th ranges, that covers all
// addresses of the value.
func (d *Domain) longest(i uint32, value string) candidate {
	p, ok := cidr.Of(value)
	if !ok {
		return nothing
	}
	r := &d.ranges[i]
	lengths := r.v6
	if p.Addr().Is4() {
		lengths = r.v4
	}
	best := nothing
	way := d.wild.setWay(r.at)
	cidr.Search(lengths, p, func(t cidr.Text) bool {
		text := string(t.Bytes())
		_, node := d.wild.find(hash(way, prefixEdge, text), r.at, prefixEdge, text)
		if node == nil {
			return false
		}
		if node.order != noOrder {
			best = candidate{node.land, node.order, node.flags()}
		}
		return true
	})
	return best
}

// member returns where the edge of one value of a list leads.
func (d *Domain) member(r *record) place {
	return d.landing(candidate{slot: r.land, flags: r.flags() &^ isMember})
}

// rangesBuilder collects the ranges of a key.
type rangesBuilder struct {
	prefixes []netip.Prefix
	land     []candidate // edges until the domain is finished, then slots
	seen     map[netip.Prefix]bool
}

// add adds the ranges of a descriptor, except those that an earlier one has.
func (b *rangesBuilder) add(texts []string, to candidate) {
	for _, text := range texts {
		p, err := cidr.Parse(text)
		if err != nil || b.seen[p] { // rules are valid
			continue
		}
		b.seen[p] = true
		b.prefixes, b.land = append(b.prefixes, p), append(b.land, to)
	}
}

// addRanges adds the ranges of a key to the domain and returns their index.
func (b *builder) addRanges(r *rangesBuilder) uint32 {
	d := b.domain
	table := cidr.New(r.prefixes, b.task)
	at := uint32(len(d.sets))
	d.sets = append(d.sets, set{}) // so that no set has the number of the ranges
	for text, longest := range table.Nodes() {
		e := b.wild.add(int(at), prefixEdge, string(text.Bytes()))
		end := edge{edgeID: b.wild.list[e].edgeID, order: noOrder}
		if longest >= 0 {
			to := r.land[longest]
			end.land, end.order, end.flags = to.slot, to.order, to.flags
		}
		b.wild.list[e] = end
		b.task.Step()
	}
	d.ranges = append(d.ranges, ranges{at, table.Lengths(true), table.Lengths(false)})
	return uint32(len(d.ranges) - 1)
}

// addList adds the edges of a list's values below its key. It returns the edge of the
// list; rootEdge if earlier descriptors have all its members.
func (b *builder) addList(key int, n *node) int {
	at := b.tree.add(key, listEdge, n.config.ValueText())
	if b.tree.list[at].node != nil {
		return rootEdge
	}
	for _, v := range n.config.AnyOf.Values {
		m := b.tree.add(key, valueEdge, v)
		if e := &b.tree.list[m]; e.node == nil && e.flags&isMember == 0 {
			e.flags |= isMember
			e.land = uint32(at)
		}
	}
	return at
}

// patternsOf returns the patterns of a node, which match its key and value joined.
func (n *node) patternsOf() (all []pattern) {
	if n.match != nil {
		return []pattern{*n.match}
	}
	for _, v := range n.config.AnyOf.Values {
		if isPattern(v) {
			all = append(all, newPattern(n.config.Key+"_"+v))
		}
	}
	return all
}

// listAt finds a list of the level below by its key and text.
func (d *Domain) listAt(at place, key, text string) place {
	k, r := d.tree.find(hash(at.way, keyEdge, key), at.slot, keyEdge, key)
	if r == nil {
		return nowhere
	}
	way := hash(hash(at.way, keyEdge, key), listEdge, text)
	l, r := d.tree.find(way, k, listEdge, text)
	if r == nil {
		return nowhere
	}
	return place{l, r.flags(), way}
}

// hasExact reports whether the descriptor has an exact value.
func hasExact(c *config.Descriptor) bool {
	if !c.HasList() {
		return c.Value != "" && !isPattern(c.Value)
	}
	for _, v := range c.AnyOf.Values {
		if !isPattern(v) {
			return true
		}
	}
	return false
}
