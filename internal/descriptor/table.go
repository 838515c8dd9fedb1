package descriptor

import (
	"cmp"
	"math/bits"
	"slices"
)

// table finds the edges of a domain's tree of rules: from a record and a piece
// of text to the record below. As rules never change once compiled, it is a
// perfect hash (hash and displace): each edge has a slot of its own and a
// look-up compares just one, so there are no chains that grow with the rules or
// that a client could aim at.
//
// An edge is addressed by the hash of the whole way to it, which takes nothing
// from memory; that it is the right edge is verified by its text and by the slot
// of the edge above. So the loads of a look-up do not wait for each other, and
// several misses of the CPU's caches cost little more than one.
type table struct {
	records []record // by slot; the last is the root
	texts   []string // by slot
	ways    []uint64 // by slot: the hash of the way there
	pilots  []uint16 // by the first bits of a hash: the displacement that keeps edges apart
	shift   uint
	seed    uint64
}

// record is an edge with what is to know of its lower end, in one cache line.
type record struct {
	from   uint32 // the edge above and the kind, see edgeFrom
	tag    uint32 // of the hash, so that other edges differ at the first glance
	level  uint32 // 1 + index of the level below; 0: none
	set    uint32 // 1 + index of the wildcards of a key, or after a prefix or suffix; 0: none
	land   uint32 // prefixEdge, suffixEdge: record of the pattern of which nothing is left …
	order  uint32 // … and its order; noOrder: there is none
	size   uint16 // of the text, at most maxSize
	flags  uint8
	inline [inlineSize]byte // the text, if it fits
}

const (
	inlineSize = 37
	maxSize    = 1<<16 - 1
	none       = ^uint32(0) // no record
)

// The flags of a record.
const (
	hasRule   = 1 << iota // limits apply here
	isNode                // of a key: a descriptor has it and no value
	hasValues             // of a key: descriptors have it and a value
	isOdd                 // of a key: others of its level may match too, see odd.go
)

// kind tells apart the edges that leave from one place.
type kind uint32

const (
	keyEdge    kind = iota // from a descriptor to those below it, by key
	valueEdge              // from a key, by value
	prefixEdge             // from a set of wildcards, by how they start
	suffixEdge             // from a set of wildcards, by how they end
	kinds
)

// edgeFrom is never 0, which is what empty slots hold.
func edgeFrom(at uint32, k kind) uint32 { return (at+1)*uint32(kinds) + uint32(k) }

// edge is a record on its way into the table.
type edge struct {
	record
	edgeID
	way uint64
}

// Constants without pattern (fractions of √2 and √3).
const (
	mixA = 0x6a09e667f3bcc909
	mixB = 0xbb67ae8584caa73b
)

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^mixA, b^mixB)
	return hi ^ lo
}

// hash returns the hash of the way that leads over way and then by text. Two
// that are alike cost nothing but another seed, when rules are compiled.
func hash(way uint64, k kind, text string) uint64 {
	n := len(text)
	b := uint64(n)<<2 | uint64(k)
	switch {
	case n > 16:
		for i := 0; i < n-16; i += 16 {
			way = mix(way^load64(text, i), load64(text, i+8))
		}
		return mix(way^load64(text, n-16), b^load64(text, n-8))
	case n >= 8:
		return mix(way^load64(text, 0), b^load64(text, n-8))
	case n >= 4:
		return mix(way^(load32(text, 0)<<32|load32(text, n-4)), b)
	case n > 0:
		return mix(way^(uint64(text[0])<<16|uint64(text[n/2])<<8|uint64(text[n-1])), b)
	}
	return mix(way, b)
}

func load32(s string, i int) uint64 {
	s = s[i : i+4]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
}

func load64(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// slot returns where the edge at the end of way must be, if it exists.
func (t *table) slot(way uint64) uint32 {
	pilot := uint32(t.pilots[way>>(t.shift&63)])
	x := uint32(way) + pilot*(uint32(way>>32)|1)
	return uint32(uint64(x) * uint64(len(t.records)-1) >> 32)
}

// find returns the record to which an edge leads at the end of way; none if
// there is no such edge.
func (t *table) find(way uint64, at uint32, k kind, text string) uint32 {
	i := t.slot(way)
	r := &t.records[i]
	if (r.from^edgeFrom(at, k))|(r.tag^uint32(way>>16)) != 0 {
		return none
	}
	if len(text) <= inlineSize {
		if int(r.size) != len(text) || string(r.inline[:len(text)]) != text {
			return none
		}
	} else if t.texts[i] != text {
		return none
	}
	return i
}

const perPilot = 4 // edges that share a pilot, on average

// place gives each edge a slot. It fails if the ways of two are too alike.
func (t *table) place(edges []edge) (slots []uint32, ok bool) {
	n := len(edges) + len(edges)/4 + 1
	t.records, t.texts, t.ways = make([]record, n+1), make([]string, n+1), make([]uint64, n+1)
	pilots := 2
	for pilots*perPilot < len(edges) {
		pilots *= 2
	}
	t.pilots, t.shift = make([]uint16, pilots), uint(64-bits.TrailingZeros(uint(pilots)))

	order := make([]uint32, len(edges))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Compare(edges[a].way, edges[b].way) })
	var buckets [][]uint32 // edges that share a pilot
	for len(order) > 0 {
		size := 1
		for size < len(order) && edges[order[size]].way>>t.shift == edges[order[0]].way>>t.shift {
			size++
		}
		buckets = append(buckets, order[:size])
		order = order[size:]
	}
	// The fullest first, while there is room to choose from.
	slices.SortFunc(buckets, func(a, b []uint32) int { return cmp.Compare(len(b), len(a)) })
	taken := make([]bool, n)
	slots = make([]uint32, len(edges))
	for _, bucket := range buckets {
		if !t.settle(edges, bucket, slots, taken) {
			return nil, false
		}
	}
	return slots, true
}

// settle finds a pilot that gives each edge of the bucket a free slot.
func (t *table) settle(edges []edge, bucket, slots []uint32, taken []bool) bool {
	pilot := &t.pilots[edges[bucket[0]].way>>t.shift]
search:
	for p := range 1 << 16 {
		*pilot = uint16(p)
		for i, e := range bucket {
			s := t.slot(edges[e].way)
			if taken[s] {
				for _, e := range bucket[:i] {
					taken[slots[e]] = false
				}
				continue search
			}
			taken[s], slots[e] = true, s
		}
		return true
	}
	return false
}
