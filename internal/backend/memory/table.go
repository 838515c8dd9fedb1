package memory

import (
	"bytes"
	"math"
	"math/bits"
	"unsafe"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// table holds the records of one length. It is extendible hashing: a directory,
// by the leading bits of the hash, of small pages. It grows by splitting one page
// in two, which takes microseconds however many keys there are.
//
// What a look-up costs is the two places in memory that it waits for. The first,
// a page with its tags, is small enough to be found in a cache for a million keys;
// the second is the record.
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
	turns [2]uint64 // when it has its turn in each walk over the shard
}

// page holds all records of the table whose hashes begin with the same depth
// bits, in no order and without gaps.
type page struct {
	used   int
	tags   [pageRecords / 8]uint64 // a byte of each record's hash
	blocks [pageBlocks]*uint64     // the records, in memory that is got as they come
	depth  uint
}

const (
	pageBlocks  = 8
	pageRecords = 64 // at most: a page of long records has shorter blocks
	blockWords  = 512
	// maxDepth bounds the directory.
	maxDepth = 22
)

// hand is where a walk over a table is: at the page for a hash, and there after
// so many steps. Pages may come and go meanwhile.
type hand struct {
	hash uint64 // below 1<<32
	step int
}

// entry is the place of a key: its record's number in a page, -1 if it is not
// kept. It holds until a record is added or removed.
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
// So head and state mostly share a line of the cache, and the place of the key
// follows from its length: nothing has to wait for one part to find another.
type record []uint64

const (
	headWords = 2
	rankBits  = 8
	keyBits   = 24
	maxKey    = 1<<keyBits - 1
	// inlineLog is how many words of a log, which grows, are in the record; a log
	// of up to 4 hits.
	inlineLog = 6
	// elsewhere is the length of a state that is not in the record but in
	// shard.logs, with its number in the record.
	elsewhere = 1<<8 - 1
)

// pinned is word 0 of a record that does not go: it never expires, and no other is
// later in the order of eviction.
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

// order is the order of eviction: the key with more left goes first, and of two
// with as much left the one that expires first.
func (r record) order() uint64 { return bits.RotateLeft64(r[0], -rankBits) }

// leastOrder is the least order of a key of that rank.
func (k rank) leastOrder() uint64 { return uint64(k) << (64 - rankBits) }

// bytesOf returns the first n bytes of words.
func bytesOf(words []uint64, n int) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n)
}

// roundWords rounds the length of a record up to one that tables are made for:
// all up to 16 words, then 8 for each power of two, so that there are only so many.
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
		// The lowest byte that is 0 in diff, which is where the tag is as wanted,
		// has its top bit in equal. Higher ones may be false, as tags may be.
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

// add adds a record of the key, without a state. Only if hashes fail to tell a
// page of keys apart, it has no room.
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

// cut takes a record out of its page. The last one takes its place.
func (t *table) cut(p *page, i int) {
	p.used--
	if i < p.used {
		last := t.record(p, p.used)
		copy(t.record(p, i), last)
		p.setTag(i, uint8(last.hash()))
	}
	// A block goes when the one before has half emptied, too, lest one that comes
	// and goes does so with a block.
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

// span returns the part of the directory for the leading bits of the hash.
func (t *table) span(hash uint32, depth uint) (first, n int) {
	n = 1 << (t.depth - depth)
	return int(hash>>(32-t.depth)) &^ (n - 1), n
}

func (t *table) assign(first, n int, p *page) {
	for i := range n {
		t.directory[first+i] = p
	}
}

// advance returns the next record of a walk that goes on for ever. There must be
// records. It jumps to and fro within a page, for the records there are in order
// of age, and a few of one age would be no sample of them.
func (t *table) advance() entry {
	const jump = 39 // odd, to come by all, and near the golden section of 64
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

// end returns the first hash after those of the page that the given one is of.
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
