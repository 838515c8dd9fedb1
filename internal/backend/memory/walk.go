package memory

import (
	"iter"
	"math"
	"slices"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// Key describes a key that the store keeps.
type Key struct {
	Key    []byte
	Expiry int64 // when it will equal a key that was never used: µs since the Unix epoch
	// Used is the share of the limit that was used up when the key was last
	// charged: 1 when nothing was left, 2 when more was asked for than was left.
	Used float64
}

// All returns the keys that are kept and have not expired, in no order. The loop
// may be slow, because no lock is held. A key that is kept throughout is returned
// once; keys that are added or removed meanwhile may be left out. Key.Key is only
// valid until the next turn of the loop.
func (s *Store) All() iter.Seq[Key] {
	return func(yield func(Key) bool) {
		s.walk(func(_ *shard, r record) bool {
			return yield(Key{Key: r.key(), Expiry: r.expiry(), Used: r.rank().used()})
		})
	}
}

// Keys implements [backend.Lister].
func (s *Store) Keys() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		s.walk(func(_ *shard, r record) bool { return yield(r.key()) })
	}
}

func (k rank) used() float64 {
	if k == refused {
		return 2
	}
	return float64(k) / float64(exhausted)
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
