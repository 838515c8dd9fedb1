package memory

import (
	"math"
	"math/bits"
	"slices"
	"sync"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// shard is one of the parts that keys are spread over by their hash, with a
// lock of its own. Methods want the lock held unless they say otherwise. The
// clock is read under the lock, so that a key never sees it step back.
type shard struct {
	mu       sync.Mutex
	byLength []*table // by the length of their records; nil where there are none
	tables   []*table // the same, in no order
	logs     logs
	bounds   bounds
	count    int        // of keys
	tabled   int64      // bytes of all tables
	turns    [2]uint64  // how far each walk is: see advance
	layouts  uint64     // a bit for each algo.Limit.Layout that a state may be of
	scratch  algo.State // for a copy of a state that a look settles
	spare    algo.State // for a state of another length than was kept

	evicted uint64
	expired uint64
}

// bounds are the most that a shard holds.
type bounds struct {
	keys  int
	bytes int64 // of records, index and logs; a counter that alone takes more is kept alone
}

// maxPerShard keeps tables far from where hashes are too short for them: some 4
// keys to each page at maxDepth, which has room for 64.
const maxPerShard = 1 << 24

// rank orders keys by what forgetting them would give away: the share of the
// limit that was used up when the key was last charged.
type rank uint8

const (
	exhausted rank = math.MaxUint8 - 1 // nothing was left
	refused   rank = math.MaxUint8     // and more was asked for
)

func rankOf(l *algo.Limit, d algo.Decision) rank {
	switch {
	case d.Remaining > 0:
		full := l.Capacity()
		return rank((full - d.Remaining) * int64(exhausted) / full)
	case d.Allowed && d.Remaining == 0:
		return exhausted
	}
	return refused
}

// recordWords is the length of the key's record, in words, for states of that
// length; 0 stands for states that grow.
func recordWords(stateWords int, key []byte) int {
	if stateWords == 0 {
		stateWords = inlineLog
	}
	return roundWords(headWords + stateWords + keyWords(len(key)))
}

// find returns the entry of the key. Records are found by their length, which
// follows from the limit's states. If there is none of it, the counter's may have
// been left under another layout: keep moves what is found there.
func (s *shard) find(hash uint64, l *algo.Limit, key []byte) entry {
	e := s.findIn(recordWords(l.Words(), key), hash, key)
	own := l.Layout()
	if e.kept() || own == 0 {
		return e
	}
	for others := s.layouts &^ (1 << own); others != 0; others &= others - 1 {
		words := l.Words() - own + bits.TrailingZeros64(others)
		if e := s.findIn(recordWords(words, key), hash, key); e.kept() {
			return e
		}
	}
	return nowhere
}

// findIn finds the key if its record has that length.
func (s *shard) findIn(words int, hash uint64, key []byte) entry {
	if words >= len(s.byLength) || s.byLength[words] == nil {
		return nowhere
	}
	return s.byLength[words].find(uint32(hash), key)
}

// state returns the entry's state where it lies, nil if it is not kept.
func (s *shard) state(e entry) algo.State {
	if !e.kept() {
		return nil
	}
	r := e.record()
	if r.isElsewhere() {
		return s.logs.states[*r.log()]
	}
	return r.state()
}

// lockAndDecide is decide for a caller without the lock.
func (s *shard) lockAndDecide(hash uint64, c *backend.Check, clock func() int64) algo.Decision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.decide(hash, c, clock())
}

// decide takes a descriptor of one check, working on the state where it lies.
func (s *shard) decide(hash uint64, c *backend.Check, now int64) algo.Decision {
	l := c.Limit
	e := s.find(hash, l, c.Key)
	state := s.state(e)
	if c.Looks() {
		s.scratch = append(s.scratch[:0], state...)
		_, d := c.Held().Decide(s.settle(l, s.scratch, now), now, 0)
		return d
	}
	state = s.settle(l, state, now)
	var d algo.Decision
	if l.Holds() {
		state, d = c.Held().Decide(state, now, c.Hits)
	} else {
		state, d = l.Decide(state, now, c.Hits)
	}
	s.keep(e, hash, c.Key, l, state, rankOf(l, d), now)
	return d
}

// settle settles the state: where it lies or, if it is of another length than the
// limit's, in spare memory of the shard.
func (s *shard) settle(l *algo.Limit, state algo.State, now int64) algo.State {
	if n := l.Words(); n == 0 || n == len(state) {
		return l.Settle(state, now, nil)
	}
	s.spare = l.Settle(state, now, s.spare)
	return s.spare
}

// keep makes the state the key's, unless it equals no state. The entry is
// what find returned, and the state may be the entry's own, changed in place.
func (s *shard) keep(e entry, hash uint64, key []byte, l *algo.Limit, state algo.State, k rank, now int64) {
	expiry := l.Expiry(state)
	switch {
	case expiry > now:
		words := recordWords(l.Words(), key)
		if e.kept() && e.table.words != words { // it was left under another layout, and is in spare now
			s.forget(e)
			e = nowhere
		}
		if !e.kept() {
			s.makeRoom(now)
			if e = s.add(words, hash, key); !e.kept() {
				s.evicted++
				return
			}
			s.layouts |= 1 << l.Layout()
		}
		resized := s.setState(e, state)
		e.record().mark(expiry, k)
		if resized {
			s.trim(e, hash, key, now)
		}
	case e.kept():
		s.forget(e)
		s.expired++
	}
}

// add makes a record of the length, without a state. There must be none yet.
func (s *shard) add(words int, hash uint64, key []byte) entry {
	for len(s.byLength) <= words {
		s.byLength = append(s.byLength, nil)
	}
	t := s.byLength[words]
	if t == nil {
		t = newTable(words)
		t.place, t.turns = len(s.tables), s.turns
		s.tables = append(s.tables, t)
		s.byLength[words] = t
		s.tabled += t.bytes()
	}
	before := t.bytes()
	e := t.add(uint32(hash), key)
	s.tabled += t.bytes() - before
	if e.kept() {
		s.count++
	}
	return e
}

// setState copies the state to the entry, unless it is the entry's own. It reports
// whether the entry had a state of another length, or none yet.
func (s *shard) setState(e entry, state algo.State) (resized bool) {
	old := s.state(e)
	if len(old) != len(state) {
		old = s.resizeState(e, len(state))
		resized = true
	}
	if &old[0] != &state[0] {
		copy(old, state)
	}
	return resized
}

// resizeState makes the entry's state another length, its content undefined.
func (s *shard) resizeState(e entry, words int) algo.State {
	r := e.record()
	s.releaseLog(e)
	if words <= r.room() {
		r.setStateWords(words)
		return r.state()
	}
	r.setStateWords(elsewhere)
	*r.log() = s.logs.add(words)
	e.table.logWords += words
	return s.logs.states[*r.log()]
}

// releaseLog releases the entry's state if it is in a log.
func (s *shard) releaseLog(e entry) {
	if r := e.record(); r.isElsewhere() {
		e.table.logWords -= len(s.logs.states[*r.log()])
		s.logs.release(*r.log())
	}
}

func (s *shard) forget(e entry) {
	s.releaseLog(e)
	t := e.table
	before := t.bytes()
	t.remove(e.page, e.i)
	s.tabled += t.bytes() - before
	s.count--
	if t.records == 0 {
		s.tabled -= t.bytes()
		last := s.tables[len(s.tables)-1]
		s.tables[t.place], last.place = last, t.place
		s.tables = s.tables[:len(s.tables)-1]
		s.byLength[t.words] = nil
	}
}

// forgetKey forgets the key whatever the length of its states, and reports whether
// it was there and had not expired.
func (s *shard) forgetKey(hash uint64, key []byte, now int64) (kept bool) {
	for i := len(s.tables) - 1; i >= 0; i-- {
		if e := s.findIn(s.tables[i].words, hash, key); e.kept() {
			kept = kept || e.record().expiry() > now
			s.forget(e)
		}
	}
	return kept
}

// What the sweep does for each key that is added, so that keys that nobody asks
// for are found expired, and how it looks for one to evict.
const (
	sweepPerKey     = 2
	evictFrom       = 16 // the sample of which the least limited goes
	evictFromAtMost = 64 // and to which it grows as long as none has hits left
	sweepAtOnce     = 64 // the background's share of a lock: some microseconds
)

// makeRoom makes room for one more key.
func (s *shard) makeRoom(now int64) {
	s.sweep(now, sweepPerKey)
	victim := nowhere
	for seen := evictFrom; s.count >= s.bounds.keys; seen += evictFrom {
		e := s.sweep(now, evictFrom)
		switch {
		case s.count < s.bounds.keys:
			return // room by expiry; the victim may have moved
		case e.kept() && (!victim.kept() || e.record().order() < victim.record().order()):
			victim = e
		}
		if victim.kept() && (victim.record().rank() < exhausted || seen >= evictFromAtMost) {
			s.forget(victim)
			s.evicted++
		}
	}
}

// trim keeps the shard to its bytes after the entry of the key was written. Other
// counters go, never this one: a client whose counter went with each call would not
// be limited at all.
func (s *shard) trim(e entry, hash uint64, key []byte, now int64) {
	if !s.isTooLarge() {
		return
	}
	mark := e.record()[0]
	e.record()[0] = pinned
	s.shrink(now)
	e.table.find(uint32(hash), key).record()[0] = mark // it may have moved
}

// bytes returns how much memory records, index and logs take up.
func (s *shard) bytes() int64 { return s.tabled + s.logs.bytes() }

func (s *shard) isTooLarge() bool { return s.bytes() > s.bounds.bytes && s.count > 1 }

// shrink forgets keys until the shard keeps to its bytes. A large log may take the
// place of thousands of small records, so it does not look for each of them as
// makeRoom does. Each sample shows below which order its least limited quarter is, and
// of the next sample those go; in a small shard the least limited alone.
func (s *shard) shrink(now int64) {
	var sample [evictFromAtMost]uint64
	for least := uint64(0); ; {
		orders := sample[:0]
		for range sample {
			if !s.isTooLarge() {
				return
			}
			e := s.advance(byBytes)
			r := e.record()
			order := r.order()
			switch {
			case r[0] == pinned:
				continue
			case r.expiry() <= now:
				s.forgetAtHand(e)
				s.expired++
				continue
			case order <= least:
				s.forgetAtHand(e)
				s.evicted++
			}
			orders = append(orders, order)
		}
		if len(orders) == 0 {
			continue
		}
		slices.Sort(orders)
		least = orders[0]
		if s.count > len(sample) {
			least = orders[len(orders)/4]
		}
		for _, next := range [...]rank{exhausted, refused} {
			if orders[0] < next.leastOrder() {
				least = min(least, next.leastOrder()-1)
			}
		}
	}
}

// forgetAtHand forgets the key that advance has just returned.
func (s *shard) forgetAtHand(e entry) {
	e.table.hand.step-- // where another takes its place
	s.forget(e)
}

// sweep visits that many keys and forgets those that have expired. If there are
// none, it returns the one that is best to evict.
func (s *shard) sweep(now int64, keys int) entry {
	victim, order := nowhere, uint64(math.MaxUint64)
	for ; keys > 0 && s.count > 0; keys-- {
		e := s.advance(byRecords)
		r := e.record()
		switch {
		case r.expiry() <= now:
			s.forgetAtHand(e)
			s.expired++
		case r.order() < order:
			victim, order = e, r.order()
		}
	}
	return victim
}

// share is what tables take turns in proportion to.
type share int

const (
	byRecords share = iota
	byBytes
)

// advance returns the next key of a walk. There must be one. Tables take turns in
// proportion to their keys, so that the keys of a few turns are a fair sample of the
// shard. If a client could confine the sample to one kind of keys, the limited ones of
// that kind would be evicted. Where bytes are needed, tables take turns in proportion to
// their bytes: otherwise thousands of small records would go before a few large logs are
// found.
func (s *shard) advance(by share) entry {
	t := s.tables[0]
	for _, other := range s.tables[1:] {
		if int64(other.turns[by]-t.turns[by]) < 0 {
			t = other
		}
	}
	s.turns[by] = t.turns[by]
	t.turns[by] += 1 << 50 / t.weight(by)
	return t.advance()
}

// len returns the number of keys, for a caller without the lock.
func (s *shard) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// lockAndSweep is sweep for a caller without the lock.
func (s *shard) lockAndSweep(clock func() int64, keys int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(clock(), keys)
	if cap(s.scratch) > keptMemory {
		s.scratch = nil
	}
}

// addTo adds the shard to the statistics, for a caller without the lock.
func (s *shard) addTo(sum *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum.Keys += s.count
	sum.MaxKeys += s.bounds.keys
	sum.Expired += s.expired
	sum.Evicted += s.evicted
	sum.Bytes += s.bytes()
	sum.MaxBytes += s.bounds.bytes
}
