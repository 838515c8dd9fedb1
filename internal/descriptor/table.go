package descriptor

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/distlimiter/ratelimit/internal/background"
)

// table finds the edges of a tree. An edge leads from a place by a text to the place
// below. A domain has one table for its rules and one for its wildcards. Compiled rules
// never change, so the table is a perfect hash (hash and displace): each edge has a slot
// of its own, and a look-up compares only one. There are no chains that grow with the
// rules or that a client could attack.
//
// An edge is addressed by the hash of the whole path to it, which needs no load from
// memory. The text of the edge and the slot of the edge above verify it. So the loads of
// one look-up do not wait for each other, and several cache misses cost little more than
// one.
type table struct {
	pilots  []uint16 // by the first bits of a hash: the displacement that keeps edges apart
	shift   uint     // leaves the first bits of a hash
	records []record // by slot
	texts   []string // by slot
	seed    uint64
}

// record is an edge and its lower end, in one cache line.
type record struct {
	// head is, from the low end, 4 bytes of edgeFrom, 2 bytes of the text's length
	// (at most maxSize), 1 byte of the hash and 1 byte of flags. The hash makes most
	// other edges differ in the first comparison.
	head uint64
	// set is 1 + the index of the wildcards of a key, or of those after a prefix or
	// suffix; 0: none.
	set uint32
	// land is the slot, and order the order, of the pattern that ends with this
	// prefix or suffix; the flags are then that slot's. noOrder: no such pattern.
	// See also isMember and hasRanges.
	land, order uint32
	inline      [inlineSize]byte // the text, if it fits
}

const (
	inlineSize = 44
	maxSize    = 1<<16 - 1
	none       = ^uint32(0) // no slot
)

func (r *record) flags() uint8 { return uint8(r.head >> 56) }

// head is the head of a record without its flags.
func head(way uint64, at uint32, k kind, text string) uint64 {
	return uint64(edgeFrom(at, k)) | uint64(min(len(text), maxSize))<<32 | way>>56<<48
}

// The flags of an edge, or of the slot that a prefixEdge or suffixEdge lands on.
const (
	hasRule   = 1 << iota // limits apply here
	hasLevel              // there are descriptors below
	isNode                // of a key: a descriptor has it and no value
	hasValues             // of a key: descriptors have it and a value without a *
	isOdd                 // of a key: others of its level may match too, see odd.go
	hasRanges             // of a key: land is the index of its ranges
	isMember              // of a value: it is one of a list, and land is the list's slot
)

// kind distinguishes the edges that leave from one place.
type kind uint32

const (
	keyEdge    kind = iota // from a descriptor to those below it, by key
	valueEdge              // from a key, by value
	listEdge               // from a key, by the text of a list of values
	prefixEdge             // from a set of wildcards, by how they start
	suffixEdge             // from a set of wildcards, by how they end
	kinds
)

// fromEdge reports whether such edges leave from the end of another edge.
func (k kind) fromEdge() bool { return k != prefixEdge && k != suffixEdge }

// edgeFrom joins a place and a kind. It is never 0, because 0 marks an empty slot.
func edgeFrom(at uint32, k kind) uint32 { return (at+1)*uint32(kinds) + uint32(k) }

// edge is an edge during compilation; it becomes a record.
type edge struct {
	edgeID
	flags            uint8
	set, land, order uint32
	way              uint64
	node             *node  // at its lower end; nil: none
	level            uint32 // index of the level below that
}

// edgeID identifies an edge by its upper end, kind and text. up is an edge, or a set for a
// prefixEdge or suffixEdge.
type edgeID struct {
	up   int
	kind kind
	text string
}

// Odd constants without pattern (fractions of √2, √3 and √5).
const (
	mixA = 0x6a09e667f3bcc909
	mixB = 0xbb67ae8584caa73b
	mixC = 0x3c6ef372fe94f82b
)

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^mixA, b^mixB)
	return hi ^ lo
}

// hash returns the hash of the path that leads over way and then by text. The seed with
// which way began decides whether two paths collide.
func hash(way uint64, k kind, text string) uint64 {
	n := len(text)
	way += uint64(n*int(kinds)+int(k)) * mixC
	switch {
	case n > 16:
		for i := 0; i < n-16; i += 16 {
			way = mix(way^load64(text, i), load64(text, i+8))
		}
		return mix(way^load64(text, n-16), load64(text, n-8))
	case n >= 8:
		return mix(way^load64(text, 0), load64(text, n-8))
	case n >= 4:
		return mix(way^(load32(text, 0)<<32|load32(text, n-4)), 0)
	case n > 0:
		return mix(way^(uint64(text[0])<<16|uint64(text[n/2])<<8|uint64(text[n-1])), 0)
	}
	return mix(way, 0)
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

// slot returns the slot of the edge at the end of way, if the edge exists.
func (t *table) slot(way uint64) uint32 {
	pilot := uint32(t.pilots[way>>(t.shift&63)])
	x := uint32(way) + pilot*(uint32(way>>32)|1)
	return uint32(uint64(x) * uint64(len(t.records)) >> 32)
}

// find returns the edge at the end of way; nil if there is none.
func (t *table) find(way uint64, at uint32, k kind, text string) (slot uint32, r *record) {
	i := t.slot(way)
	r = &t.records[i]
	if r.head<<8 != head(way, at, k, text)<<8 {
		return none, nil
	}
	if len(text) <= inlineSize {
		if string(r.inline[:len(text)]) != text {
			return none, nil
		}
	} else if t.texts[i] != text {
		return none, nil
	}
	return i, r
}

const perPilot = 4 // edges that share a pilot, on average

// newTable returns a table of the edges, and their slots. The first edge stands for the
// root and has a slot beyond all records.
func newTable(edges []edge, task *background.Task) (t table, slots []uint32) {
	n := len(edges) + len(edges)/8
	t.records = make([]record, n)
	task.Yield()
	t.texts = make([]string, n)
	pilots := 2
	for pilots*perPilot < len(edges) {
		pilots *= 2
	}
	t.pilots, t.shift = make([]uint16, pilots), uint(64-bits.TrailingZeros(uint(pilots)))
	slots = make([]uint32, len(edges))
	slots[rootEdge] = uint32(n)
	for ok := false; !ok; {
		t.seed = mix(t.seed, mixC)
		ok = t.assign(edges, slots, task)
	}
	t.fill(edges, slots, task)
	return t, slots
}

// assign gives the edges their hashes and slots. It fails if two hashes collide; another
// seed changes that.
func (t *table) assign(edges []edge, slots []uint32, task *background.Task) bool {
	edges[rootEdge].way = t.seed
	ends := make([]uint32, len(t.pilots)+1) // of buckets, once all edges are in
	for i := rootEdge + 1; i < len(edges); i++ {
		e := &edges[i]
		way := t.setWay(uint32(e.up))
		if e.kind.fromEdge() {
			way = edges[e.up].way
		}
		e.way = hash(way, e.kind, e.text)
		ends[e.way>>t.shift+1]++
		task.Step()
	}
	for i := 1; i < len(ends); i++ {
		ends[i] += ends[i-1]
	}
	task.Yield()
	order := make([]uint32, len(edges)-1)
	for i := rootEdge + 1; i < len(edges); i++ {
		end := &ends[edges[i].way>>t.shift]
		order[*end] = uint32(i)
		*end++
		task.Step()
	}
	buckets := make([][]uint32, 0, len(t.pilots)) // edges that share a pilot
	for start, i := uint32(0), 0; i < len(t.pilots); i++ {
		if start < ends[i] {
			buckets = append(buckets, order[start:ends[i]])
		}
		start = ends[i]
	}
	// The fullest buckets first, while many slots are free.
	task.Yield()
	slices.SortFunc(buckets, func(a, b []uint32) int {
		task.Step()
		return cmp.Compare(len(b), len(a))
	})
	taken := make([]bool, len(t.records))
	for _, bucket := range buckets {
		if !t.assignBucket(edges, bucket, slots, taken) {
			return false
		}
		task.Step()
	}
	return true
}

// assignBucket finds a pilot that gives each edge of the bucket a free slot.
func (t *table) assignBucket(edges []edge, bucket, slots []uint32, taken []bool) bool {
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

// fill writes the records.
func (t *table) fill(edges []edge, slots []uint32, task *background.Task) {
	for i := rootEdge + 1; i < len(edges); i++ {
		e := &edges[i]
		up := uint32(e.up)
		if e.kind.fromEdge() {
			up = slots[up]
		}
		land, flags := e.land, e.flags
		if e.kind == valueEdge && flags&isMember != 0 {
			land, flags = slots[e.land], edges[e.land].flags|isMember
		}
		r := record{head: head(e.way, up, e.kind, e.text) | uint64(flags)<<56, set: e.set, land: land, order: e.order}
		copy(r.inline[:], e.text)
		t.records[slots[i]], t.texts[slots[i]] = r, e.text
		task.Step()
	}
}

// edges collects the edges of a table, from the root down.
type edges struct {
	list  []edge
	index map[edgeID]int
}

// newEdges makes room for n edges. The map starts small, because it grows in small steps.
func newEdges(n int) edges { return edges{make([]edge, 1, 1+n), make(map[edgeID]int, min(n, 1000))} }

// rootEdge stands for the root of a domain.
const rootEdge = 0

// add returns the index of an edge. It adds the edge if it is new.
func (e *edges) add(up int, k kind, text string) int {
	id := edgeID{up, k, text}
	i, ok := e.index[id]
	if !ok {
		i = len(e.list)
		e.index[id] = i
		e.list = append(e.list, edge{edgeID: id})
	}
	return i
}
