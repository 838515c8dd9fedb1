package glob

import (
	"bytes"
	"slices"
	"sync"
)

// Literals finds the literals that occur in a text. It is an Aho–Corasick automaton: one
// pass over the text finds every literal in it, even if they are many or overlap. It is
// immutable and safe for concurrent use.
type Literals struct {
	start  [256]uint32 // by first byte: the state after it; 0: still at the start
	states []state     // breadth first, so that the states below one are neighbours
	labels []byte      // by state: the byte that leads to it
	seen   sync.Pool   // of *seen
}

// NewLiterals returns an automaton for literals, which must be sorted, distinct
// and not empty. Literal i is reported as ids[i], and ids must be distinct.
func NewLiterals(literals []string, ids []uint32) *Literals {
	l := &Literals{}
	words := slices.Max(ids)/64 + 1
	l.seen.New = func() any { return &seen{words: make([]uint64, words)} }
	l.grow(literals, ids)
	l.link()
	return l
}

// Each calls found once with the id of each literal that occurs in s.
func (l *Literals) Each(s string, found func(id uint32)) {
	// A literal may occur at every byte of s, but mostly only one does. It is
	// remembered without a set.
	first, met := uint32(0), false
	var others *seen
	at := uint32(0)
	for i := range len(s) {
		if at == 0 {
			if at = l.start[s[i]]; at == 0 {
				continue
			}
		} else {
			at = l.step(at, s[i])
		}
		for hit := l.states[at].report; hit != 0; hit = l.states[l.states[hit].fail].report {
			id := l.states[hit].literal
			if !met {
				first, met = id, true
			} else {
				if id != first && others == nil {
					others = l.seen.Get().(*seen)
				}
				if id == first || !others.add(id) {
					break // and so have been the literals that it ends with
				}
			}
			found(id)
		}
	}
	if others != nil {
		others.clear()
		l.seen.Put(others)
	}
}

// seen is a set of literals, each known by its id.
type seen struct {
	words []uint64 // a bit for each literal
	set   []uint32 // those words that are not 0
}

// add adds a literal and reports whether it is new.
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

// clear empties the set, in time proportional to the literals in the set, not to all.
func (s *seen) clear() {
	for _, w := range s.set {
		s.words[w] = 0
	}
	s.set = s.set[:0]
}

// state stands for the start of a literal, or the whole of it.
type state struct {
	first   uint32 // first of the states below
	fail    uint32 // the state of the longest proper suffix of this one's text
	report  uint32 // the first whole literal on the way over fail, from this state on; 0: none
	literal uint32 // the id, if this state is a whole literal
	below   uint16 // number of states below
	label   byte   // of first
	dense   bool   // the other labels follow label without a gap, as digits do
}

// grow makes the states of sorted literals. Those whose own text is a whole
// literal report it.
func (l *Literals) grow(literals []string, ids []uint32) {
	type run struct{ from, to, depth int } // of literals that begin with a state's text
	runs := []run{{0, len(literals), 0}}
	l.labels = []byte{0}
	for s := 0; s < len(runs); s++ {
		r, st := runs[s], state{first: uint32(len(runs))}
		if len(literals[r.from]) == r.depth {
			st.report, st.literal = uint32(s), ids[r.from]
			r.from++
		}
		for r.from < r.to {
			c := literals[r.from][r.depth]
			to := r.from + 1
			for to < r.to && literals[to][r.depth] == c {
				to++
			}
			runs, l.labels = append(runs, run{r.from, to, r.depth + 1}), append(l.labels, c)
			st.below++
			r.from = to
		}
		if st.below > 0 {
			st.label = l.labels[st.first]
			st.dense = int(l.labels[len(l.labels)-1]-st.label) == int(st.below)-1
		}
		l.states = append(l.states, st)
	}
	root := l.states[0]
	for i := range uint32(root.below) {
		l.start[l.labels[root.first+i]] = root.first + i
	}
}

// link sets fail and report of each state. It goes from shorter states to longer ones,
// which depend on the shorter.
func (l *Literals) link() {
	for s, st := range l.states {
		for i := range uint32(st.below) {
			below := &l.states[st.first+i]
			if s != 0 {
				below.fail = l.step(st.fail, l.labels[st.first+i])
			}
			if below.report == 0 {
				below.report = l.states[below.fail].report
			}
		}
	}
}

// step returns the state after c.
func (l *Literals) step(s uint32, c byte) uint32 {
	for s != 0 {
		st := &l.states[s]
		if st.dense {
			if i := c - st.label; uint16(i) < st.below {
				return st.first + uint32(i)
			}
		} else if st.below > 0 {
			if i := bytes.IndexByte(l.labels[st.first:st.first+uint32(st.below)], c); i >= 0 {
				return st.first + uint32(i)
			}
		}
		s = st.fail
	}
	return l.start[c]
}
