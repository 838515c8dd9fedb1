package descriptor

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
)

// scanner finds patterns by a literal in their middle. It is an Aho–Corasick
// automaton: one pass over the text meets every literal that occurs in it,
// however many there are and however they overlap.
type scanner struct {
	start  [256]uint32 // by first byte: the state after it; 0: still at the start
	states []state     // breadth first, so that the states below one are neighbours
	labels []byte      // by state: the byte that leads to it
	owners []owner     // of each literal in turn, those of one in order
	seen   sync.Pool   // of *seen
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

// seen is a set of literals, each known by its first owner.
type seen struct {
	words []uint64 // a bit for each literal
	set   []uint32 // those words that are not 0
}

// add adds a literal and says whether it was not there yet.
func (s *seen) add(literal uint32) bool {
	word, bit := &s.words[literal/64], uint64(1)<<(literal%64)
	if *word&bit != 0 {
		return false
	}
	if *word == 0 {
		s.set = append(s.set, literal/64)
	}
	*word |= bit
	return true
}

// clear takes as long as there are literals in the set, not as there are in all.
func (s *seen) clear() {
	for _, w := range s.set {
		s.words[w] = 0
	}
	s.set = s.set[:0]
}

// state stands for the start of a literal, or the whole of it.
type state struct {
	first   uint32 // of the states below
	fail    uint32 // the longest other state that ends like this one
	report  uint32 // the nearest of this and those by fail that is a whole literal; 0: none
	literal uint32 // the first owner of that, if it is
	below   uint16 // number of states
	label   byte   // of the first
	dense   bool   // whether the others' labels follow it without a gap, as digits do
}

// newScanner indexes each pattern by its longest middle part. All must have one.
func newScanner(patterns []pattern) *scanner {
	byLiteral := map[string][]int{}
	for i, p := range patterns {
		l := slices.MaxFunc(p.middles, func(a, b string) int { return cmp.Compare(len(a), len(b)) })
		byLiteral[l] = append(byLiteral[l], i)
	}
	literals := make([]string, 0, len(byLiteral))
	for l := range byLiteral {
		literals = append(literals, l)
	}
	slices.Sort(literals)
	sc := &scanner{}
	starts := make([]uint32, len(literals))
	for i, l := range literals {
		starts[i] = uint32(len(sc.owners))
		for _, at := range byLiteral[l] {
			sc.owners = append(sc.owners, owner{at: uint32(at), sure: patterns[at].size == len(l)})
		}
		sc.owners[len(sc.owners)-1].last = true
	}
	words := (len(sc.owners) + 63) / 64
	sc.seen.New = func() any { return &seen{words: make([]uint64, words)} }
	sc.grow(literals, starts)
	sc.link()
	return sc
}

// land tells the owners where their patterns lead, which is known last.
func (sc *scanner) land(patterns []pattern) {
	for i := range sc.owners {
		sc.owners[i].candidate = patterns[sc.owners[i].at].candidate
	}
}

// grow makes the states of sorted literals, whose owners start where it says. Those
// whose own text is a whole literal report it.
func (sc *scanner) grow(literals []string, owners []uint32) {
	type run struct{ from, to, depth int } // of literals that begin with a state's text
	runs := []run{{0, len(literals), 0}}
	sc.labels = []byte{0}
	for s := 0; s < len(runs); s++ {
		r, st := runs[s], state{first: uint32(len(runs))}
		if len(literals[r.from]) == r.depth {
			st.report, st.literal = uint32(s), owners[r.from]
			r.from++
		}
		for r.from < r.to {
			c := literals[r.from][r.depth]
			to := r.from + 1
			for to < r.to && literals[to][r.depth] == c {
				to++
			}
			runs, sc.labels = append(runs, run{r.from, to, r.depth + 1}), append(sc.labels, c)
			st.below++
			r.from = to
		}
		if st.below > 0 {
			st.label = sc.labels[st.first]
			st.dense = int(sc.labels[len(sc.labels)-1]-st.label) == int(st.below)-1
		}
		sc.states = append(sc.states, st)
	}
	root := sc.states[0]
	for i := range uint32(root.below) {
		sc.start[sc.labels[root.first+i]] = root.first + i
	}
}

// link sets where states fail and what they report, the shorter before the
// longer, which rely on them.
func (sc *scanner) link() {
	for s, st := range sc.states {
		for i := range uint32(st.below) {
			below := &sc.states[st.first+i]
			if s != 0 {
				below.fail = sc.step(st.fail, sc.labels[st.first+i])
			}
			if below.report == 0 {
				below.report = sc.states[below.fail].report
			}
		}
	}
}

// step returns the state after c.
func (sc *scanner) step(s uint32, c byte) uint32 {
	for s != 0 {
		st := &sc.states[s]
		if st.dense {
			if i := c - st.label; uint16(i) < st.below {
				return st.first + uint32(i)
			}
		} else if st.below > 0 {
			if i := bytes.IndexByte(sc.labels[st.first:st.first+uint32(st.below)], c); i >= 0 {
				return st.first + uint32(i)
			}
		}
		s = st.fail
	}
	return sc.start[c]
}

// match returns the first of the patterns that matches s, or best if that is
// earlier.
func (sc *scanner) match(patterns []pattern, s string, best candidate) candidate {
	// A literal may occur at every byte of s: its patterns are tried once. Mostly
	// there is just one, which is remembered at no cost.
	first := none
	var others *seen
	at := uint32(0)
	for i := range len(s) {
		if at == 0 {
			if at = sc.start[s[i]]; at == 0 {
				continue
			}
		} else {
			at = sc.step(at, s[i])
		}
		for hit := sc.states[at].report; hit != 0; hit = sc.states[sc.states[hit].fail].report {
			l := sc.states[hit].literal
			if first == none {
				first = l
			} else {
				if l != first && others == nil {
					others = sc.seen.Get().(*seen)
				}
				if l == first || !others.add(l) {
					break // and so have been the literals that it ends with
				}
			}
			best = sc.tryOwners(patterns, l, s, best)
		}
	}
	if others != nil {
		others.clear()
		sc.seen.Put(others)
	}
	return best
}

func (sc *scanner) tryOwners(patterns []pattern, literal uint32, s string, best candidate) candidate {
	for i := literal; ; i++ {
		o := &sc.owners[i]
		switch {
		case best.order < o.order:
			return best
		case o.sure || patterns[o.at].match(s):
			return o.candidate
		case o.last:
			return best
		}
	}
}
