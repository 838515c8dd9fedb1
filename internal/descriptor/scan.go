package descriptor

import (
	"maps"
	"slices"

	"github.com/distlimiter/ratelimit/internal/descriptor/glob"
)

// scanner finds patterns by a literal in their middle.
type scanner struct {
	literals *glob.Literals // each known by its first owner
	owners   []owner        // of each literal in turn, those of one in order
}

// owner is a pattern that a literal stands for. It says by itself where the pattern
// leads: of many thousands the pattern is far away in memory, and most often a
// literal is all that there is to match.
type owner struct {
	candidate
	sure bool   // that the pattern matches where its literal occurs
	last bool   // of its literal
	at   uint32 // which pattern
}

// newScanner indexes each pattern by its longest middle part. All must have one.
func newScanner(patterns []pattern) *scanner {
	byLiteral := map[string][]int{}
	for i, p := range patterns {
		l := p.Longest()
		byLiteral[l] = append(byLiteral[l], i)
	}
	literals := slices.Sorted(maps.Keys(byLiteral))
	sc := &scanner{}
	starts := make([]uint32, len(literals))
	for i, l := range literals {
		starts[i] = uint32(len(sc.owners))
		for _, at := range byLiteral[l] {
			sc.owners = append(sc.owners, owner{at: uint32(at), sure: patterns[at].Size == len(l)})
		}
		sc.owners[len(sc.owners)-1].last = true
	}
	sc.literals = glob.NewLiterals(literals, starts)
	return sc
}

// land tells the owners where their patterns lead, which is known last.
func (sc *scanner) land(patterns []pattern) {
	for i := range sc.owners {
		sc.owners[i].candidate = patterns[sc.owners[i].at].candidate
	}
}

// match returns the first of the patterns that matches s, or best if that is
// earlier.
func (sc *scanner) match(patterns []pattern, s string, best candidate) candidate {
	sc.literals.Each(s, func(literal uint32) { best = sc.tryOwners(patterns, literal, s, best) })
	return best
}

func (sc *scanner) tryOwners(patterns []pattern, literal uint32, s string, best candidate) candidate {
	for i := literal; ; i++ {
		o := &sc.owners[i]
		switch {
		case best.order < o.order:
			return best
		case o.sure || patterns[o.at].Match(s):
			return o.candidate
		case o.last:
			return best
		}
	}
}
