package config

import (
	"fmt"
	"iter"

	"github.com/distlimiter/ratelimit/internal/match/cidr"
)

// Origin is the kind of place that rules come from.
//
// Rules of FromAdmin override the others. A descriptor with limits replaces the one with
// the same domain, keys and values, or with the same name; only the descriptors below
// that one stay. Other descriptors are added before those of their level, so that they
// match first. A value that another list has is removed from that list, see makeRoom.
// The consume of an overriding domain replaces the domain's own.
type Origin uint8

// The origins.
const (
	FromFile  Origin = iota // files, and sources without an origin
	FromXDS                 // a control plane
	FromAdmin               // the admin API
)

var originNames = [...]string{FromFile: "file", FromXDS: "xds", FromAdmin: "admin"}

// String returns "file", "xds" or "admin".
func (o Origin) String() string {
	if int(o) < len(originNames) {
		return originNames[o]
	}
	return fmt.Sprintf("origin(%d)", uint8(o))
}

// Override lays other over the domain, as [Origin] says of FromAdmin. Other must not
// be used any more.
func (d *Domain) Override(other *Domain) { d.lay(other, true) }

func (d *Domain) lay(over *Domain, before bool) {
	if over.ConsumeGiven {
		d.Consume, d.ConsumeGiven = over.Consume, true
	}
	d.Descriptors = lay(d.Descriptors, over.Descriptors, before)
	d.Limits = lay(d.Limits, over.Limits, before)
}

// lay returns a level of base with that of over laid over it. Descriptors that only over
// has come before or after the rest. It may change both.
func lay(base, over []*Descriptor, before bool) []*Descriptor {
	base = makeRoom(base, over)
	index := make(map[NodeKey]int, len(base))
	for i, d := range base {
		index[d.NodeKey()] = i
	}
	var added []*Descriptor
	for _, d := range over {
		if i, exists := index[d.NodeKey()]; exists {
			base[i] = base[i].laidUnder(d, before)
		} else {
			added = append(added, d)
		}
	}
	if before {
		return append(added, base...)
	}
	return append(base, added...)
}

// NodeKey identifies a descriptor among those of its list. List is the text of a list of
// values; Value is then empty.
type NodeKey struct{ Set, Key, Value, List string }

// NodeKey returns the descriptor's key in its list: its name if it is a rule on sets of
// entries, otherwise its key and value.
func (d *Descriptor) NodeKey() NodeKey {
	if d.Set != nil {
		return NodeKey{Set: d.Set.Name}
	}
	if d.HasList() {
		return NodeKey{Key: d.Key, List: d.ValueText()}
	}
	return NodeKey{Key: d.Key, Value: d.Value}
}

// NodeKeys returns all keys that the descriptor takes. No other descriptor of its list
// may take one of them. They are its own place or, if it has a list of values, one for
// each value and one for each range, in List.
func (d *Descriptor) NodeKeys() iter.Seq[NodeKey] {
	return func(yield func(NodeKey) bool) {
		if !d.HasList() {
			yield(d.NodeKey())
			return
		}
		for _, v := range d.AnyOf.Values {
			if !yield(NodeKey{Key: d.Key, Value: v}) {
				return
			}
		}
		for _, text := range d.AnyOf.CIDRs {
			if p, err := cidr.Parse(text); err == nil && !yield(NodeKey{Key: d.Key, List: p.String()}) {
				return
			}
		}
	}
}

// laidUnder returns d with over, which has the same place, laid over it.
func (d *Descriptor) laidUnder(over *Descriptor, before bool) *Descriptor {
	below := lay(d.Descriptors, over.Descriptors, before)
	if len(over.Limits) == 0 { // it has only descriptors below it
		d.ShareThreshold = d.ShareThreshold || over.ShareThreshold
		d.ValueToMetric = d.ValueToMetric || over.ValueToMetric
		d.Descriptors = below
		return d
	}
	over.Descriptors = below
	if len(d.Limits) > 0 {
		d.Descriptors = nil
		over.Overridden = d
	}
	return over
}
