package descriptor

import (
	"slices"
	"strings"
)

// pattern is a text in which each * stands for zero or more characters.
type pattern struct {
	order  uint32 // place among its siblings in the file
	record uint32 // where it leads (while compiling: its edge) …
	hash   uint64 // … and the hash of the way there

	prefix, suffix string   // before the first * and after the last
	middles        []string // between them, in order, none empty
	size           int      // the fewest bytes that match
}

func newPattern(text string) pattern {
	parts := strings.Split(text, "*")
	last := len(parts) - 1
	p := pattern{prefix: parts[0], suffix: parts[last], size: len(text) - last}
	for _, part := range parts[1:last] {
		if part != "" {
			p.middles = append(p.middles, part)
		}
	}
	return p
}

// match takes each part at the first place where it fits. A later place never
// lets more of the rest match, so there is no going back.
func (p *pattern) match(s string) bool {
	if len(s) < p.size || !strings.HasPrefix(s, p.prefix) || !strings.HasSuffix(s, p.suffix) {
		return false
	}
	s = s[len(p.prefix) : len(s)-len(p.suffix)]
	for _, m := range p.middles {
		i := strings.Index(s, m)
		if i < 0 {
			return false
		}
		s = s[i+len(m):]
	}
	return true
}

// after returns what of the pattern is to match after start, with which it starts.
func (p pattern) after(start string) pattern {
	p.prefix = strings.TrimPrefix(p.prefix, start)
	p.size -= len(start)
	return p
}

// before returns what of the pattern is to match before end, with which it ends.
func (p pattern) before(end string) pattern {
	p.suffix = strings.TrimSuffix(p.suffix, end)
	p.size -= len(end)
	return p
}

// set finds the first of several patterns that matches. A few are tried one by
// one. Of many only those are that share a literal with the text: they are
// split by their starts, then by their ends, each found by its hash, and what is
// alike in both by a part in the middle, all of which one pass over the text
// finds.
type set struct {
	patterns []pattern // by order; what all have in common is cut off
	all      *pattern  // after them, one that matches everything; nil: none
	by       kind      // prefixEdge or suffixEdge, if there are lengths
	lengths  []length  // by first
	scan     *scanner
}

// length is a number of bytes that starts or ends of patterns have.
type length struct {
	size  int
	first uint32 // the least order of such a pattern
}

// few is how many patterns are tried one by one.
const few = 6

// wildcard returns the first in the set that matches s, or best if that is
// earlier. best may be nil.
func (d *Domain) wildcard(at uint32, s string, best *pattern) *pattern {
	w := &d.sets[at]
	if w.all != nil && (best == nil || w.all.order < best.order) {
		best = w.all
	}
	if w.scan != nil {
		return w.scan.match(w.patterns, s, best)
	}
	if w.lengths == nil {
		for i := range w.patterns {
			p := &w.patterns[i]
			if best != nil && best.order < p.order {
				break
			}
			if p.match(s) {
				return p
			}
		}
		return best
	}
	for _, l := range w.lengths {
		if best != nil && best.order < l.first {
			break
		}
		if l.size > len(s) {
			continue
		}
		literal, rest := s[:l.size], s[l.size:]
		if w.by == suffixEdge {
			rest, literal = s[:len(s)-l.size], s[len(s)-l.size:]
		}
		if i := d.find(d.hash(setHash(at), w.by, literal), at, w.by, literal); i != none {
			best = d.wildcard(d.records[i].set-1, rest, best)
		}
	}
	return best
}

// setHash is the base of the hashes of edges that leave a set.
func setHash(at uint32) uint64 { return mix(uint64(at), kinds, 0) }

// land completes where the patterns lead: from edges to records.
func (w *set) land(at func(edge uint32) (record uint32, hash uint64)) {
	for i := range w.patterns {
		w.patterns[i].record, w.patterns[i].hash = at(w.patterns[i].record)
	}
	if w.all != nil {
		w.all.record, w.all.hash = at(w.all.record)
	}
}

// addSet compiles patterns, which are in order, and returns the set's index.
// by is what may tell them apart: prefixEdge, suffixEdge, or kinds when they
// share both.
func (b *builder) addSet(patterns []pattern, by kind) uint32 {
	sets := &b.domain.sets
	at := len(*sets)
	w := set{patterns: patterns, by: by}
	if i := slices.IndexFunc(patterns, func(p pattern) bool { return p.size == 0 }); i >= 0 {
		// It matches everything: what comes after is never reached.
		w.patterns, w.all = patterns[:i], &patterns[i]
	}
	*sets = append(*sets, set{})
	if len(w.patterns) > few {
		if by == kinds {
			w.scan = newScanner(w.patterns)
		} else {
			w.lengths = b.split(at, w.patterns, by)
			w.patterns = nil
		}
	}
	(*sets)[at] = w
	return uint32(at)
}

// split gives each literal that patterns of a set start (end) with a set of its
// own.
func (b *builder) split(at int, patterns []pattern, by kind) (lengths []length) {
	next := suffixEdge
	if by == suffixEdge {
		next = kinds
	}
	groups := map[string][]pattern{}
	var literals []string // in order of their first pattern
	for _, p := range patterns {
		literal := p.prefix
		rest := p.after(literal)
		if by == suffixEdge {
			literal = p.suffix
			rest = p.before(literal)
		}
		if groups[literal] == nil {
			literals = append(literals, literal)
			if !slices.ContainsFunc(lengths, func(l length) bool { return l.size == len(literal) }) {
				lengths = append(lengths, length{len(literal), p.order})
			}
		}
		groups[literal] = append(groups[literal], rest)
	}
	for _, literal := range literals {
		e := b.edge(at, by, literal)
		set := 1 + b.addSet(groups[literal], next)
		b.edges[e].set = set
	}
	return lengths
}
