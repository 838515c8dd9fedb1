// Package refusals owns the memory of counters that have no room left, so that requests
// for them are refused without a call to Redis.
//
// Who owns what:
//
//	         the caller's               │ the shard's, under its lock
//	                                    │
//	before a call   epoch <── Epochs ───┼── epoch
//	after it        epoch ── Remember ──┼─> known, if the epoch is the same still
//	hits go back    Forget ─────────────┼─> nothing known, and the next epoch
//	a request       Answer <────────────┼── known: what is settled to now is a copy
//
// A refusal never changes, so it is read without the lock. An answer that was on its way
// when anything was forgotten may be from before, and is not remembered.
package refusals

import (
	"slices"
	"sync"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
)

// Memory remembers counters without any room, under limits whose denied calls charge
// nothing. While a counter has no room, no call can have charged it, so the answers from
// here are exactly those of Redis. Hits that other replicas give back, and their resets,
// show after recall. A Memory is safe for concurrent use, and a nil one remembers nothing.
type Memory struct {
	clock  func() int64 // of tests, in µs since the epoch; nil for none
	most   int          // of each shard
	shards [shards]shard
}

type shard struct {
	mu    sync.Mutex
	known map[keys.ID]*refusal
	epoch uint64 // how often anything was forgotten
}

// refusal is the state of a counter.
type refusal struct {
	limit *algo.Limit
	state algo.State    // nil under a limit whose answers have only parts of the state: last is all that is known
	last  algo.Decision // of one hit
	now   int64         // when it was so by Redis' clock, in µs since the epoch,
	sent  time.Time     // and a moment before by ours
}

const (
	// recall is how long a refusal is remembered at most. It bounds for how long
	// hits that other replicas give back are missed, at the cost of a call.
	recall = time.Second
	// bytesEach is about what one takes.
	bytesEach = 320
	shards    = 64
)

// MinBytes is how many bytes a Memory needs to remember anything.
const MinBytes = shards * bytesEach

// New returns a memory of about that many bytes, nil if they are less than MinBytes.
// clock is Redis' clock, in µs since the epoch, if a test controls it; else nil.
func New(bytes int, clock func() int64) *Memory {
	m := &Memory{clock: clock}
	if m.most = bytes / bytesEach / shards; m.most == 0 {
		return nil
	}
	for i := range m.shards {
		m.shards[i].known = map[keys.ID]*refusal{}
	}
	return m
}

func (m *Memory) shard(of keys.ID) *shard { return &m.shards[of[1]%shards] }

// Answer decides a request if each of its descriptors is one check that is known to be
// refused, and reports whether it did; if not, out may hold anything. now is when the
// request came, and ids are those of the checks' counters.
func (m *Memory) Answer(checks []backend.Check, ids []keys.ID, out []algo.Decision, now time.Time) bool {
	if m == nil {
		return false
	}
	for start, end := range backend.Descriptors(checks) {
		if end-start > 1 || !m.refuse(&checks[start], ids[start], &out[start], now) {
			return false
		}
	}
	return true
}

// refuse decides the check if it is known to be refused.
func (m *Memory) refuse(c *backend.Check, of keys.ID, out *algo.Decision, began time.Time) bool {
	if c.Hits <= 0 || c.Limit.Holds() { // what is held may go back at any time
		return false
	}
	s := m.shard(of)
	s.mu.Lock()
	known := s.known[of]
	s.mu.Unlock()
	if known == nil || known.limit != c.Limit {
		return false
	}
	since := began.Sub(known.sent)
	if m.clock != nil {
		since = time.Duration(m.clock()-known.now) * time.Microsecond
	}
	if since < 0 || since > recall {
		return false
	}
	if known.state == nil {
		d := known.last
		if c.Hits != 1 || d.RetryAfter <= since || d.ResetAfter > 0 && d.ResetAfter <= since { // the oldest hit has left
			return false
		}
		d.ResetAfter = max(0, d.ResetAfter-since)
		if d.RetryAfter != algo.Never {
			d.RetryAfter -= since
		}
		d.Remembered = true
		*out = d
		return true
	}
	now := known.now + since.Microseconds()
	state := c.Limit.Settle(slices.Clone(known.state), now, nil)
	d := c.Limit.Report(state, now, c.Hits, false)
	d.Remembered = true
	*out = d
	return d.Remaining <= 0
}

// Epochs appends the epoch of each counter, for Remember after a call that is about to be
// made; none if nothing is remembered.
func (m *Memory) Epochs(dst []uint64, ids []keys.ID) []uint64 {
	if m == nil {
		return dst
	}
	for _, of := range ids {
		s := m.shard(of)
		s.mu.Lock()
		dst = append(dst, s.epoch)
		s.mu.Unlock()
	}
	return dst
}

// Found is the answer of a call about one counter.
type Found struct {
	Decision algo.Decision
	State    algo.State // that it left behind; nil of a limit that is answered in part. Remember copies it.
	At       int64      // when that was by Redis' clock, in µs since the epoch,
	Sent     time.Time  // and a moment before by ours
	Epoch    uint64     // of the counter, from before the call
}

// Remember keeps the answer about the check's counter, if it has no room.
func (m *Memory) Remember(c *backend.Check, of keys.ID, f Found) {
	if f.Decision.Remaining > 0 || c.Hits <= 0 || c.Limit.DeniedHits() == algo.Count || c.Limit.Holds() {
		return
	}
	known := &refusal{limit: c.Limit, now: f.At, sent: f.Sent, last: f.Decision}
	if !c.Limit.AnswersInPart() {
		known.state = append(algo.State{}, f.State...)
	} else if c.Hits > 1 || f.Decision.Allowed {
		return
	}
	s := m.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != f.Epoch {
		return
	}
	if s.known[of] == nil && len(s.known) >= m.most {
		s.evict(f.Sent)
	}
	s.known[of] = known
}

// evict makes room: of a few, it takes one that has outlived recall, or else any.
func (s *shard) evict(now time.Time) {
	var victim keys.ID
	tried := 0
	for of, known := range s.known { // in random order
		victim = of
		if tried++; tried == 8 || now.Sub(known.sent) > recall {
			break
		}
	}
	delete(s.known, victim)
}

// Forget forgets a counter: hits were given back to it, or it is reset.
func (m *Memory) Forget(of keys.ID) {
	if m == nil {
		return
	}
	s := m.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, of)
	s.epoch++
}
