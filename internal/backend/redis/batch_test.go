package redis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/backendtest"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/backend/redis/refusals"
)

func openFor(t *testing.T, o Options) *Backend {
	t.Helper()
	o.Addrs = []string{redistest.Start(t, redistest.Config{}).Addr}
	o.Timeout, o.DialTimeout = 10*time.Second, 10*time.Second
	return redistest.Open(t, New, o)
}

// limitsOf are limits of n hits, of every algorithm, and of every way to treat
// denied hits.
func limitsOf(t testing.TB, n uint32) (all []*algo.Limit) {
	t.Helper()
	for a := range algo.Algorithms() {
		for denied := algo.Count; denied <= algo.Drain; denied++ {
			for _, strict := range []bool{false, true} {
				p := algo.Params{Algorithm: algo.Algorithm(a), Limit: n, Window: 3 * time.Second, DeniedHits: denied, Strict: strict}
				if p.Algorithm == algo.LeakyBucket {
					p.Burst = 5
				}
				if l, err := algo.New(p); err == nil { // not all can be strict
					all = append(all, l)
				}
			}
		}
	}
	for denied := algo.Count; denied <= algo.Drain; denied++ {
		l, err := algo.New(algo.Params{Limit: n, Calendar: algo.Calendar{Every: algo.EveryDay, Zone: "Europe/Berlin"}, DeniedHits: denied})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

// generator makes up requests for a few counters.
type generator struct {
	rng    *rand.Rand
	limits []*algo.Limit
	other  []*algo.Limit // what a few hold a counter to instead, as overrides do; or none
	keys   int
}

func (g *generator) limit(key int) *algo.Limit {
	if g.other != nil && g.rng.IntN(4) == 0 {
		return g.other[key%len(g.other)]
	}
	return g.limits[key%len(g.limits)]
}

func (g *generator) request() backend.Request {
	req := backend.Request{AllOrNothing: g.rng.IntN(4) == 0}
	descriptors := 1
	if g.rng.IntN(3) == 0 {
		descriptors += g.rng.IntN(3)
	}
	for d := range descriptors {
		role := backend.Role(max(0, g.rng.IntN(6)-3))
		for range 1 + g.rng.IntN(8)/7 {
			key := g.rng.IntN(g.keys)
			req.Checks = append(req.Checks, backend.Check{
				Key: fmt.Appendf(nil, "counter %d", key), Limit: g.limit(key),
				Hits: int64(g.rng.IntN(8) - 2), Descriptor: d, Role: role,
			})
		}
	}
	return req
}

// TestBatch decides many requests in one call, as combining does, and compares
// them with the reference, which decides them one by one.
func TestBatch(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	now := int64(1_700_000_000_000_000)
	b := openFor(t, Options{Clock: func() int64 { return now }})
	reference := backendtest.NewReference(func() int64 { return now })
	all := limitsOf(t, 7)
	g := &generator{rng: rand.New(rand.NewPCG(seed, 0)), limits: all, other: limitsOf(t, 4), keys: 2 * len(all)}
	for round := range 300 {
		now += g.rng.Int64N(1_000_000)
		var batch []*op
		var want [][]algo.Decision
		for range 1 + g.rng.IntN(30) {
			req := g.request()
			decisions := make([]algo.Decision, len(req.Checks))
			if err := reference.Decide(context.Background(), &req, decisions); err != nil {
				t.Fatal(err)
			}
			want = append(want, decisions)
			batch = append(batch, newOp(req.Checks, req.AllOrNothing, make([]algo.Decision, len(req.Checks)), time.Now(), time.Now().Add(b.opts.Timeout)))
		}
		b.call(batch, batch[0].deadline)
		for i, o := range batch {
			if o.err != nil {
				t.Fatal(o.err)
			}
			for j := range o.out {
				if o.out[j] != want[i][j] {
					t.Fatalf("round %d, request %d of %d, check %d: %+v of %+v:\n got %+v\nwant %+v",
						round, i, len(batch), j, o.checks[j], o.checks[j].Limit.Params(), o.out[j], want[i][j])
				}
			}
		}
	}
}

// TestRefusals answers from memory what it can, and compares every field of every
// decision with the reference. Its clock never steps back: what a refused call
// that Redis hears of would then leave behind differs.
func TestRefusals(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, bytes := range []int{1 << 20, refusals.MinBytes} {
		now := int64(1_700_000_000_000_000)
		clock := func() int64 { return now }
		b := openFor(t, Options{Clock: clock, LocalCacheBytes: bytes})
		reference := backendtest.NewReference(clock)
		all := limitsOf(t, 7)
		g := &generator{rng: rand.New(rand.NewPCG(seed, 0)), limits: all, keys: len(all)}
		answered := 0
		for round := range 6000 {
			now += g.rng.Int64N(100_000)
			req := g.request()
			want := make([]algo.Decision, len(req.Checks))
			if err := reference.Decide(context.Background(), &req, want); err != nil {
				t.Fatal(err)
			}
			got := make([]algo.Decision, len(req.Checks))
			probe := newOp(req.Checks, req.AllOrNothing, make([]algo.Decision, len(req.Checks)), time.Now(), time.Now().Add(time.Second))
			known := b.refusals.Answer(probe.checks, probe.ids, probe.out, probe.began)
			if known {
				answered++
			}
			if err := b.Decide(context.Background(), &req, got); err != nil {
				t.Fatal(err)
			}
			for i := range want {
				want[i].Remembered = known
				if got[i] != want[i] {
					t.Fatalf("round %d, check %d: %+v of %+v:\n got %+v\nwant %+v", round, i, req.Checks[i], req.Checks[i].Limit.Params(), got[i], want[i])
				}
			}
		}
		if answered < 50 {
			t.Errorf("%d requests were answered from memory: want many", answered)
		}
	}
}

// TestRefusalsOfALoweredLog: of a log that was filled under a higher limit, some
// hits leave before one passes; under a limit of 0 none ever does.
func TestRefusalsOfALoweredLog(t *testing.T) {
	t.Parallel()
	log := func(n uint32) *algo.Limit {
		l, err := algo.New(algo.Params{Algorithm: algo.SlidingLog, Limit: n, Window: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	now := int64(1_700_000_000_000_000)
	clock := func() int64 { return now }
	b := openFor(t, Options{Clock: clock, LocalCacheBytes: 1 << 20})
	reference := backendtest.NewReference(clock)
	decide := func(c backend.Check) (got, want algo.Decision, remembered bool) {
		req := backend.Request{Checks: []backend.Check{c}}
		out := make([]algo.Decision, 2)
		if err := reference.Decide(context.Background(), &req, out[:1]); err != nil {
			t.Fatal(err)
		}
		if err := b.Decide(context.Background(), &req, out[1:]); err != nil {
			t.Fatal(err)
		}
		remembered = out[1].Remembered
		out[1].Remembered = false
		return out[1], out[0], remembered
	}
	for _, lowered := range []uint32{0, 2} {
		c := backend.Check{Key: fmt.Appendf(nil, "lowered to %d", lowered), Limit: log(7), Hits: 1}
		for range 7 {
			decide(c)
			now += 100_000
		}
		c.Limit = log(lowered)
		remembered := 0
		for range 60 {
			got, want, known := decide(c)
			if known {
				remembered++
			}
			if got != want {
				t.Fatalf("limit %d, remembered: %v:\n got %+v\nwant %+v", lowered, known, got, want)
			}
			now += 30_000
		}
		if remembered == 0 {
			t.Errorf("limit %d: nothing was answered from memory", lowered)
		}
	}
}

// TestRealClock lets Redis tell the time, as in production, where counters are
// kept in part as the time when their key expires. Each decision is compared
// with the step at the time that Redis used.
func TestRealClock(t *testing.T) {
	t.Parallel()
	b := openFor(t, Options{})
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	var all []*algo.Limit
	for _, window := range []time.Duration{2 * time.Millisecond, 7 * time.Millisecond, 100 * time.Millisecond, time.Hour, 1_000_003 * time.Microsecond} {
		for _, p := range []algo.Params{
			{Algorithm: algo.FixedWindow, Limit: 20}, {Algorithm: algo.TokenBucket, Limit: 21},
			{Algorithm: algo.LeakyBucket, Limit: 700, Burst: 19}, {Algorithm: algo.SlidingLog, Limit: 150},
			{Algorithm: algo.Hybrid, Limit: 23}, {Algorithm: algo.SlidingWindow, Limit: 24, Strict: true},
			{Algorithm: algo.SlidingWindow, Limit: 25}, {Algorithm: algo.SlidingWindow, Limit: 1 << 30},
		} {
			p.Window = window
			l, err := algo.New(p)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, l)
		}
	}
	for _, c := range []algo.Calendar{{Every: algo.EveryDay, Zone: "Asia/Kathmandu"}, {Every: algo.EveryMonth, Zone: "Europe/Berlin", Starts: 15}, {Every: algo.EveryYear}} {
		l, err := algo.New(algo.Params{Limit: 1 << 30, Calendar: c})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	states := make([]algo.State, len(all))
	for range 20_000 {
		i := rng.IntN(len(all))
		l, hits := all[i], rng.Int64N(4)-1+rng.Int64N(2)
		if rng.IntN(8) == 0 {
			hits = rng.Int64N(l.Capacity())
		}
		out := make([]algo.Decision, 1)
		o := newOp([]backend.Check{{Key: fmt.Append(nil, i), Limit: l, Hits: hits}}, false, out, time.Now(), time.Now().Add(b.opts.Timeout))
		if b.call([]*op{o}, o.deadline); o.err != nil {
			t.Fatal(o.err)
		}
		var want algo.Decision
		if states[i], want = l.Step(states[i], o.now, hits); out[0] != want {
			t.Fatalf("%+v, %d hits at %d:\n got %+v\nwant %+v", l.Params(), hits, o.now, out[0], want)
		}
	}
}
