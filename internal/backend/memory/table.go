package memory

import (
	"bytes"
	"math"
	"math/bits"
	"unsafe"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// table holds the records of one length. It is an extendible hash table: a directory,
// indexed by the leading bits of the hash, of small pages. It grows by splitting one
// page in two, which takes microseconds, whatever the number of keys.
//
// A look-up costs two memory accesses. The first is to a page with its tags: for a
// million keys the pages are small enough to stay in a cache. The second is to the
// record.
type table struct {
	words     int  // of a record
	shift     uint // a block holds 1<<shift records
	directory []*page
	depth     uint // len(directory) is 1<<depth
	records   int
	pages     int
	blocks    int
	hand      hand

	logWords int // of its records' states in shard.logs

	place int       // in shard.tables
	turns [2]uint64 // when its turn comes in each walk over the shard
}

// page holds all records of the table whose hashes begin with the same depth
// bits, in no order and without gaps.
type page struct {
	used   int
	tags   [pageRecords / 8]uint64 // a byte of each record's hash
	blocks [pageBlocks]*uint64     // the records; blocks are allocated as records are added
	depth  uint
}

const (
	pageBlocks  = 8
	pageRecords = 64 // at most: a page of long records has shorter blocks
	blockWords  = 512
	// maxDepth bounds the directory.
	maxDepth = 22
)

// hand is the position of a walk over a table: the page for a hash, and the number of
// steps taken in that page. Pages may come and go meanwhile.
type hand struct {
	hash uint64 // below 1<<32
	step int
}

// entry locates a key: its record's number in a page, or -1 if the key is not kept.
// It is valid until a record is added or removed.
type entry struct {
	table *table
	page  *page
	i     int
}

func (e entry) kept() bool     { return e.i >= 0 }
func (e entry) record() record { return e.table.record(e.page, e.i) }

var nowhere = entry{i: -1}

// record is the memory of one counter:
//
//	word 0  the expiry in µs since the epoch and, in the low byte, the rank
//	word 1  half of the hash; in a byte, the length of the state in words; in
//	        the low 24 bits, the length of the key in bytes
//	then    the state, and room for it
//	last    the key, padded to whole words
//
// So head and state mostly share a cache line, and the position of the key follows
// from its length: no access has to wait for another to find its address.
type record []uint64

const (
	headWords = 2
	rankBits  = 8
	keyBits   = 24
	maxKey    = 1<<keyBits - 1
	// inlineLog is the room in the record for a log, in words. It holds a log of up
	// to 4 hits; a longer log moves to shard.logs.
	inlineLog = 6
	// elsewhere stands for the length of a state that is in shard.logs. The record
	// then holds its number.
	elsewhere = 1<<8 - 1
)

// pinned is word 0 of a record that must stay: it never expires, and it is the last in
// the order of eviction.
const pinned = math.MaxUint64

func keyWords(keyLen int) int { return (keyLen + 7) / 8 }

func (r record) mark(expiry int64, k rank) { r[0] = uint64(expiry)<<rankBits | uint64(k) }
func (r record) expiry() int64             { return int64(r[0] >> rankBits) }
func (r record) rank() rank                { return rank(r[0]) }
func (r record) hash() uint32              { return uint32(r[1] >> 32) }
func (r record) keyLen() int               { return int(r[1] & maxKey) }
func (r record) stateWords() int           { return int(uint8(r[1] >> keyBits)) }

func (r record) isElsewhere() bool   { return r.stateWords() == elsewhere }
func (r record) setStateWords(n int) { r[1] = r[1]&^(elsewhere<<keyBits) | uint64(n)<<keyBits }

// key, state and log return the record's own memory.
func (r record) key() []byte        { return r.keyOf(r.keyLen()) }
func (r record) keyOf(n int) []byte { return bytesOf(r[len(r)-keyWords(n):], n) }
func (r record) log() *uint64       { return &r[headWords] }
func (r record) room() int          { return len(r) - headWords - keyWords(r.keyLen()) }
func (r record) state() algo.State {
	to := headWords + r.stateWords()
	return algo.State(r[headWords:to:to])
}

// order is the order of eviction: the key with more left goes first; among equals, the
// one that expires first.
func (r record) order() uint64 { return bits.RotateLeft64(r[0], -rankBits) }

// leastOrder returns the least order that a key of rank k can have.
func (k rank) leastOrder() uint64 { return uint64(k) << (64 - rankBits) }

// bytesOf returns the first n bytes of words.
func bytesOf(words []uint64, n int) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n)
}

// roundWords rounds the length of a record up to a length that has a table: all lengths
// up to 16 words, then 8 for each power of two. This bounds the number of tables.
func roundWords(n int) int {
	if n <= 16 {
		return n
	}
	step := 1 << (bits.Len(uint(n-1)) - 4)
	return (n + step - 1) &^ (step - 1)
}

func newTable(words int) *table {
	return &table{
		words:     words,
		shift:     uint(bits.Len(uint(min(max(blockWords/words, 1), pageRecords/pageBlocks))) - 1),
		directory: []*page{new(page)},
		pages:     1,
	}
}

// most returns how many records a page can hold.
func (t *table) most() int { return pageBlocks << t.shift }

func (t *table) page(hash uint32) *page { return t.directory[hash>>(32-t.depth)] }

// record returns the i-th record of a page.
func (t *table) record(p *page, i int) record {
	block := unsafe.Slice(p.blocks[i>>t.shift], t.words<<t.shift)
	from := i & (1<<t.shift - 1) * t.words
	to := from + t.words
	return record(block[from:to:to])
}

// find returns the entry of the key.
func (t *table) find(hash uint32, key []byte) entry {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	p := t.page(hash)
	want := uint64(uint8(hash)) * ones
	for w := 0; w*8 < p.used; w++ {
		// A byte of diff is 0 where the tag is the wanted one. The lowest such byte
		// has its top bit set in equal. Higher bits may be false positives, and so
		// may equal tags: is decides.
		diff := p.tags[w] ^ want
		for equal := (diff - ones) &^ diff & tops; equal != 0; equal &= equal - 1 {
			i := w*8 + bits.TrailingZeros64(equal)/8
			if i < p.used && t.is(p, i, hash, key) {
				return entry{t, p, i}
			}
		}
	}
	return nowhere
}

func (t *table) is(p *page, i int, hash uint32, key []byte) bool {
	r := t.record(p, i)
	return r.hash() == hash && r.keyLen() == len(key) && bytes.Equal(r.keyOf(len(key)), key)
}

func (p *page) setTag(i int, tag uint8) {
	shift := i % 8 * 8
	p.tags[i/8] = p.tags[i/8]&^(0xff<<shift) | uint64(tag)<<shift
}

// add adds a record of the key, without a state. It returns nowhere only if a full
// page cannot be split because the hashes of its keys are equal.
func (t *table) add(hash uint32, key []byte) entry {
	p := t.page(hash)
	for p.used == t.most() {
		if p.depth == maxDepth {
			return nowhere
		}
		t.split(p, hash)
		p = t.page(hash)
	}
	t.records++
	r := t.append(p, hash)
	r[1] = uint64(hash)<<32 | uint64(len(key))
	copy(r.key(), key)
	return entry{t, p, p.used - 1}
}

// append returns a new record of the page.
func (t *table) append(p *page, hash uint32) record {
	if block := &p.blocks[p.used>>t.shift]; *block == nil {
		*block = unsafe.SliceData(make([]uint64, t.words<<t.shift))
		t.blocks++
	}
	p.setTag(p.used, uint8(hash))
	p.used++
	return t.record(p, p.used-1)
}

// remove removes a record.
func (t *table) remove(p *page, i int) {
	hash := t.record(p, i).hash()
	t.records--
	t.cut(p, i)
	if p.used <= t.most()/4 {
		t.merge(p, hash)
	}
}

// cut takes a record out of its page. The last record moves to its position.
func (t *table) cut(p *page, i int) {
	p.used--
	if i < p.used {
		last := t.record(p, p.used)
		copy(t.record(p, i), last)
		p.setTag(i, uint8(last.hash()))
	}
	// A block is freed only when the one before it is half empty too. Otherwise a
	// single record that comes and goes could allocate and free a block each time.
	half := 1 << t.shift / 2
	if free := (p.used+half-1)>>t.shift + 1; free < pageBlocks && p.blocks[free] != nil {
		p.blocks[free] = nil
		t.blocks--
	}
}

// split moves the records of one half of the page's hashes to a new page.
func (t *table) split(p *page, hash uint32) {
	if p.depth == t.depth {
		wider := make([]*page, 2*len(t.directory))
		for i := range wider {
			wider[i] = t.directory[i/2]
		}
		t.directory = wider
		t.depth++
	}
	first, n := t.span(hash, p.depth)
	p.depth++
	high := &page{depth: p.depth}
	t.pages++
	for i := p.used - 1; i >= 0; i-- {
		if r := t.record(p, i); r.hash()<<(p.depth-1)>>31 == 1 {
			copy(t.append(high, r.hash()), r)
			t.cut(p, i)
		}
	}
	t.assign(first+n/2, n/2, high)
}

// merge joins a page with its other half if both hold little.
func (t *table) merge(p *page, hash uint32) {
	if p.depth == 0 {
		return
	}
	other := t.page(hash ^ 1<<(32-p.depth))
	if other.depth != p.depth || other.used > t.most()/4 {
		return
	}
	for i := range other.used {
		r := t.record(other, i)
		copy(t.append(p, r.hash()), r)
	}
	for _, block := range other.blocks {
		if block != nil {
			t.blocks--
		}
	}
	t.pages--
	p.depth--
	first, n := t.span(hash, p.depth)
	t.assign(first, n, p)
}

// span returns the range of the directory for the leading bits of the hash.
func (t *table) span(hash uint32, depth uint) (first, n int) {
	n = 1 << (t.depth - depth)
	return int(hash>>(32-t.depth)) &^ (n - 1), n
}

func (t *table) assign(first, n int, p *page) {
	for i := range n {
		t.directory[first+i] = p
	}
}

// advance returns the next record of an endless walk. The table must not be empty.
// Within a page it jumps to and fro, because the records of a page are in order of
// age, and neighbours would be a poor sample.
func (t *table) advance() entry {
	const jump = 39 // odd, to visit all records, and near the golden section of 64
	for {
		p := t.page(uint32(t.hand.hash))
		for t.hand.step < pageRecords {
			i := t.hand.step * jump % pageRecords
			t.hand.step++
			if i < p.used {
				return entry{t, p, i}
			}
		}
		t.hand = hand{hash: p.end(t.hand.hash) % (1 << 32)}
	}
}

// end returns the first hash after those of the page p, which contains hash.
func (p *page) end(hash uint64) uint64 {
	return (hash>>(32-p.depth) + 1) << (32 - p.depth)
}

func (t *table) weight(by share) uint64 {
	if by == byRecords {
		return uint64(t.records)
	}
	return uint64(t.bytes()) + 8*uint64(t.logWords)
}

func (t *table) bytes() int64 {
	return int64(t.blocks*t.words*8<<t.shift + t.pages*int(unsafe.Sizeof(page{})) + 8*len(t.directory))
}
