package memory

import (
	"iter"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// Peek returns the decision of a look at the key, and whether the key is kept. A key
// that is not kept equals one that was never used.
func (s *Store) Peek(key []byte, l *algo.Limit) (d algo.Decision, kept bool) {
	hash := s.hash(key)
	shard := s.shard(hash)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	now := s.clock()
	e := shard.find(hash, l, key)
	kept = e.kept() && e.record().expiry() > now
	return shard.decide(hash, &backend.Check{Key: key, Limit: l}, now), kept
}

// Key describes a key that the store keeps.
type Key struct {
	Key    []byte
	Expiry int64 // when it will equal a key that was never used: µs since the Unix epoch
	// Used is the share of the limit that was used up when the key was last
	// charged: 1 when nothing was left, 2 when more was asked for than was left.
	Used float64
}

// All returns the keys that Keys returns, with what is kept of them. Key.Key is only
// valid until the next turn of the loop.
func (s *Store) All() iter.Seq[Key] {
	return func(yield func(Key) bool) {
		s.walk(func(_ *shard, r record) bool {
			k := Key{Key: r.key(), Expiry: r.expiry(), Used: float64(r.rank()) / float64(exhausted)}
			if r.rank() == refused {
				k.Used = 2
			}
			return yield(k)
		})
	}
}
