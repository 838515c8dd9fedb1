// Package memory owns the store of counters in the process's own memory: the
// default backend. It owns the layout of states, their eviction when there are too
// many, and their snapshots. It leaves decisions to algo.
//
// Keys are spread over shards by a seeded hash, each with a lock that is held for
// a fraction of a microsecond. A request locks the shards of its keys and is
// decided in one atomic step. No operation stops all requests or visits all keys at
// once: tables grow by splitting small pages, and expired keys are removed a few at
// a time, whenever a key is added and in the background.
//
// Keys are bounded in number and in bytes. At the bound on keys a new key replaces an
// old one: an expired key if there is one. Otherwise, from a sample of 16, it is the
// key that had the most left of its limit when it was last charged; among equals, the
// first to expire. At the bound on bytes keys are chosen in the same way, until the
// new key or the growing log has room.
// While all keys of the sample have used up their limits, the sample grows to 64, and
// keys that were refused go last. So the most limited keys are evicted only when
// hardly any others are left. A client that is being limited cannot reset its counter
// by inventing new keys, because each of those has hardly used anything.
package memory

import (
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// DefaultMaxKeys is the bound on keys if none is given. A key takes some 100 bytes.
const DefaultMaxKeys = 10_000_000

// Options configure a store. The zero value is ready for use.
type Options struct {
	// MaxKeys bounds the number of keys; 0 means DefaultMaxKeys. It is divided evenly
	// among shards, so a store may be full at some percent less.
	MaxKeys int
	// MaxBytes bounds the memory that keys, states and their index take up; 0 means
	// no bound. Like MaxKeys it is divided among shards. A counter that takes more
	// than its shard's share is kept, and no other in that shard: a full sliding log
	// may take 512 KiB, and the share is at least 2 MiB, or all of a smaller MaxBytes.
	MaxBytes int64
	// Clock returns the time in microseconds since the Unix epoch. It must be safe
	// for concurrent use. nil means a clock that starts at the wall clock's time and
	// then follows the monotonic clock. Corrections of the wall clock, which would
	// shorten or lengthen windows, take effect only after a restart.
	Clock func() int64
	// SweepCycle is the time in which the background sweep visits every key. An
	// expired key takes up memory for about that long if no key is added. 0 means a
	// minute; negative means no background sweep: added keys alone drive the sweep.
	SweepCycle time.Duration
}

// Store keeps counters in memory. It implements [backend.Backend].
type Store struct {
	clock  func() int64
	seed   maphash.Seed
	shards []paddedShard
	shift  uint // hash >> shift is the number of a key's shard
	txns   sync.Pool

	stop    chan struct{}
	stopped sync.WaitGroup
	close   sync.Once
}

var (
	_ backend.Backend  = (*Store)(nil)
	_ backend.Resetter = (*Store)(nil)
	_ backend.Lister   = (*Store)(nil)
)

// paddedShard keeps the locks of two shards out of one cache line, and out of the
// pair of lines that is fetched together.
type paddedShard struct {
	shard
	_ [cacheLines - unsafe.Sizeof(shard{})%cacheLines]byte
}

const cacheLines = 128

// The number of shards: enough that cores seldom contend for one, few enough that
// a request's shards fit a set of 64 bits; fewer when there is little to share.
const (
	maxShards     = 64
	keysPerShard  = 256     // at least, so that shards fill about evenly
	bytesPerShard = 2 << 20 // at least: room for a few of the largest logs
)

// New returns an empty store. Close it to end its background sweep.
func New(o Options) *Store {
	if o.MaxKeys <= 0 {
		o.MaxKeys = DefaultMaxKeys
	}
	if o.Clock == nil {
		o.Clock = steadyClock()
	}
	if o.SweepCycle == 0 {
		o.SweepCycle = time.Minute
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = math.MaxInt64
	}
	n := shardCount(o.MaxKeys, o.MaxBytes)
	s := &Store{
		clock:  o.Clock,
		seed:   maphash.MakeSeed(),
		shards: newShards(n, bounds{keys: min(o.MaxKeys/n, maxPerShard), bytes: o.MaxBytes / int64(n)}),
		shift:  uint(64 - bits.TrailingZeros(uint(n))),
		stop:   make(chan struct{}),
	}
	s.txns.New = func() any { return new(txn) }
	if o.SweepCycle > 0 {
		s.stopped.Go(func() { s.sweep(o.SweepCycle) })
	}
	return s
}

func newShards(n int, each bounds) []paddedShard {
	shards := make([]paddedShard, n)
	for i := range shards {
		shards[i].bounds = each
	}
	return shards
}

func shardCount(maxKeys int, maxBytes int64) int {
	n := 1
	for n < maxShards && 2*n*keysPerShard <= maxKeys && int64(2*n*bytesPerShard) <= maxBytes {
		n *= 2
	}
	return n
}

// steadyClock returns a clock that starts at the wall clock's time and then follows
// the monotonic clock.
func steadyClock() func() int64 {
	start := time.Now()
	base := start.UnixMicro()
	return func() int64 { return base + time.Since(start).Microseconds() }
}

// Close ends the background sweep. The store can still be used.
func (s *Store) Close() error {
	s.close.Do(func() { close(s.stop) })
	s.stopped.Wait()
	return nil
}

// Decide implements [backend.Backend]. It waits only for other requests for the
// same shards, and fails only for a key of 16 MiB or more.
func (s *Store) Decide(_ context.Context, req *backend.Request, out []algo.Decision) error {
	for i := range req.Checks {
		if n := len(req.Checks[i].Key); n > maxKey {
			return fmt.Errorf("check %d: a key of %d bytes is too long: use at most %d", i, n, maxKey)
		}
	}
	if len(req.Checks) == 1 {
		c := &req.Checks[0]
		hash := s.hash(c.Key)
		out[0] = s.shard(hash).lockAndDecide(hash, c, s.clock)
		return nil
	}
	t := s.txns.Get().(*txn)
	t.store, t.req, t.out = s, req, out
	t.decide()
	t.reset()
	s.txns.Put(t)
	return nil
}

func (s *Store) hash(key []byte) uint64 { return maphash.Bytes(s.seed, key) }

func (s *Store) shard(hash uint64) *shard { return &s.shards[hash>>s.shift].shard }

// Reset implements [backend.Resetter]. It never fails.
func (s *Store) Reset(_ context.Context, c backend.Check) (used bool, err error) {
	return s.forget(c.Key), nil
}

// forget forgets the key, as if it had never been used, and reports whether it was kept.
func (s *Store) forget(key []byte) bool {
	hash := s.hash(key)
	shard := s.shard(hash)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return shard.forgetKey(hash, key, s.clock())
}

// Stats counts the keys that the store holds, and those that it has forgotten since
// it was made.
type Stats struct {
	Keys     int    // kept now, expired keys included until the sweep finds them
	MaxKeys  int    // the bound on them
	Bytes    int64  // of memory that keys, states and their index take up
	MaxBytes int64  // the bound on them; math.MaxInt64 without one
	Expired  uint64 // keys forgotten after their expiry
	Evicted  uint64 // keys forgotten before it, to keep to a bound
}

// Stats returns the store's statistics. The numbers are not of one instant.
func (s *Store) Stats() Stats {
	var sum Stats
	for i := range s.shards {
		s.shards[i].addTo(&sum)
	}
	return sum
}

// Len returns the number of keys kept.
func (s *Store) Len() int { return s.Stats().Keys }

// sweep visits every key once per cycle.
func (s *Store) sweep(cycle time.Duration) {
	const ticks = 60
	ticker := time.NewTicker(max(cycle/ticks, time.Millisecond))
	defer ticker.Stop()
	keys := make([]int, len(s.shards)) // of each shard, to visit per tick
	for tick := 0; ; tick++ {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
		if tick%ticks == 0 {
			for i := range s.shards {
				keys[i] = s.shards[i].len()/ticks + 1
			}
		}
		s.sweepOnce(keys)
	}
}

// sweepOnce visits keys[i] keys of shard i. It takes a few of one shard, then of
// the next, so that requests get their turn in between.
func (s *Store) sweepOnce(keys []int) {
	for done, most := 0, slices.Max(keys); done < most; done += sweepAtOnce {
		for i := range s.shards {
			if left := keys[i] - done; left > 0 {
				s.shards[i].lockAndSweep(s.clock, min(left, sweepAtOnce))
			}
		}
	}
}
