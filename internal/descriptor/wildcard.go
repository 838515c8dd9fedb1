package descriptor

import (
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/match/glob"
)

// pattern is the part of a pattern that still must match.
type pattern struct {
	candidate // while compiling, slot is its edge
	glob.Pattern
}

func newPattern(text string) pattern { return pattern{Pattern: glob.Parse(text)} }

// after returns the part of the pattern after start, with which it must start.
func (p pattern) after(start string) pattern {
	p.Prefix = strings.TrimPrefix(p.Prefix, start)
	p.Size -= len(start)
	return p
}

// before returns the part of the pattern before end, with which it must end.
func (p pattern) before(end string) pattern {
	p.Suffix = strings.TrimSuffix(p.Suffix, end)
	p.Size -= len(end)
	return p
}

// candidate is the target of a pattern that matches. It wins unless an earlier pattern
// matches too.
type candidate struct {
	slot  uint32 // the target
	order uint32 // position among its siblings in the file
	flags uint8  // of the target
}

const noOrder = ^uint32(0) // comes after all

var nothing = candidate{slot: none, order: noOrder}

// landing returns the place that the candidate leads to.
func (d *Domain) landing(c candidate) place {
	p := place{slot: c.slot, flags: c.flags}
	if c.flags&hasLevel != 0 {
		p.way = d.ways[c.slot]
	}
	return p
}

// set finds the first of several patterns that matches. It tries a few patterns one by
// one. Of many it tries only those that share a literal with the text. It splits them by
// their starts, then by their ends, and finds each start and end by its hash. If starts
// and ends are equal, it splits by a middle part. One pass over the text finds all middle
// parts.
type set struct {
	patterns []pattern // by order; the start or end that all share is cut off
	lengths  []length  // by first
	by       kind      // prefixEdge or suffixEdge, if there are lengths
	scan     *scanner
}

// length is a length, in bytes, of starts or ends of patterns.
type length struct {
	size  int
	first uint32 // the least order of a pattern with that length
}

// few is the number of patterns up to which all are tried one by one.
const few = 6

// wildcard returns the first in a set that matches s, or best if that is earlier.
func (d *Domain) wildcard(at uint32, s string, best candidate) candidate {
	w := &d.sets[at]
	switch {
	case w.scan != nil:
		return w.scan.match(w.patterns, s, best)
	case w.lengths == nil:
		return first(w.patterns, s, best)
	}
	way := d.wild.setWay(at)
	for _, l := range w.lengths {
		if best.order < l.first {
			break
		}
		if l.size > len(s) {
			continue
		}
		literal, rest := s[:l.size], s[l.size:]
		if w.by == suffixEdge {
			rest, literal = s[:len(s)-l.size], s[len(s)-l.size:]
		}
		_, r := d.wild.find(hash(way, w.by, literal), at, w.by, literal)
		if r == nil {
			continue
		}
		if r.order < best.order {
			best = candidate{r.land, r.order, r.flags()}
		}
		if r.set != 0 {
			best = d.wildcard(r.set-1, rest, best)
		}
	}
	return best
}

// first returns the first of the patterns that matches s, or best if that is
// earlier.
func first(patterns []pattern, s string, best candidate) candidate {
	for i := range patterns {
		p := &patterns[i]
		if best.order < p.order {
			break
		}
		if p.Match(s) {
			return p.candidate
		}
	}
	return best
}

// setWay returns the start of the hashes of edges that leave a set.
func (t *table) setWay(at uint32) uint64 { return mix(t.seed, uint64(at)) }

// addSet compiles patterns, which are in order, and returns the set's index.
// by is what may tell them apart: prefixEdge, suffixEdge, or kinds when they
// share both.
func (b *builder) addSet(patterns []pattern, by kind) uint32 {
	sets := &b.domain.sets
	at := len(*sets)
	*sets = append(*sets, set{})
	w := set{patterns: patterns, by: by}
	switch {
	case len(patterns) <= few:
	case by == kinds:
		w.scan = newScanner(patterns)
	default:
		w = set{lengths: b.split(at, patterns, by), by: by}
	}
	(*sets)[at] = w
	return uint32(at)
}

// split gives each literal that patterns of a set start (end) with an edge, which
// leads on to what they have after (before) it.
func (b *builder) split(at int, patterns []pattern, by kind) (lengths []length) {
	groups := map[string][]pattern{}
	var literals []string // in order of their first pattern
	for _, p := range patterns {
		literal := p.Prefix
		rest := p.after(literal)
		if by == suffixEdge {
			literal = p.Suffix
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
	next := suffixEdge
	if by == suffixEdge {
		next = kinds
	}
	for _, literal := range literals {
		rest := groups[literal]
		e := b.wild.add(at, by, literal)
		end := edge{edgeID: b.wild.list[e].edgeID, order: noOrder}
		if i := slices.IndexFunc(rest, func(p pattern) bool { return p.Size == 0 }); i >= 0 {
			// Only * is left of it: it hides all later patterns.
			end.land, end.order, end.flags = rest[i].slot, rest[i].order, rest[i].flags
			rest = rest[:i]
		}
		if len(rest) > 0 {
			end.set = 1 + b.addSet(rest, next)
		}
		b.wild.list[e] = end
	}
	return lengths
}
