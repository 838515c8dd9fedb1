package config

import (
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/match/cidr"
)

// makeRoom removes from a level of base the values that over takes, unless over has the
// very same list. If over has the value by itself, the value becomes a descriptor of its
// own in the result, with the descriptors below it. If over has the value in a list, the
// value goes, with the descriptors below it.
func makeRoom(base, over []*Descriptor) []*Descriptor {
	taken := map[NodeKey]*Descriptor{}
	lists := false
	for _, d := range over {
		for key := range d.NodeKeys() {
			taken[key] = d
		}
		lists = lists || d.HasList()
	}
	if !lists && !slices.ContainsFunc(base, (*Descriptor).HasList) {
		return base
	}
	whole := make(map[NodeKey]bool, len(over))
	for _, d := range over {
		whole[d.NodeKey()] = true
	}
	var out []*Descriptor
	for _, d := range base {
		switch {
		case whole[d.NodeKey()]:
			out = append(out, d)
		case d.HasList():
			out = append(out, d.without(taken)...)
		case taken[d.NodeKey()] == nil:
			out = append(out, d)
		}
	}
	return out
}

// without returns the list without the members that are taken, unless none are left, and
// each value that a single value has taken as a descriptor of its own.
func (d *Descriptor) without(taken map[NodeKey]*Descriptor) (out []*Descriptor) {
	rest := *d
	rest.AnyOf.Values = slices.DeleteFunc(slices.Clone(d.AnyOf.Values), func(v string) bool {
		by := taken[NodeKey{Key: d.Key, Value: v}]
		if by != nil && !by.HasList() {
			single := d.clone()
			single.Value, single.AnyOf.Values, single.AnyOf.CIDRs = v, nil, nil
			single.ShareThreshold = d.ShareThreshold && strings.Contains(v, "*")
			out = append(out, single)
		}
		return by != nil
	})
	rest.AnyOf.CIDRs = slices.DeleteFunc(slices.Clone(d.AnyOf.CIDRs), func(text string) bool {
		p, err := cidr.Parse(text)
		return err == nil && taken[NodeKey{Key: d.Key, List: p.String()}] != nil
	})
	switch values, ranges := rest.AnyOf.Values, rest.AnyOf.CIDRs; {
	case len(values)+len(ranges) == 0:
		return out
	case len(values) == 1 && len(ranges) == 0: // as it would be read
		rest.Value, rest.AnyOf.Values, rest.AnyOf.CIDRs = values[0], nil, nil
		rest.ShareThreshold = d.ShareThreshold && strings.Contains(values[0], "*")
	case len(values) == 0:
		rest.AnyOf.Values = nil
	case len(ranges) == 0:
		rest.AnyOf.CIDRs = nil
	}
	return append([]*Descriptor{&rest}, out...)
}

// clone returns a copy. Laying other descriptors over it leaves the original as it is.
func (d *Descriptor) clone() *Descriptor {
	c := *d
	c.Descriptors = slices.Clone(d.Descriptors)
	for i, below := range c.Descriptors {
		c.Descriptors[i] = below.clone()
	}
	return &c
}
