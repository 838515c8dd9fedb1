package redis

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
)

// rehearsal is replicas that hold leases of one counter, in a time of its own: calls
// take as long as they like, overtake each other and fail, before or after they have
// charged.
type rehearsal struct {
	t        *testing.T
	rng      *rand.Rand
	params   algo.Params
	share    float64
	replicas []*leases
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

// sum is hits that were admitted, when they were decided.
type sum struct{ at, hits int64 }

// skew is by how much Redis' clock is ahead.
const skew = 123_456

func newRehearsal(t *testing.T, rng *rand.Rand, p algo.Params, share float64, replicas int) *rehearsal {
	r := &rehearsal{t: t, rng: rng, params: p, share: share, pause: time.Millisecond, now: 1_700_000_000_000_000}
	for range replicas {
		r.replicas, r.limits = append(r.replicas, newLeases(replicas)), append(r.limits, nil)
		r.load(len(r.limits) - 1)
	}
	return r
}

// load loads the rules again, in which nothing has changed.
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

// run has everything happen that is due in the next d.
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

// request asks a replica for hits.
func (r *rehearsal) request(replica int, hits int64) {
	c := backend.Check{Key: []byte("hot"), Limit: r.limits[replica], Hits: hits, Lease: r.share}
	o := newOp([]backend.Check{c}, false, make([]algo.Decision, 1), r.time(), r.time().Add(time.Second))
	l := r.replicas[replica]
	if l.spend(o, r.time()) {
		r.spent += hits
		r.admit(hits)
		if left := o.out[0].Remaining; left < 0 || left > c.Limit.Capacity()-hits {
			r.t.Errorf("%d hits were spent and %d remain of %d", hits, left, c.Limit.Capacity())
		}
		return
	}
	asks := l.asks([]*op{o}, r.time())
	r.call(replica, withAsks([]*op{o}, asks), asks, func(at int64) {
		if o.out[0].Allowed {
			r.admitted = append(r.admitted, sum{at, hits})
		}
	})
}

func (r *rehearsal) admit(hits int64) { r.admitted = append(r.admitted, sum{r.now, hits}) }

// call makes a call; done hears when it was decided, if it does not fail.
func (r *rehearsal) call(replica int, ops []*op, asks []*ask, done func(at int64)) {
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
			r.decide(ops)
		}
	})
	r.after(there+back, func() {
		var err error
		if fails {
			err = errors.New("no answer")
		}
		for _, a := range asks {
			r.replicas[replica].settle(a, sent, r.time(), err)
		}
		if !fails {
			done(decided)
		}
	})
}

// decide is the script.
func (r *rehearsal) decide(ops []*op) {
	for _, o := range ops {
		c := &o.checks[0]
		o.now = r.now + skew
		if o.void(c, o.now) {
			continue
		}
		r.state, o.out[0] = c.Limit.Decide(c.Limit.Settle(r.state, o.now, nil), o.now, c.Hits)
	}
}

// giveBack has the replica give back what has expired, again and again.
func (r *rehearsal) giveBack(replica int) {
	for _, a := range r.replicas[replica].overdue(r.time()) {
		r.call(replica, []*op{a.give}, []*ask{a}, func(int64) {})
	}
	r.after(leaseLife, func() { r.giveBack(replica) })
}

// traffic asks a replica for hits, again and again.
func (r *rehearsal) traffic(replica int) {
	r.request(replica, 1+r.rng.Int64N(4))
	if r.rng.IntN(100) == 0 {
		r.load(replica)
	}
	r.after(r.upTo(r.pause), func() { r.traffic(replica) })
}

// Whatever becomes of calls, replicas together never hold more than the share, and
// admit no more than what the limit does and that share; a fixed window is not exceeded.
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
				r.after(r.upTo(leaseLife), func() { r.traffic(i) })
				r.after(r.upTo(leaseLife), func() { r.giveBack(i) })
			}
			most := int64(share * float64(r.limits[0].Capacity()))
			for range 1500 {
				// What is held while there is much room is spent when there is none.
				if rng.IntN(8) == 0 {
					r.pause = []time.Duration{2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 200 * time.Millisecond}[rng.IntN(4)]
				}
				r.run(10 * time.Millisecond)
				var held int64
				for _, l := range r.replicas {
					n, _ := l.total(r.time())
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

// TestLeaseOfTwoWindows: of two calls that are under way at once one may be decided in
// the next window. What the other took is void there, whichever is heard of first.
func TestLeaseOfTwoWindows(t *testing.T) {
	limit, err := algo.New(algo.Params{Algorithm: algo.FixedWindow, Limit: 100, Window: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	c := backend.Check{Key: []byte("hot"), Limit: limit, Hits: 1, Lease: 1}
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		l := newLeases(1)
		sent := time.UnixMicro(1_700_000_000_999_000)
		var asks []*ask
		for i := range 2 {
			o := newOp([]backend.Check{c}, false, make([]algo.Decision, 1), sent, sent.Add(time.Second))
			a := &ask{of: o.ids[0], first: o, hits: 1}
			l.prepare(a, sent)
			a.taken = int64(10 + i) // whatever they wished for
			a.lease.asked += a.taken
			a.take = a.lease.op(a.of, a.taken)
			a.take.now = sent.UnixMicro() + int64(i)*1000
			a.take.out[0] = algo.Decision{Allowed: true, Remaining: 80, ResetAfter: time.Duration(1+i*999) * time.Millisecond}
			o.now, o.out[0] = a.take.now, a.take.out[0]
			asks = append(asks, a)
		}
		now := sent.Add(2 * time.Millisecond)
		for _, i := range order {
			l.settle(asks[i], sent, now, nil)
		}
		h := asks[0].lease
		if h.left != 11 || h.asked != 0 {
			t.Errorf("heard in the order %v: %d left of the next window, and %d asked for, want the 11 of the call that it decided", order, h.left, h.asked)
		}
		// It goes back when its time is over, unless the window is by then.
		a := &ask{of: asks[0].of, lease: h}
		if h.giveBack(a, now); a.give != nil {
			t.Errorf("given back at once")
		}
		ends := sent.Add(time.Second + time.Millisecond).UnixMicro()
		if h.giveBack(a, sent.Add(leaseLife)); a.given != 11 || a.give.before != ends {
			t.Errorf("%d given back until %d, want 11 until the end of the window at %d", a.given, a.give.before, ends)
		}
		h.left = 1
		a = &ask{of: asks[0].of, lease: h}
		if h.giveBack(a, sent.Add(time.Second)); a.give != nil || h.left != 0 {
			t.Errorf("given back when the window was over, and %d left", h.left)
		}
	}
}

// TestLeasesOutliveReloads: what is held of a limit serves on when the rules are loaded
// again and say the same, and goes back when they do not.
func TestLeasesOutliveReloads(t *testing.T) {
	load := func(n uint32) *algo.Limit {
		limit, err := algo.New(algo.Params{Algorithm: algo.SlidingLog, Limit: n, Window: time.Second, DeniedHits: algo.Drop})
		if err != nil {
			t.Fatal(err)
		}
		return limit
	}
	l, now := newLeases(1), time.UnixMicro(1_700_000_000_000_000)
	c := backend.Check{Key: []byte("hot"), Limit: load(100), Hits: 1, Lease: 1}
	request := func() *op {
		return newOp([]backend.Check{c}, false, make([]algo.Decision, 1), now, now.Add(time.Second))
	}
	a := &ask{of: keys.IDOf(c.Key), first: request(), hits: 1}
	l.prepare(a, now)
	a.lease.left, a.lease.until = 10, now.Add(leaseLife)
	c.Limit = load(100)
	if !l.spend(request(), now) || a.lease.left != 9 {
		t.Errorf("%d left after a hit under the same limit, loaded again; want it taken from the 10 held", a.lease.left)
	}
	c.Limit = load(50)
	if l.spend(request(), now) {
		t.Error("a hit under another limit was taken from what was held under the old one")
	}
	old := a.lease
	a = &ask{of: a.of, first: request(), hits: 1}
	if l.prepare(a, now); a.given != 9 || a.give.checks[0].Limit.Params() != c.Limit.Params() || a.lease == old {
		t.Errorf("%d given back under another limit, want all 9", a.given)
	}
	if held, _ := l.total(now); held != 9 {
		t.Errorf("%d held while they are on their way, want 9", held)
	}
	l.settle(a, now, now, errors.New("no answer"))
	c.Limit = load(30)
	a = &ask{of: a.of, first: request(), hits: 1}
	l.prepare(a, now)
	for _, test := range []struct {
		after time.Duration
		want  int64
	}{{returnIn, 9}, {2*returnIn + 1, 0}} {
		if held := a.lease.pending(now.Add(test.after)); held != test.want {
			t.Errorf("%d held %v after they were sent in vain, want %d", held, test.after, test.want)
		}
	}
}

// TestWhatALeaseGivesBackIsNotRefused: a refusal from before is remembered no more.
func TestWhatALeaseGivesBackIsNotRefused(t *testing.T) {
	t.Parallel()
	b := openFor(t, Options{LocalCacheBytes: 1 << 20})
	limit, err := algo.New(algo.Params{Algorithm: algo.TokenBucket, Limit: 10, Window: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	decide := func(hits int64) algo.Decision {
		out := make([]algo.Decision, 1)
		c := backend.Check{Key: []byte("hot"), Limit: limit, Hits: hits}
		if err := b.Decide(t.Context(), &backend.Request{Checks: []backend.Check{c}}, out); err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	decide(10)
	c := backend.Check{Key: []byte("hot"), Limit: limit, Lease: 1}
	h := newLease(&c, 1)
	h.left = 4 // of the ten
	of := keys.IDOf(c.Key)
	s := b.leases.shard(of)
	s.mu.Lock()
	s.held[of] = h
	s.mu.Unlock()
	if d := decide(1); d.Allowed {
		t.Fatalf("%+v while all is taken", d)
	}
	b.returnOverdue(time.Now())
	if d := decide(1); !d.Allowed || d.Remaining != 3 {
		t.Errorf("%+v after 4 hits went back, want 3 left", d)
	}
}
