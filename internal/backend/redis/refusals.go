package redis

import (
	"slices"
	"sync"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
)

// refusals remember counters without any room, as they were then. For as long as
// there is room for no hit nothing can have been charged, so that what is said of
// them here is what Redis would say, word for word: where a denied call charges
// nothing, and these are all that are answered from here. What other replicas
// give back or reset shows after recall.
type refusals struct {
	clock  func() int64 // of tests; see Options.Clock
	most   int          // of each shard
	shards [64]refusalShard
}

type refusalShard struct {
	mu    sync.Mutex
	known map[keys.ID]*refusal
	// forgotten counts what was forgotten, so that an answer that was on its way
	// then is not remembered.
	forgotten uint64
}

// refusal is the state of a counter.
type refusal struct {
	limit *algo.Limit
	state algo.State    // nil of a limit that is answered in part, of which just the decision is known
	last  algo.Decision // of one hit
	now   int64         // when it was so by Redis' clock, in µs since the epoch,
	sent  time.Time     // and a moment before by ours
}

const (
	// recall is how long a refusal is remembered at most. It bounds for how long
	// hits that other replicas give back are missed, at the cost of a call.
	recall = time.Second
	// refusalBytes is about what one takes.
	refusalBytes = 320
)

// newRefusals returns nil when there is no room for any.
func newRefusals(bytes int, clock func() int64) *refusals {
	r := &refusals{clock: clock}
	if r.most = bytes / refusalBytes / len(r.shards); r.most == 0 {
		return nil
	}
	for i := range r.shards {
		r.shards[i].known = map[keys.ID]*refusal{}
	}
	return r
}

func (r *refusals) shard(of keys.ID) *refusalShard { return &r.shards[of[1]%byte(len(r.shards))] }

// answer decides the request if each of its descriptors is one check that is
// known to be refused, and says whether it did.
func (r *refusals) answer(o *op) bool {
	for start, end := range backend.Descriptors(o.checks) {
		if end-start > 1 || !r.refuse(o, start) {
			return false
		}
	}
	return true
}

// refuse decides the i-th check if it is known to be refused.
func (r *refusals) refuse(o *op, i int) bool {
	c := &o.checks[i]
	if c.Hits <= 0 {
		return false
	}
	s := r.shard(o.ids[i])
	s.mu.Lock()
	known := s.known[o.ids[i]]
	s.mu.Unlock()
	if known == nil || known.limit != c.Limit {
		return false
	}
	since := o.began.Sub(known.sent)
	if r.clock != nil {
		since = time.Duration(r.clock()-known.now) * time.Microsecond
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
		o.out[i] = d
		return true
	}
	now := known.now + since.Microseconds()
	state := c.Limit.Settle(slices.Clone(known.state), now, nil)
	d := c.Limit.Report(state, now, c.Hits, false)
	d.Remembered = true
	o.out[i] = d
	return d.Remaining <= 0
}

// epoch returns what to hand to remember with the answer of a call that is about
// to be made.
func (r *refusals) epoch(of keys.ID) uint64 {
	s := r.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forgotten
}

// remember keeps the state that a check of the op left behind, if it has no room.
func (r *refusals) remember(o *op, i int, state algo.State, sent time.Time) {
	if len(o.epochs) == 0 { // a lease's own
		return
	}
	c, d, of := &o.checks[i], o.out[i], o.ids[i]
	if d.Remaining > 0 || c.Hits <= 0 || c.Limit.DeniedHits() == algo.Count {
		return
	}
	known := &refusal{limit: c.Limit, now: o.now, sent: sent, last: d}
	if !c.Limit.AnswersInPart() {
		known.state = append(algo.State{}, state...)
	} else if c.Hits > 1 || d.Allowed {
		return
	}
	s := r.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forgotten != o.epochs[i] {
		return
	}
	if s.known[of] == nil && len(s.known) >= r.most {
		s.evict(sent)
	}
	s.known[of] = known
}

// evict makes room: of a few, it takes one that has outlived recall, or else any.
func (s *refusalShard) evict(now time.Time) {
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

// forget drops what is known of a counter, which was given hits back.
func (r *refusals) forget(of keys.ID) {
	s := r.shard(of)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, of)
	s.forgotten++
}
