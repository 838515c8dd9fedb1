package descriptor

import (
	"maps"
	"slices"

	"github.com/distlimiter/ratelimit/internal/match/glob"
)

// scanner finds patterns by a literal in their middle.
type scanner struct {
	literals *glob.Literals // the id of each is the index of its first owner
	owners   []owner        // by literal, then by order
}

// owner is a pattern that a literal stands for. It has a copy of the pattern's target,
// because most patterns match wherever their literal occurs, and one pattern among many
// thousands is far away in memory.
type owner struct {
	candidate
	sure bool   // the pattern matches wherever its literal occurs
	last bool   // the last owner of its literal
	at   uint32 // index of the pattern
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

// land sets where the owners' patterns lead, which is known only at the end.
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
