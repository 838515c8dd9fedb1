package memory

import (
	"iter"
	"math"
	"slices"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// Keys implements [backend.Lister].
func (s *Store) Keys() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		s.walk(func(_ *shard, r record) bool { return yield(r.key()) })
	}
}

// walk calls visit with a copy of each record that has not expired, until visit
// returns false. It holds a lock only while it copies a page.
func (s *Store) walk(visit func(*shard, record) bool) {
	var page []uint64
	for i := range s.shards {
		shard := &s.shards[i].shard
		var at cursor
		for {
			words := 0
			if page, words = shard.copyPage(&at, page[:0]); words == 0 {
				break
			}
			now := s.clock()
			for words := range slices.Chunk(page, words) {
				r := record(words)
				if r.expiry() > now && !visit(shard, r) {
					return
				}
			}
		}
	}
}

// cursor is the position of a walk over a shard: a table and a page in it. The page is
// found by a hash, because pages split and merge meanwhile.
type cursor struct {
	words int    // of the table's records
	hash  uint64 // up to 1<<32
}

// copyPage appends to dst the records of the page at the cursor, moves the cursor on,
// and returns the number of words in each record; 0 at the end of the shard. If the
// page was merged after the cursor reached it, it copies only the rest of the page.
func (s *shard) copyPage(at *cursor, dst []uint64) (page []uint64, words int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; at.words < len(s.byLength); *at = (cursor{words: at.words + 1}) {
		t := s.byLength[at.words]
		if t == nil || at.hash > math.MaxUint32 {
			continue
		}
		p := t.page(uint32(at.hash))
		for i := range p.used {
			if r := t.record(p, i); uint64(r.hash()) >= at.hash {
				dst = append(dst, r...)
			}
		}
		at.hash = p.end(at.hash)
		return dst, t.words
	}
	return dst, 0
}

// copyState appends to dst the present state of the key whose record was copied to r;
// nothing if the key is gone.
func (s *shard) copyState(dst algo.State, r record) algo.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(dst, s.state(s.findIn(len(r), uint64(r.hash()), r.key()))...)
}
