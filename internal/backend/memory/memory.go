// Package memory owns the store of counters in the process's own memory: the
// default backend. What a decision is, it takes from algo; it owns where states
// lie, which are forgotten when there are too many, and their snapshots.
//
// Keys are spread over shards by a seeded hash, each with a lock that is held for
// a fraction of a microsecond. A request locks the shards of its keys and is
// decided in one atomic step. Nothing ever stops all requests or goes over all
// keys at once: tables grow by splitting small parts, and expired keys are
// forgotten a few at a time, with each key that is added and in the background.
//
// Keys are bounded in number and in bytes. At the bound on keys a new key takes the
// place of an old one. It is one that has expired or else, of a sample of 16, the one
// with the most left of its limit when it was last charged, and of those with as much
// left the first to expire. At the bound on bytes the same keys go, as many as the new
// key or the log that grows takes the memory of.
// While all of the sample have used up their limits it grows to 64, and keys that
// were refused go last. So the most limited keys go only when hardly any others
// are left, and a client that is being limited cannot be forgiven by making up
// new keys, each of which has hardly used anything.
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
	// MaxKeys bounds how many keys are kept; 0 means DefaultMaxKeys. It is shared
	// out evenly over shards, so that a store may be full at some percent less.
	MaxKeys int
	// MaxBytes bounds the memory that keys, states and their index take up; 0 means
	// no bound. Like MaxKeys it is shared out over shards. A counter that takes more
	// than its shard's share is kept, and no other in that shard: a full sliding log
	// may take 512 KiB, and the share is at least 2 MiB, or all of a smaller MaxBytes.
	MaxBytes int64
	// Clock returns the time in microseconds since the Unix epoch. It must be safe
	// for concurrent use. nil is the wall clock at the start of the store, going
	// on at the pace of the monotonic clock: corrections of the wall clock, which
	// would cut windows short or draw them out, have to wait for a restart.
	Clock func() int64
	// SweepCycle is how long the background sweep takes to come by all keys, and
	// so about how long an expired one takes up memory if no other is added. 0
	// means a minute; negative leaves the sweep to the keys that are added.
	SweepCycle time.Duration
}

// Store keeps counters in memory. It implements [backend.Backend].
type Store struct {
	clock  func() int64
	seed   maphash.Seed
	shards []paddedShard
	shift  uint // leaves of a hash the number of its shard
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

// paddedShard keeps the locks of two shards out of one cache line, or the pair
// that is fetched together.
type paddedShard struct {
	shard
	_ [cacheLines - unsafe.Sizeof(shard{})%cacheLines]byte
}

const cacheLines = 128

// The number of shards: enough that cores seldom meet in one, few enough that
// those of a request fit a set of 64 bits; fewer when there is little to share.
const (
	maxShards     = 64
	keysPerShard  = 256     // at least, for shards to be filled about evenly
	bytesPerShard = 2 << 20 // at least, for a few of the largest logs
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

// steadyClock returns a clock that starts as the wall clock and then goes as the
// monotonic one.
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

// Decide implements [backend.Backend]. It waits for nothing but other requests
// for the same shards, and fails only for a key of 16 MiB or more.
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

// Peek returns what a look at the key would answer, and whether it is kept: one
// that is not is as good as never used.
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

// Stats is what the store holds and has forgotten since it was made.
type Stats struct {
	Keys     int    // kept now; expired ones that the sweep has yet to find count
	MaxKeys  int    // the bound on them
	Bytes    int64  // of memory that keys, states and their index take up
	MaxBytes int64  // the bound on them; math.MaxInt64 without one
	Expired  uint64 // keys forgotten because they had become as good as never used
	Evicted  uint64 // keys forgotten before that, to keep to a bound
}

// Stats returns the store's statistics. The parts are not of one instant.
func (s *Store) Stats() Stats {
	var sum Stats
	for i := range s.shards {
		s.shards[i].addTo(&sum)
	}
	return sum
}

// Len returns the number of keys kept.
func (s *Store) Len() int { return s.Stats().Keys }

// sweep comes by all keys once in a cycle.
func (s *Store) sweep(cycle time.Duration) {
	const ticks = 60
	ticker := time.NewTicker(max(cycle/ticks, time.Millisecond))
	defer ticker.Stop()
	keys := make([]int, len(s.shards)) // to come by in a tick
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

// sweepOnce comes by so many keys of each shard. It takes a few of one shard,
// then of the next, so that requests get their turn in between.
func (s *Store) sweepOnce(keys []int) {
	for done, most := 0, slices.Max(keys); done < most; done += sweepAtOnce {
		for i := range s.shards {
			if left := keys[i] - done; left > 0 {
				s.shards[i].lockAndSweep(s.clock, min(left, sweepAtOnce))
			}
		}
	}
}
