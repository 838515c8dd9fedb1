// Package prefix finds the longest of many prefixes with which something begins.
//
// Each look-up takes at most ⌈log₂(n+1)⌉ probes of a hash map, where n is the number
// of different lengths that the prefixes have: 6 for IPv4, 8 for IPv6. The number of
// prefixes does not matter.
package prefix

import (
	"cmp"
	"iter"
	"slices"

	"github.com/distlimiter/ratelimit/internal/background"
)

// Key is something that has prefixes, and a prefix of others.
type Key[K any] interface {
	comparable
	// Len returns the length, in whatever unit.
	Len() int
	// Cut returns the prefix of that length, which is at most Len.
	Cut(length int) K
}

// Table is a set of prefixes. It is immutable and safe for concurrent use.
//
// It is a binary search over the lengths. A prefix that is longer than a length on
// the way to its own leaves a marker there, which tells the search to go on to the
// longer ones, and knows the longest prefix up to there in case that leads to
// nothing. (Waldvogel, Varghese, Turner and Plattner: Scalable High Speed IP Routing
// Lookups, 1997.)
type Table[K Key[K]] struct {
	lengths []int       // ascending
	nodes   map[K]int32 // prefixes and markers: the longest prefix that they begin with
	parents []int32
}

const none = -1

// New returns a table of prefixes, which must be distinct.
func New[K Key[K]](prefixes []K, task *background.Task) *Table[K] {
	t := &Table[K]{nodes: make(map[K]int32, min(len(prefixes), 1000)), parents: make([]int32, len(prefixes))}
	for _, p := range prefixes {
		if i, ok := slices.BinarySearch(t.lengths, p.Len()); !ok {
			t.lengths = slices.Insert(t.lengths, i, p.Len())
		}
		task.Step()
	}
	var markers []K
	for i, p := range prefixes {
		t.nodes[p] = int32(i)
		for lo, hi := 0, len(t.lengths); lo < hi; {
			mid := (lo + hi) / 2
			n := t.lengths[mid]
			if n == p.Len() {
				break
			}
			if n > p.Len() {
				hi = mid
				continue
			}
			lo = mid + 1
			marker := p.Cut(n)
			if _, ok := t.nodes[marker]; !ok {
				t.nodes[marker] = none
				markers = append(markers, marker)
			}
		}
		task.Step()
	}
	// A marker may have been met before the prefix that it is.
	markers = slices.DeleteFunc(markers, func(m K) bool { return t.nodes[m] != none })
	t.link(prefixes, markers, task)
	return t
}

// link tells prefixes and markers what they begin with, the shorter first: what is
// longer is found by way of them.
func (t *Table[K]) link(prefixes, markers []K, task *background.Task) {
	type node struct {
		key    K
		prefix int32 // none: a marker
	}
	nodes := make([]node, 0, len(prefixes)+len(markers))
	for i, p := range prefixes {
		nodes = append(nodes, node{p, int32(i)})
	}
	for _, m := range markers {
		nodes = append(nodes, node{m, none})
	}
	task.Yield()
	slices.SortFunc(nodes, func(a, b node) int {
		task.Step()
		return cmp.Compare(a.key.Len(), b.key.Len())
	})
	for _, n := range nodes {
		longest := t.search(n.key, n.key.Len()-1)
		if n.prefix == none {
			t.nodes[n.key] = longest
		} else {
			t.parents[n.prefix] = longest
		}
		task.Step()
	}
}

// Longest returns the index, as given to New, of the longest prefix with which k
// begins, k itself included; -1 if there is none.
func (t *Table[K]) Longest(k K) int { return int(t.search(k, k.Len())) }

// Parent returns the index of the longest other prefix with which prefix i begins;
// -1 if there is none.
func (t *Table[K]) Parent(i int) int { return int(t.parents[i]) }

// search is Longest among the prefixes of that length at most.
func (t *Table[K]) search(k K, length int) int32 {
	best := int32(none)
	Search(t.lengths, length, func(n int) bool {
		longest, ok := t.nodes[k.Cut(n)]
		if longest != none && ok {
			best = longest
		}
		return ok
	})
	return best
}

// Search is the search of a table with these lengths for something of that length.
// probe reports whether there is a prefix or marker that is the first so many of it.
// The last for which there is one knows the longest prefix.
func Search(lengths []int, length int, probe func(length int) bool) {
	for lo, hi := 0, len(lengths); lo < hi; {
		mid := (lo + hi) / 2
		if n := lengths[mid]; n <= length && probe(n) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
}

// Lengths returns the lengths that prefixes have, in order. They must not be changed.
func (t *Table[K]) Lengths() []int { return t.lengths }

// Nodes returns the prefixes and markers with the index of the longest prefix with
// which each begins, itself included; -1 if there is none. With Lengths it is all
// that [Search] needs in another place.
func (t *Table[K]) Nodes() iter.Seq2[K, int] {
	return func(yield func(K, int) bool) {
		for k, longest := range t.nodes {
			if !yield(k, int(longest)) {
				return
			}
		}
	}
}
