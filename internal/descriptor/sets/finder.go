package sets

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/descriptor/cidr"
	"github.com/distlimiter/ratelimit/internal/descriptor/glob"
	"github.com/distlimiter/ratelimit/internal/descriptor/prefix"
)

// literal is something that values have, by which they are found.
type literal struct {
	kind   kind
	text   string
	prefix netip.Prefix // of addresses
}

type kind uint8

const (
	exact      kind = iota // the value is the text
	start                  // it begins with the text
	end                    // it ends with the text
	middlePart             // the text occurs in it
	addresses              // it is an address of the prefix
	every                  // any value
)

// owner is who a literal stands for: an index and flags.
type owner uint32

const (
	isMet      owner = 1 << iota // a value with the literal is all that the owner asks of the key
	applies                      // … and of the descriptor
	ownerFlags = iota
)

func newOwner(i int) owner { return owner(i) << ownerFlags }

func (o owner) index() int { return int(o >> ownerFlags) }

// finder finds the owners of those of many literals that a value has.
type finder struct {
	texts   map[string]owners
	starts  *prefix.Table[startOf]
	ends    *prefix.Table[endOf]
	middles *glob.Literals
	ranges  *cidr.Table
	always  []owner // of every value

	// By index in the table above.
	startOwners, endOwners, middleOwners, rangeOwners []owners
}

// owners are those of one literal. Mostly there is one, which takes no further load
// from memory.
type owners struct {
	first owner
	rest  []owner
}

// startOf is a text that is cut to its start.
type startOf string

// Len returns the length in bytes.
func (s startOf) Len() int { return len(s) }

// Cut returns the first so many bytes.
func (s startOf) Cut(length int) startOf { return s[:length] }

// endOf is a text that is cut to its end.
type endOf string

// Len returns the length in bytes.
func (s endOf) Len() int { return len(s) }

// Cut returns the last so many bytes.
func (s endOf) Cut(length int) endOf { return s[len(s)-length:] }

// each calls found with the owners of literals that value has, until found returns
// false, and reports whether it never did. It may call found more than once for an
// owner that has several literals.
func (f *finder) each(value string, found func(owner) bool) bool {
	if f.texts != nil {
		if o, ok := f.texts[value]; ok && !o.each(found) {
			return false
		}
	}
	if f.starts != nil {
		for i := f.starts.Longest(startOf(value)); i >= 0; i = f.starts.Parent(i) {
			if !f.startOwners[i].each(found) {
				return false
			}
		}
	}
	if f.ends != nil {
		for i := f.ends.Longest(endOf(value)); i >= 0; i = f.ends.Parent(i) {
			if !f.endOwners[i].each(found) {
				return false
			}
		}
	}
	if f.ranges != nil {
		if p, ok := cidr.Of(value); ok {
			for i := f.ranges.Longest(p); i >= 0; i = f.ranges.Parent(i) {
				if !f.rangeOwners[i].each(found) {
					return false
				}
			}
		}
	}
	if f.middles != nil {
		ok := true
		f.middles.Each(value, func(i uint32) { ok = ok && f.middleOwners[i].each(found) })
		if !ok {
			return false
		}
	}
	for _, o := range f.always {
		if !found(o) {
			return false
		}
	}
	return true
}

func (o *owners) each(found func(owner) bool) bool {
	if !found(o.first) {
		return false
	}
	for _, other := range o.rest {
		if !found(other) {
			return false
		}
	}
	return true
}

// finderBuilder collects the owners of literals.
type finderBuilder map[literal][]owner

func (b finderBuilder) build(task *background.Task) *finder {
	f := &finder{}
	var starts []startOf
	var ends []endOf
	var ranges []netip.Prefix
	middles := map[string]owners{}
	for l, list := range b {
		o := owners{list[0], list[1:]}
		switch l.kind {
		case exact:
			if f.texts == nil {
				f.texts = map[string]owners{}
			}
			f.texts[l.text] = o
		case start:
			starts, f.startOwners = append(starts, startOf(l.text)), append(f.startOwners, o)
		case end:
			ends, f.endOwners = append(ends, endOf(l.text)), append(f.endOwners, o)
		case middlePart:
			middles[l.text] = o
		case addresses:
			ranges, f.rangeOwners = append(ranges, l.prefix), append(f.rangeOwners, o)
		case every:
			f.always = list
		}
		task.Step()
	}
	if starts != nil {
		f.starts = prefix.New(starts, task)
	}
	if ends != nil {
		f.ends = prefix.New(ends, task)
	}
	if ranges != nil {
		f.ranges = cidr.New(ranges, task)
	}
	if len(middles) > 0 {
		texts := slices.Sorted(maps.Keys(middles))
		ids := make([]uint32, len(texts))
		for i, t := range texts {
			ids[i] = uint32(i)
			f.middleOwners = append(f.middleOwners, middles[t])
		}
		f.middles = glob.NewLiterals(texts, ids)
	}
	return f
}
