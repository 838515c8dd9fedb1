package descriptor

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"
)

// table finds the edges of a domain's tree of rules: from a record and a piece
// of text to the record below. As rules never change once compiled, it is a
// perfect hash (hash and displace): every edge has a slot of its own and a
// look-up compares exactly one, so there are no chains that grow with the rules
// or that a client could aim at.
//
// An edge is addressed by the hash of the whole way to it, which needs nothing
// from memory; that it is the right edge is verified by its text and by the slot
// of the edge above. So the loads of one look-up don't wait for each other, and
// one miss of the CPU's caches costs as much as several.
type table struct {
	records []record // by slot; the last is the root
	texts   []string // by slot
	pilots  []uint16 // by the top bits of a hash: which displacement keeps its edges apart
	shift   uint
	seed    maphash.Seed
}

// record is an edge with what is to know of its lower end, in one cache line.
type record struct {
	from   uint32 // the edge above, see edgeFrom
	size   uint32 // of the text
	rule   uint32 // 1 + index of the rule whose limits apply here; 0: no limits
	level  uint32 // 1 + index of the level below; 0: none
	set    uint32 // 1 + index of the wildcards (of a key's values; of a prefix or suffix); 0: none
	flags  uint8
	inline [inlineSize]byte // the text, if it fits
}

const inlineSize = 43

// The flags of a record that a key leads to.
const (
	isNode    = 1 << iota // a descriptor has this key and no value
	hasValues             // descriptors have this key and a value
	isOdd                 // other keys of the level may match too: see odd.go
)

// kind tells apart edges that leave the same place.
type kind uint32

const (
	keyEdge    kind = iota // from a descriptor to those below it, by key
	valueEdge              // from a key, by value
	prefixEdge             // from a set of wildcards, by literal start
	suffixEdge             // from a set of wildcards, by literal end
	kinds
)

// edgeFrom is never 0, which is what empty slots hold.
func edgeFrom(at uint32, k kind) uint32 { return (at+1)*uint32(kinds) + uint32(k) }

const none = ^uint32(0)

// edge is a record on its way into the table.
type edge struct {
	record
	edgeID
	hash uint64
}

// Constants without pattern (fractions of √2 and √3) for mix.
const (
	mixA = 0x6a09e667f3bcc909
	mixB = 0xbb67ae8584caa73b
)

// mix returns the hash of the way that leads over h and then text.
func mix(h uint64, k kind, text uint64) uint64 {
	hi, lo := bits.Mul64(h^mixA, text+uint64(k)^mixB)
	return hi ^ lo
}

func (t *table) hash(h uint64, k kind, text string) uint64 {
	return mix(h, k, maphash.String(t.seed, text))
}

// slot returns where an edge of hash h must be, if it exists.
func (t *table) slot(h uint64) uint32 {
	pilot := uint32(t.pilots[h>>(t.shift&63)])
	x := uint32(h) + pilot*(uint32(h>>32)|1)
	return uint32(uint64(x) * uint64(len(t.records)-1) >> 32)
}

// find returns the record that text leads to, of hash h; none if there is none.
func (t *table) find(h uint64, at uint32, k kind, text string) uint32 {
	i := t.slot(h)
	r := &t.records[i]
	if r.from != edgeFrom(at, k) || int(r.size) != len(text) {
		return none
	}
	if len(text) <= inlineSize {
		if string(r.inline[:len(text)]) != text {
			return none
		}
	} else if t.texts[i] != text {
		return none
	}
	return i
}

const perPilot = 4 // edges that share a pilot, on average

// place makes room for the edges and returns their slots. It fails, by ok, if two
// hashes are too alike.
func (t *table) place(edges []edge) (slots []uint32, ok bool) {
	n := len(edges) + len(edges)/4 + 1
	t.records, t.texts = make([]record, n+1), make([]string, n+1)
	pilots := 2
	for pilots*perPilot < len(edges) {
		pilots *= 2
	}
	t.pilots, t.shift = make([]uint16, pilots), uint(64-bits.TrailingZeros(uint(pilots)))

	order := make([]uint32, len(edges))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Compare(edges[a].hash, edges[b].hash) })
	var buckets [][]uint32 // edges that share a pilot
	for len(order) > 0 {
		size := 1
		for size < len(order) && edges[order[size]].hash>>t.shift == edges[order[0]].hash>>t.shift {
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
	pilot := &t.pilots[edges[bucket[0]].hash>>t.shift]
search:
	for p := range 1 << 16 {
		*pilot = uint16(p)
		for i, e := range bucket {
			s := t.slot(edges[e].hash)
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
