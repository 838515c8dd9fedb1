package memory

import (
	"bytes"
	"math/bits"
	"slices"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// txn decides a request of several checks under the locks of all their shards.
// Where something may have to be undone it works on copies of the states, and
// the store only sees what comes out in the end.
type txn struct {
	store *Store
	now   int64
	req   *backend.Request
	out   []algo.Decision

	hashes   []uint64  // of the checks' keys
	counters []counter // one for each key
	counter  []int     // of each check: index in counters
	table    []int     // counters by hash, with linear probing: index plus one
	memory   []uint64  // of the states
	scratch  algo.State
}

// counter is a key of the request.
type counter struct {
	hash    uint64
	key     []byte
	limit   *algo.Limit // of the first check
	state   algo.State
	saved   algo.State  // what state was before the descriptor
	settled *algo.Limit // the limit that state is settled for
	rank    rank
	written bool
}

// keptMemory is how many words a txn keeps from one request to the next.
const keptMemory = 1 << 13

func (t *txn) decide() {
	checks := t.req.Checks
	for i := range checks {
		t.hashes = append(t.hashes, t.store.hash(checks[i].Key))
	}
	locked := t.store.lock(t.hashes)
	defer t.store.unlock(locked)
	t.now = t.store.clock()
	if t.nothingToUndo() {
		for i, hash := range t.hashes {
			t.out[i] = t.store.shard(hash).decide(hash, &checks[i], t.now)
		}
		return
	}
	t.identify()
	t.load()
	if t.decideEach() && t.req.AllOrNothing {
		t.load()
		t.denyAll()
	}
	t.commit()
}

// lock locks the shards of the keys, in ascending order so that no two requests
// wait for each other, and returns the set of their numbers.
func (s *Store) lock(hashes []uint64) (set uint64) {
	for _, hash := range hashes {
		set |= 1 << (hash >> s.shift)
	}
	for rest := set; rest != 0; rest &= rest - 1 {
		s.shards[bits.TrailingZeros64(rest)].mu.Lock()
	}
	return set
}

func (s *Store) unlock(set uint64) {
	for rest := set; rest != 0; rest &= rest - 1 {
		s.shards[bits.TrailingZeros64(rest)].mu.Unlock()
	}
}

// nothingToUndo reports whether each check stands on its own.
func (t *txn) nothingToUndo() bool {
	checks := t.req.Checks
	for i := 1; i < len(checks); i++ {
		if checks[i].Descriptor == checks[i-1].Descriptor {
			return false
		}
	}
	return !t.req.AllOrNothing
}

// identify finds the counter of each check.
func (t *txn) identify() {
	size := 1 << bits.Len(uint(2*len(t.hashes)))
	t.table = append(t.table, make([]int, size)...)
	for i, hash := range t.hashes {
		check := &t.req.Checks[i]
		at := int(hash) & (size - 1)
		for t.table[at] != 0 && !t.counters[t.table[at]-1].is(hash, check) {
			at = (at + 1) & (size - 1)
		}
		if t.table[at] == 0 {
			t.counters = append(t.counters, counter{hash: hash, key: check.Key, limit: check.Limit})
			t.table[at] = len(t.counters)
		}
		t.counter = append(t.counter, t.table[at]-1)
	}
}

func (c *counter) is(hash uint64, check *backend.Check) bool {
	return c.hash == hash && bytes.Equal(c.key, check.Key)
}

// load takes the states from the store.
func (t *txn) load() {
	for i := range t.counters {
		c := &t.counters[i]
		s := t.store.shard(c.hash)
		c.state = t.copy(s.state(s.find(c.hash, c.limit, c.key)))
		c.settled = nil
	}
}

func (t *txn) copy(s algo.State) algo.State {
	start := len(t.memory)
	t.memory = append(t.memory, s...)
	return t.memory[start:len(t.memory):len(t.memory)]
}

// commit gives the store what has changed.
func (t *txn) commit() {
	for i := range t.counters {
		if c := &t.counters[i]; c.written {
			s := t.store.shard(c.hash)
			s.keep(s.find(c.hash, c.settled, c.key), c.hash, c.key, c.settled, c.state, c.rank, t.now)
		}
	}
}

// decideEach decides the descriptors one after the other and reports whether they
// refuse the request.
func (t *txn) decideEach() (refused bool) {
	quotas, passing := 0, 0
	for start, end := range backend.Descriptors(t.req.Checks) {
		passes := t.try(start, end)
		if !passes {
			t.deny(start, end)
		}
		t.report(start, end)
		switch backend.RoleOf(t.req.Checks[start:end]) {
		case backend.Required:
			refused = refused || !passes
		case backend.Quota:
			quotas++
			if passes {
				passing++
			}
		}
	}
	return refused || quotas > 0 && passing == 0
}

func (t *txn) denyAll() {
	for start, end := range backend.Descriptors(t.req.Checks) {
		t.deny(start, end)
		t.report(start, end)
	}
}

// try charges the checks of a descriptor that fit, and reports whether it passes.
// If not, nothing is charged; if so, those in shadow mode that did not fit are
// charged what a denied call is.
func (t *txn) try(start, end int) bool {
	checks, out := t.req.Checks[start:end], t.out[start:end]
	for i := start; end-start > 1 && i < end; i++ {
		c := &t.counters[t.counter[i]]
		c.saved = t.copy(c.state)
	}
	for i := start; i < end; i++ {
		t.charge(i)
	}
	if backend.Passes(checks, out) {
		for i := start; i < end; i++ {
			if !t.out[i].Allowed {
				t.deny(i, i+1)
			}
		}
		return true
	}
	for i := start; end-start > 1 && i < end; i++ {
		if !t.req.Checks[i].Looks() { // otherwise the counter may be another descriptor's
			c := &t.counters[t.counter[i]]
			c.state, c.settled = c.saved, nil
		}
	}
	return false
}

// charge charges a check if it fits.
func (t *txn) charge(i int) {
	check := &t.req.Checks[i]
	if check.Looks() {
		check.Try(t.look(i), t.now, &t.out[i])
		return
	}
	c := t.open(i)
	c.state = check.Try(c.state, t.now, &t.out[i])
}

// deny charges the checks of a descriptor as a denied call.
func (t *txn) deny(start, end int) {
	for i := start; i < end; i++ {
		if check := &t.req.Checks[i]; !check.Looks() {
			c := t.open(i)
			c.state = check.Deny(c.state, t.now, &t.out[i])
		}
	}
}

// open returns the counter of a check for a change, its state settled.
func (t *txn) open(i int) *counter {
	c := &t.counters[t.counter[i]]
	l := t.req.Checks[i].Limit
	c.state = t.settle(l, c.state)
	c.settled, c.written = l, true
	return c
}

// settle settles the state: where it lies or, if it is of another length than the
// limit's, in memory of its own.
func (t *txn) settle(l *algo.Limit, s algo.State) algo.State {
	n := l.Words()
	if n == 0 || n == len(s) { // also what grows, which settles in memory of its own if need be
		return l.Settle(s, t.now, nil)
	}
	start := len(t.memory)
	t.memory = slices.Grow(t.memory, n)[:start+n]
	return l.Settle(s, t.now, t.memory[start:start:start+n])
}

// look returns the state of a check, settled for its limit, to be read only.
func (t *txn) look(i int) algo.State {
	c := &t.counters[t.counter[i]]
	l := t.req.Checks[i].Limit
	if c.settled == l {
		return c.state
	}
	t.scratch = append(t.scratch[:0], c.state...)
	return t.settle(l, t.scratch)
}

func (t *txn) report(start, end int) {
	for i := start; i < end; i++ {
		check := &t.req.Checks[i]
		t.out[i] = check.Report(t.look(i), t.now, &t.out[i])
		if !check.Looks() {
			t.counters[t.counter[i]].rank = rankOf(check.Limit, t.out[i])
		}
	}
}

// reset makes the txn ready for another request.
func (t *txn) reset() {
	clear(t.counters)
	clear(t.table)
	if cap(t.memory) > keptMemory || cap(t.scratch) > keptMemory {
		t.memory, t.scratch = nil, nil
	}
	*t = txn{
		hashes: t.hashes[:0], counters: t.counters[:0], counter: t.counter[:0], table: t.table[:0],
		memory: t.memory[:0], scratch: t.scratch[:0],
	}
}
