// Package prefix finds the longest of many prefixes of a key.
//
// Each look-up takes at most ⌈log₂(n+1)⌉ probes of a hash map, where n is the number of
// distinct lengths of the prefixes: at most 6 probes for IPv4 and 8 for IPv6. The number
// of prefixes does not matter.
package prefix

import (
	"cmp"
	"iter"
	"slices"

	"github.com/distlimiter/ratelimit/internal/background"
)

// Key is a key that can be cut to its prefixes, which are keys too.
type Key[K any] interface {
	comparable
	// Len returns the length, in any unit.
	Len() int
	// Cut returns the prefix of that length, which is at most Len.
	Cut(length int) K
}

// Table is a set of prefixes. It is immutable and safe for concurrent use.
//
// The look-up is a binary search over the lengths. For each shorter length that the search
// tries on the way to a prefix, the table has a marker. It sends the search on to longer
// lengths. It also knows the longest prefix up to its length, in case the search finds
// nothing longer. (Waldvogel, Varghese, Turner and Plattner: Scalable High Speed IP
// Routing Lookups, 1997.)
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
	// A marker may have been added before a prefix with the same text.
	markers = slices.DeleteFunc(markers, func(m K) bool { return t.nodes[m] != none })
	t.link(prefixes, markers, task)
	return t
}

// link sets the longest prefix of each prefix and marker. It goes from the shorter to the
// longer, because it finds the longer by way of the shorter.
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

// Longest returns the index, as given to New, of the longest prefix of k, k itself
// included; -1 if there is none.
func (t *Table[K]) Longest(k K) int { return int(t.search(k, k.Len())) }

// Parent returns the index of the longest other prefix of prefix i; -1 if there is none.
func (t *Table[K]) Parent(i int) int { return int(t.parents[i]) }

// search does the same as Longest, among the prefixes of at most that length.
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

// Search searches a table with these lengths for a key of that length. probe reports
// whether the table has a prefix or marker that equals the key cut to length. The last one
// that it has knows the longest prefix.
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

// Lengths returns the lengths of the prefixes, in order. The caller must not change them.
func (t *Table[K]) Lengths() []int { return t.lengths }

// Nodes returns the prefixes and markers, each with the index of its longest prefix,
// itself included; -1 if there is none. Nodes and Lengths are all that [Search] needs to
// search a copy of the table elsewhere.
func (t *Table[K]) Nodes() iter.Seq2[K, int] {
	return func(yield func(K, int) bool) {
		for k, longest := range t.nodes {
			if !yield(k, int(longest)) {
				return
			}
		}
	}
}
