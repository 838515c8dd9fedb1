package sets

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/match/cidr"
	"github.com/distlimiter/ratelimit/internal/match/glob"
)

// literal is a property of values by which the index finds them.
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

// String returns the literal as a rule would write it.
func (l literal) String() string {
	switch l.kind {
	case start:
		return l.text + "*"
	case end:
		return "*" + l.text
	case middlePart:
		return "*" + l.text + "*"
	case addresses:
		return l.prefix.String()
	case every:
		return "*"
	default:
		return l.text
	}
}

// owner is a rule or member that a literal stands for: an index and flags.
type owner uint32

const (
	isMet      owner = 1 << iota // the owner asks no more of the key than a value with the literal
	applies                      // … and no more of the descriptor
	ownerFlags = iota
)

func newOwner(i int) owner { return owner(i) << ownerFlags }

func (o owner) index() int { return int(o >> ownerFlags) }

// finder finds the owners of the literals that a value has.
type finder struct {
	texts        *texts
	starts, ends *affixes
	middles      *glob.Literals
	middleOwners [][]owner // by index in middles
	ranges       *cidr.Table
	rangeOwners  [][]owner // by index in ranges
	always       []owner   // of every value
}

// each calls found with the owners of literals that value has, until found returns false.
// It reports whether found never did. It may call found more than once for an owner with
// several literals.
func (f *finder) each(value string, found func(owner) bool) bool {
	if f.texts != nil {
		if r := f.texts.find(value); r != nil && !f.texts.each(r, found) {
			return false
		}
	}
	if f.starts != nil && !f.starts.each(value, found) || f.ends != nil && !f.ends.each(value, found) {
		return false
	}
	if f.ranges != nil {
		if p, ok := cidr.Of(value); ok {
			for i := f.ranges.Longest(p); i >= 0; i = f.ranges.Parent(i) {
				if !eachOf(f.rangeOwners[i], found) {
					return false
				}
			}
		}
	}
	if f.middles != nil {
		ok := true
		f.middles.Each(value, func(i uint32) { ok = ok && eachOf(f.middleOwners[i], found) })
		if !ok {
			return false
		}
	}
	return eachOf(f.always, found)
}

// finderBuilder collects the owners of literals.
type finderBuilder map[literal][]owner

func (b finderBuilder) build(task *background.Task) *finder {
	f := &finder{}
	exacts := 0
	starts, ends, middles := map[startOf][]owner{}, map[endOf][]owner{}, map[string][]owner{}
	var ranges []netip.Prefix
	for l, owners := range b {
		switch l.kind {
		case exact:
			exacts++
		case start:
			starts[startOf(l.text)] = owners
		case end:
			ends[endOf(l.text)] = owners
		case middlePart:
			middles[l.text] = owners
		case addresses:
			ranges, f.rangeOwners = append(ranges, l.prefix), append(f.rangeOwners, owners)
		case every:
			f.always = owners
		}
		task.Step()
	}
	if exacts > 0 {
		f.texts = newTexts(exacts)
		for l, owners := range b {
			if l.kind == exact {
				f.texts.add(l.text, owners)
			}
			task.Step()
		}
	}
	if len(starts) > 0 {
		f.starts = newAffixes(starts, false, task)
	}
	if len(ends) > 0 {
		f.ends = newAffixes(ends, true, task)
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
