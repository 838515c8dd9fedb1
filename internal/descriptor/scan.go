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
//
// States are numbered breadth first, so that the states below one are
// neighbours: below s lie first[s] to first[s+1], one for each byte in labels.
type scanner struct {
	first  []uint32
	labels []byte   // by state: the byte that leads to it
	fail   []uint32 // by state: the longest other state that ends the same text
	report []uint32 // by state: the nearest state, by fail and including itself, that ends a literal; 0: none
	owners [][]int  // by state that ends a literal: the patterns it stands for, in order
	number []uint32 // by state that ends a literal: a dense number for it
	seen   sync.Pool
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
	words := (len(literals) + 63) / 64
	sc.seen.New = func() any { s := make([]uint64, words); return &s }

	// A state is the run of sorted literals that begin with its text.
	type run struct{ from, to, depth int }
	runs := []run{{0, len(literals), 0}}
	sc.labels = []byte{0}
	for s := 0; s < len(runs); s++ {
		r := runs[s]
		sc.first = append(sc.first, uint32(len(runs)))
		var owners []int
		number := uint32(r.from)
		if len(literals[r.from]) == r.depth {
			owners = byLiteral[literals[r.from]]
			r.from++
		}
		sc.owners, sc.number = append(sc.owners, owners), append(sc.number, number)
		for r.from < r.to {
			c := literals[r.from][r.depth]
			to := r.from + 1
			for to < r.to && literals[to][r.depth] == c {
				to++
			}
			runs = append(runs, run{r.from, to, r.depth + 1})
			sc.labels = append(sc.labels, c)
			r.from = to
		}
	}
	sc.first = append(sc.first, uint32(len(runs)))

	sc.fail, sc.report = make([]uint32, len(runs)), make([]uint32, len(runs))
	for s := range uint32(len(runs)) {
		for below := sc.first[s]; below < sc.first[s+1]; below++ {
			if s != 0 {
				sc.fail[below] = sc.step(sc.fail[s], sc.labels[below])
			}
			sc.report[below] = below
			if sc.owners[below] == nil {
				sc.report[below] = sc.report[sc.fail[below]]
			}
		}
	}
	return sc
}

// step returns the state after c.
func (sc *scanner) step(s uint32, c byte) uint32 {
	for {
		from, to := sc.first[s], sc.first[s+1]
		if i := bytes.IndexByte(sc.labels[from:to], c); i >= 0 {
			return from + uint32(i)
		}
		if s == 0 {
			return 0
		}
		s = sc.fail[s]
	}
}

// match returns the first of the patterns that matches s, or best if that is
// earlier.
func (sc *scanner) match(patterns []pattern, s string, best candidate) candidate {
	// A literal may occur at every byte of s: its patterns are tried but once.
	seen := sc.seen.Get().(*[]uint64)
	clear(*seen)
	state := uint32(0)
	for i := range len(s) {
		state = sc.step(state, s[i])
		for hit := sc.report[state]; hit != 0; hit = sc.report[sc.fail[hit]] {
			word, bit := &(*seen)[sc.number[hit]/64], uint64(1)<<(sc.number[hit]%64)
			if *word&bit != 0 {
				break // and so has been what it ends with
			}
			*word |= bit
			for _, o := range sc.owners[hit] {
				p := &patterns[o]
				if best.order < p.order {
					break
				}
				if p.match(s) {
					best = candidate{p.record, p.order}
					break
				}
			}
		}
	}
	sc.seen.Put(seen)
	return best
}
