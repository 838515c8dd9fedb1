package lease

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
)

// rehearsal simulates replicas that hold leases of one counter, with a clock of its own.
// Calls take any time, overtake each other, and fail before or after they have charged.
type rehearsal struct {
	t        *testing.T
	rng      *rand.Rand
	params   algo.Params
	share    float64
	replicas []*Leases
	limits   []*algo.Limit // of each replica, as it has loaded the rules
	state    algo.State
	now      int64         // µs since the epoch
	pause    time.Duration // between requests to a replica, at most
	todo     []happening
	admitted []sum
	spent    int64 // hits, from leases
}

type happening struct {
	at int64
	do func()
}

// sum is a number of hits that were admitted, and when they were decided.
type sum struct{ at, hits int64 }

// skew is how far Redis' clock is ahead.
const skew = 123_456

func newRehearsal(t *testing.T, rng *rand.Rand, p algo.Params, share float64, replicas int) *rehearsal {
	r := &rehearsal{t: t, rng: rng, params: p, share: share, pause: time.Millisecond, now: 1_700_000_000_000_000}
	for range replicas {
		r.replicas, r.limits = append(r.replicas, New(replicas)), append(r.limits, nil)
		r.load(len(r.limits) - 1)
	}
	return r
}

// load loads the unchanged rules again.
func (r *rehearsal) load(replica int) {
	limit, err := algo.New(r.params)
	if err != nil {
		r.t.Fatal(err)
	}
	r.limits[replica] = limit
}

func (r *rehearsal) time() time.Time { return time.UnixMicro(r.now) }

func (r *rehearsal) after(d time.Duration, do func()) {
	r.todo = append(r.todo, happening{r.now + d.Microseconds(), do})
}

// run runs all events that are due in the next d.
func (r *rehearsal) run(d time.Duration) {
	end := r.now + d.Microseconds()
	defer func() { r.now = end }()
	for len(r.todo) > 0 {
		slices.SortStableFunc(r.todo, func(a, b happening) int { return cmp.Compare(a.at, b.at) })
		next := r.todo[0]
		if next.at > end {
			break
		}
		r.todo, r.now = r.todo[1:], next.at
		next.do()
	}
}

func (r *rehearsal) upTo(d time.Duration) time.Duration { return time.Duration(r.rng.Int64N(int64(d))) }

// counter is the counter of all requests.
var counter = keys.IDOf([]byte("hot"))

// query is a check on its way to Redis and back.
type query struct {
	check  backend.Check
	before int64 // see Transfer.Before
	answer Answer
}

// queries are the checks of a call: the hits that a trip gives back, those of a request,
// if there is one, and those that the trip takes.
type queries struct{ give, first, take *query }

func queriesOf(t *Trip, first *query) (q queries) {
	q.first = first
	if t.Give != nil {
		q.give = &query{check: t.Give.Check, before: t.Give.Before}
	}
	if t.Take != nil {
		q.take = &query{check: t.Take.Check}
	}
	return q
}

func (q *query) answered() (a Answer) {
	if q != nil {
		a = q.answer
	}
	return a
}

// request asks a replica for hits.
func (r *rehearsal) request(replica int, hits int64) {
	c := backend.Check{Key: []byte("hot"), Limit: r.limits[replica], Hits: hits, Lease: r.share}
	l := r.replicas[replica]
	if d, spent := l.Spend(counter, &c, r.time()); spent {
		r.spent += hits
		r.admit(hits)
		if left := d.Remaining; left < 0 || left > c.Limit.Capacity()-hits {
			r.t.Errorf("%d hits were spent and %d remain of %d", hits, left, c.Limit.Capacity())
		}
		return
	}
	first := &query{check: c}
	r.call(replica, l.Begin(counter, &c, hits, r.time()), first, func(at int64) {
		if first.answer.Allowed {
			r.admitted = append(r.admitted, sum{at, hits})
		}
	})
}

func (r *rehearsal) admit(hits int64) { r.admitted = append(r.admitted, sum{r.now, hits}) }

// call makes a call; done gets the time of its decision, unless it fails.
func (r *rehearsal) call(replica int, t *Trip, first *query, done func(at int64)) {
	q := queriesOf(t, first)
	sent, fails, arrives := r.time(), r.rng.IntN(20) == 0, true
	if fails {
		arrives = r.rng.IntN(2) == 0
	}
	there, back := r.upTo(20*time.Millisecond), r.upTo(20*time.Millisecond)
	if r.rng.IntN(30) == 0 {
		there *= 100
	}
	var decided int64
	r.after(there, func() {
		if decided = r.now; arrives {
			r.decide(q)
		}
	})
	r.after(there+back, func() {
		var err error
		if fails {
			err = errors.New("no answer")
		}
		r.replicas[replica].End(t, q.first.answered(), q.take.answered(), sent, r.time(), err)
		if !fails {
			done(decided)
		}
	})
}

// decide stands for the script.
func (r *rehearsal) decide(all queries) {
	now := r.now + skew
	for _, q := range []*query{all.give, all.first, all.take} {
		if q == nil || q.before > 0 && now >= q.before {
			continue
		}
		l := q.check.Limit
		q.answer.At = now
		r.state, q.answer.Decision = l.Decide(l.Settle(r.state, now, nil), now, q.check.Hits)
	}
}

// giveBack gives back the replica's expired hits, again and again.
func (r *rehearsal) giveBack(replica int) {
	for _, t := range r.replicas[replica].Overdue(r.time()) {
		r.call(replica, t, nil, func(int64) {})
	}
	r.after(Lifetime, func() { r.giveBack(replica) })
}

// traffic asks a replica for hits, again and again.
func (r *rehearsal) traffic(replica int) {
	r.request(replica, 1+r.rng.Int64N(4))
	if r.rng.IntN(100) == 0 {
		r.load(replica)
	}
	r.after(r.upTo(r.pause), func() { r.traffic(replica) })
}

// Whatever becomes of calls, replicas together never hold more than the share. They admit
// at most the limit and that share; a fixed window is not exceeded.
func TestLeasesNeverExceedTheShare(t *testing.T) {
	t.Parallel()
	const limit, share, replicas = 300, 0.5, 3
	seed := rand.Uint64()
	t.Log("seed", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, p := range []algo.Params{
		{Algorithm: algo.FixedWindow, DeniedHits: algo.Drop},
		{Algorithm: algo.FixedWindow, DeniedHits: algo.Count},
		{Algorithm: algo.SlidingLog, DeniedHits: algo.Drop},
		{Algorithm: algo.SlidingWindow, Strict: true, DeniedHits: algo.Drop},
		{Algorithm: algo.TokenBucket, Burst: 100, DeniedHits: algo.Drop},
	} {
		p.Limit, p.Window = limit, 200*time.Millisecond
		t.Run(p.Algorithm.String()+" "+p.DeniedHits.String(), func(t *testing.T) {
			r := newRehearsal(t, rng, p, share, replicas)
			for i := range replicas {
				r.after(r.upTo(Lifetime), func() { r.traffic(i) })
				r.after(r.upTo(Lifetime), func() { r.giveBack(i) })
			}
			most := int64(share * float64(r.limits[0].Capacity()))
			for range 1500 {
				// Hits that are held while there is much room are spent when there is none.
				if rng.IntN(8) == 0 {
					r.pause = []time.Duration{2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 200 * time.Millisecond}[rng.IntN(4)]
				}
				r.run(10 * time.Millisecond)
				var held int64
				for _, l := range r.replicas {
					n, _ := l.Held(r.time())
					held += n
				}
				if held < 0 || held > most {
					t.Fatalf("%d held at once, of at most %d", held, most)
				}
			}
			if r.spent == 0 {
				t.Fatal("no lease was spent")
			}
			n := r.busiest()
			t.Logf("%d hits spent, at most %d admitted in a window", r.spent, n)
			bound := limit + most
			switch p.Algorithm {
			case algo.FixedWindow:
				bound = limit
			case algo.TokenBucket:
				bound += int64(p.Burst)
			}
			if n > bound {
				t.Errorf("%d admitted in a window, want at most %d", n, bound)
			}
		})
	}
}

// busiest returns the most hits admitted in any window, of fixed ones in one of those.
func (r *rehearsal) busiest() (most int64) {
	slices.SortStableFunc(r.admitted, func(a, b sum) int { return cmp.Compare(a.at, b.at) })
	window := r.params.Window.Microseconds()
	var n int64
	first := 0
	for _, s := range r.admitted {
		for n += s.hits; !r.together(r.admitted[first].at, s.at, window); first++ {
			n -= r.admitted[first].hits
		}
		most = max(most, n)
	}
	return most
}

func (r *rehearsal) together(a, b, window int64) bool {
	if r.params.Algorithm == algo.FixedWindow {
		return (a+skew)/window == (b+skew)/window
	}
	return b-a < window
}

// TestLeaseOfTwoWindows: of two calls under way at once, one may be decided in the next
// window. The hits that the other took are void there, whichever answer comes first.
func TestLeaseOfTwoWindows(t *testing.T) {
	limit, err := algo.New(algo.Params{Algorithm: algo.FixedWindow, Limit: 100, Window: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	c := backend.Check{Key: []byte("hot"), Limit: limit, Hits: 1, Lease: 1}
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		l := New(1)
		sent := time.UnixMicro(1_700_000_000_999_000)
		var trips []*Trip
		var answers []Answer
		for i := range 2 {
			trip := l.Begin(counter, &c, 1, sent)
			taken := int64(10 + i) // whatever they asked for
			trip.lease.asked += taken
			trip.Take = trip.lease.transfer(taken)
			trips = append(trips, trip)
			answers = append(answers, Answer{
				Decision: algo.Decision{Allowed: true, Remaining: 80, ResetAfter: time.Duration(1+i*999) * time.Millisecond},
				At:       sent.UnixMicro() + int64(i)*1000,
			})
		}
		now := sent.Add(2 * time.Millisecond)
		for _, i := range order {
			l.End(trips[i], answers[i], answers[i], sent, now, nil)
		}
		h := trips[0].lease
		if h.left != 11 || h.asked != 0 {
			t.Errorf("heard in the order %v: %d left of the next window, and %d asked for, want the 11 of the call that it decided", order, h.left, h.asked)
		}
		// The lease is given back when it expires, unless the window has ended by then.
		if give := h.giveBack(now); give != nil {
			t.Errorf("given back at once")
		}
		ends := sent.Add(time.Second + time.Millisecond).UnixMicro()
		if give := h.giveBack(sent.Add(Lifetime)); give.hits() != 11 || give.Before != ends {
			t.Errorf("%+v given back, want 11 until the end of the window at %d", give, ends)
		}
		h.left = 1
		if give := h.giveBack(sent.Add(time.Second)); give != nil || h.left != 0 {
			t.Errorf("given back when the window was over, and %d left", h.left)
		}
	}
}

// TestFloodOfCountersIsBounded: clients who bring ever new values of any length make no more
// leases than the bound, and take none from a counter that holds hits.
func TestFloodOfCountersIsBounded(t *testing.T) {
	limit, err := algo.New(algo.Params{Algorithm: algo.TokenBucket, Limit: 1000, Window: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	l, now := New(1), time.UnixMicro(1_700_000_000_000_000)
	c := backend.Check{Key: []byte("hot"), Limit: limit, Hits: 1, Lease: 1}
	hot := l.Begin(counter, &c, 1, now).lease
	hot.left, hot.until = 10, now.Add(Lifetime)
	const bound = len(l.shards) * mostLeases
	for n := range 2 * bound {
		c.Key = strconv.AppendInt(nil, int64(n), 10)
		if trip := l.Begin(keys.IDOf(c.Key), &c, 1, now); trip != nil {
			l.End(trip, Answer{}, Answer{}, now, now, nil)
		}
	}
	leases := 0
	l.each(func(keys.ID, *lease) { leases++ })
	if leases > bound || leases < bound*9/10 {
		t.Errorf("%d leases, want at most %d and about that many", leases, bound)
	}
	c.Key = []byte("hot")
	if _, spent := l.Spend(counter, &c, now); !spent {
		t.Error("the hot counter has lost its lease")
	}
	c.Key = make([]byte, mostKey+1)
	if l.Begin(keys.IDOf(c.Key), &c, 1, now) != nil {
		t.Error("a lease of a counter with a long key")
	}
}

// TestLeasesOutliveReloads: held hits of a limit stay in use when a reload does not change
// the limit, and are given back when it does.
func TestLeasesOutliveReloads(t *testing.T) {
	load := func(n uint32) *algo.Limit {
		limit, err := algo.New(algo.Params{Algorithm: algo.SlidingLog, Limit: n, Window: time.Second, DeniedHits: algo.Drop})
		if err != nil {
			t.Fatal(err)
		}
		return limit
	}
	l, now := New(1), time.UnixMicro(1_700_000_000_000_000)
	c := backend.Check{Key: []byte("hot"), Limit: load(100), Hits: 1, Lease: 1}
	spend := func() bool {
		_, spent := l.Spend(counter, &c, now)
		return spent
	}
	old := l.Begin(counter, &c, 1, now).lease
	old.left, old.until = 10, now.Add(Lifetime)
	c.Limit = load(100)
	if !spend() || old.left != 9 {
		t.Errorf("%d left after a hit under the same limit, loaded again; want it taken from the 10 held", old.left)
	}
	c.Limit = load(50)
	if spend() {
		t.Error("a hit under another limit was taken from what was held under the old one")
	}
	trip := l.Begin(counter, &c, 1, now)
	if trip.Give.hits() != 9 || trip.Give.Check.Limit.Params() != c.Limit.Params() || trip.lease == old {
		t.Errorf("%+v given back under another limit, want all 9", trip.Give)
	}
	if held, _ := l.Held(now); held != 9 {
		t.Errorf("%d held while they are on their way, want 9", held)
	}
	l.End(trip, Answer{}, Answer{}, now, now, errors.New("no answer"))
	c.Limit = load(30)
	trip = l.Begin(counter, &c, 1, now)
	for _, test := range []struct {
		after time.Duration
		want  int64
	}{{returnIn, 9}, {2*returnIn + 1, 0}} {
		if held := trip.lease.pending(now.Add(test.after)); held != test.want {
			t.Errorf("%d held %v after they were sent in vain, want %d", held, test.after, test.want)
		}
	}
}
