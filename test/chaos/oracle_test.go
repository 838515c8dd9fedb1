package chaos

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// blank is a record without calls, of one rule and so many replicas.
func blank(p algo.Params, replicas int, lease float64) *record {
	d := &domain{name: "each", rules: []*rule{nil, nil, nil, {limits: []algo.Params{p}, mode: "error", lease: lease}}}
	d.versions = []version{nil, {nil, nil, nil, variant{p}}}
	r := &record{plan: &plan{topology: single, replicas: replicas, domains: []*domain{d}}}
	r.rules = []ruleFile{{wrote: []int64{0, 0}}}
	for i := range replicas {
		r.rules[0].confirmed = append(r.rules[0].confirmed, confirmation{i, 1, 0})
	}
	return r
}

// says adds a call that took effect at that time.
func (r *record) says(at int64, hits int64, ok bool) {
	p := r.plan.domains[0].rules[3].limits[0]
	r.calls = append(r.calls, call{
		step: len(r.calls), replica: len(r.calls) % r.plan.replicas, sent: at - 100, got: at + 100, over: !ok,
		asks:    []ask{{rule: 3, values: []string{"x"}, hits: hits}},
		answers: []answer{{ok: ok, name: limitName(3, 0, 1), limit: p.Limit}},
	})
}

// history is a record of calls on one counter, as the algorithm itself decides them.
func history(t *testing.T, rng *rand.Rand, p algo.Params) *record {
	t.Helper()
	limit, err := algo.New(p)
	if err != nil {
		t.Fatal(err)
	}
	r := blank(p, 1, 0)
	var state algo.State
	at := int64(1_700_000_000_000_000)
	for step := range 400 {
		at += rng.Int64N(p.Window.Microseconds() / 4)
		hits := 1 + rng.Int64N(2)
		var decision algo.Decision
		state, decision = limit.Step(state, at, hits)
		r.calls = append(r.calls, call{
			step: step, sent: at - rng.Int64N(3000), got: at + rng.Int64N(3000), over: !decision.Allowed,
			asks: []ask{{rule: 3, values: []string{"x"}, hits: hits}},
			answers: []answer{{
				ok: decision.Allowed, name: limitName(3, 0, 1), limit: p.Limit, remaining: uint32(max(0, decision.Remaining)),
			}},
		})
	}
	return r
}

func draw(rng *rand.Rand) algo.Params {
	p := newParams(rng)
	p.Limit = uint32(pick(rng, 2, 3, 5))
	if p.Algorithm == algo.TokenBucket || p.Algorithm == algo.LeakyBucket || p.Algorithm == algo.Hybrid {
		p.Burst = p.Limit
	}
	return p
}

// What the algorithms themselves decide is never found fault with.
func TestOracleAcceptsTheAlgorithms(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		p := draw(rng)
		if v := history(t, rng, p).judge(); len(v.findings) > 0 {
			t.Fatalf("%+v: %s", p, v.findings[0])
		}
	}
}

// A counter that forgets, and one that never lets go, are found.
func TestOracleFindsWrongCounters(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, wrong := range []struct {
		name, found string
		do          func(r *record)
	}{
		{"everything is admitted", "more than the", func(r *record) {
			for i := range r.calls {
				r.calls[i].over, r.calls[i].answers[0].ok = false, true
			}
		}},
		{"everything is refused", "refused, though", func(r *record) {
			for i := range r.calls {
				r.calls[i].over, r.calls[i].answers[0].ok = true, false
			}
		}},
		{"the limit is another", "the limit is", func(r *record) { r.calls[7].answers[0].limit++ }},
		{"a version that was never written", "was never written", func(r *record) { r.calls[7].answers[0].name = limitName(3, 0, 2) }},
		{"an answer is missing", "0 answers to 1 descriptors", func(r *record) { r.calls[7].answers = nil }},
		{"no limit is reported", "without a limit", func(r *record) { r.calls[7].answers[0] = answer{ok: true} }},
		{"a client waits in vain", "an error without a reason", func(r *record) {
			r.calls[7].code, r.calls[7].answers = codes.DeadlineExceeded, nil
		}},
		{"the store is away with no fault", "an error without a reason", func(r *record) {
			r.calls[7].code, r.calls[7].text, r.calls[7].answers = codes.Unavailable, "the rate limit backend did not decide", nil
		}},
		{"the store is away for long after a fault", "an error without a reason", func(r *record) {
			c := &r.calls[len(r.calls)-1]
			c.code, c.text, c.answers = codes.Unavailable, "the rate limit backend did not decide", nil
			ended := c.sent - recovery.Microseconds() - 1
			r.faults = append(r.faults, fault{span: span{ended - 1000, ended}})
		}},
	} {
		t.Run(wrong.name, func(t *testing.T) {
			for range 5 {
				r := history(t, rng, draw(rng))
				wrong.do(r)
				v := r.judge()
				if len(v.findings) == 0 || !strings.Contains(v.findings[0].what, wrong.found) {
					t.Fatalf("%+v: found %v, want %q", r.plan.domains[0].rules[3].limits, v.findings, wrong.found)
				}
			}
		})
	}
}

// An error has a reason while the store or the replica is away.
func TestOracleAcceptsErrorsOfFaults(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	r := history(t, rng, draw(rng))
	c := &r.calls[100]
	c.code, c.text, c.answers = codes.Unavailable, "the rate limit backend did not decide", nil
	r.faults = []fault{{span: span{c.sent - 1000, c.sent - 500}}}
	c = &r.calls[200]
	c.code, c.text, c.answers = codes.Unavailable, "connection refused", nil
	r.outages = []outage{{span{c.sent - 1000, c.got + 1000}, 0}}
	if v := r.judge(); len(v.findings) > 0 || v.errors != 2 {
		t.Errorf("%d errors, findings %v", v.errors, v.findings)
	}
}

// A clock that steps back revives what had left the window since a counter was used
// last: seed 200027.
func TestOracleAcceptsWhatAStepBackRevives(t *testing.T) {
	p := algo.Params{Algorithm: algo.SlidingLog, Limit: 5, Window: 500 * time.Millisecond, DeniedHits: algo.Count}
	limit, err := algo.New(p)
	if err != nil {
		t.Fatal(err)
	}
	const start, stepped, back = int64(1_700_000_000_000_000), 850_000, time.Hour
	r := blank(p, 1, 0)
	var state algo.State
	for _, u := range []struct{ at, hits int64 }{{0, 1}, {370_000, 1}, {400_000, 1}, {450_000, 2}, {1_500_000, 1}} {
		clock := start + u.at
		if u.at > stepped {
			clock -= back.Microseconds()
		}
		var decision algo.Decision
		state, decision = limit.Step(state, clock, u.hits)
		r.says(start+u.at, u.hits, decision.Allowed)
	}
	if !r.calls[len(r.calls)-1].over {
		t.Fatal("the last request was admitted: want the log to be full, as nobody saw its oldest entry leave")
	}
	r.cuts = []cut{{span: span{start + stepped, start + stepped + 100}, replica: -1, back: back}}
	if v := r.judge(); len(v.findings) != 0 {
		t.Errorf("%v", v.findings)
	}
	r.cuts = nil
	if v := r.judge(); len(v.findings) != 1 {
		t.Errorf("without the step: %v", v.findings)
	}
}

// A loss of all counters is a reason to admit anew, once.
func TestOracleCutsWhereCountersAreLost(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	p := algo.Params{Algorithm: algo.SlidingLog, Limit: 3, Window: time.Second, DeniedHits: algo.Drop}
	r := history(t, rng, p)
	r.calls = nil
	at := int64(1_700_000_000_000_000)
	for i := range 6 {
		r.calls = append(r.calls, call{
			step: i, sent: at, got: at + 100, asks: []ask{{rule: 3, values: []string{"x"}, hits: 1}},
			answers: []answer{{ok: true, name: limitName(3, 0, 1), limit: 3}},
		})
		at += 1000
	}
	if v := r.judge(); len(v.findings) != 1 {
		t.Errorf("without a loss: %v", v.findings)
	}
	r.cuts = []cut{{span: span{r.calls[2].got + 10, r.calls[2].got + 20}, replica: -1}}
	if v := r.judge(); len(v.findings) != 0 {
		t.Errorf("with a loss: %v", v.findings)
	}
	r.cuts[0].span = span{r.calls[1].got + 10, r.calls[1].got + 20}
	if v := r.judge(); len(v.findings) != 1 {
		t.Errorf("with a loss that leaves four: %v", v.findings)
	}
}

// leasedHistory is a record of replicas that charge hits ahead and spend or give back
// what they hold, just when they like, and never hold more than their part.
func leasedHistory(t *testing.T, rng *rand.Rand, p algo.Params) *record {
	t.Helper()
	limit, err := algo.New(p)
	if err != nil {
		t.Fatal(err)
	}
	const replicas, lease = 3, 0.5
	part := int64(lease * float64(capacity(p)) / replicas)
	r := blank(p, replicas, lease)
	var state algo.State
	held := make([]int64, replicas)
	at := int64(1_700_000_000_000_000)
	step := func(hits int64) (ok bool) {
		next, decision := limit.Step(state, at, hits)
		if decision.Allowed || p.DeniedHits == algo.Drop || hits < 0 {
			state = next
		}
		return decision.Allowed
	}
	window := p.Window.Microseconds()
	for i := range 1000 {
		was := at / window
		at += rng.Int64N(window / 40)
		if p.Algorithm == algo.FixedWindow && at/window > was {
			clear(held)
		}
		own := &held[i%replicas]
		if rng.IntN(10) == 0 {
			step(-*own)
			*own = 0
		}
		hits := 1 + rng.Int64N(3)
		switch {
		case *own >= hits:
			*own -= hits
			r.says(at, hits, true)
		default:
			r.says(at, hits, step(hits))
			if take := part - *own; take > 0 && step(take) {
				*own = part
			}
		}
	}
	return r
}

// What replicas do with leases is never found fault with; as if there were none, it is.
func TestOracleAcceptsLeases(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	found := 0
	for range 20 {
		p := newParams(rng)
		p.Limit, p.DeniedHits = 30, algo.Drop
		if p.Algorithm == algo.TokenBucket || p.Algorithm == algo.LeakyBucket || p.Algorithm == algo.Hybrid {
			p.Burst = p.Limit
		}
		r := leasedHistory(t, rng, p)
		if v := r.judge(); len(v.findings) > 0 {
			t.Fatalf("%+v: %s", p, v.findings[0])
		}
		r.plan.domains[0].rules[3].lease = 0
		found += len(r.judge().findings)
	}
	if found == 0 {
		t.Error("nothing that leases did would not be all right without")
	}
}

// What is admitted or refused under a lease beyond what it explains is found.
func TestOracleBoundsLeases(t *testing.T) {
	const second = 1_000_000
	began := int64(1_700_000_000 * second) // at which a window begins
	ended := began + 50_000
	for _, test := range []struct {
		name      string
		algorithm algo.Algorithm
		change    func(r *record)
		most      int64 // of the limit of 30 and three parts of 5
	}{
		{"sliding log", algo.SlidingLog, func(*record) {}, 45},
		{"in memory", algo.SlidingLog, func(r *record) { r.plan.topology, r.plan.replicas = inMemory, 1 }, 30},
		{"less than two hits are not taken ahead", algo.SlidingLog, func(r *record) { r.plan.domains[0].rules[3].lease = 0.19 }, 30},
		{"a replica was killed while it gave hits back", algo.SlidingLog, func(r *record) {
			r.outages = []outage{{span{began - second/2, began - second/4}, 0}}
		}, 50},
		{"a replica was killed long ago", algo.SlidingLog, func(r *record) {
			r.outages = []outage{{span{began - 3*second, began - 2*second}, 0}}
		}, 45},
		{"fixed window", algo.FixedWindow, func(*record) {}, 30},
		{"fixed window after a loss", algo.FixedWindow, func(r *record) {
			r.cuts = []cut{{span: span{began - 1000, began - 900}, replica: -1}}
		}, 45},
		{"fixed window long after a loss", algo.FixedWindow, func(r *record) {
			r.cuts = []cut{{span: span{began - 2*second, began - 2*second}, replica: -1}}
		}, 30},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, hits := range []int64{test.most, test.most + 1} {
				r := blank(algo.Params{Algorithm: test.algorithm, Limit: 30, Window: time.Second, DeniedHits: algo.Drop}, 3, 0.5)
				test.change(r)
				for i := range hits {
					r.says(began+5000+1000*i, 1, true)
				}
				if v := r.judge(); len(v.findings) != int(hits-test.most) {
					t.Errorf("%d admitted: found %v", hits, v.findings)
				}
			}
		})
	}
	// A refusal is explained by what others hold, of which so much was spent.
	for _, test := range []struct {
		name        string
		used, found int
		change      func(r *record)
	}{
		{"others hold the rest", 15, 0, func(*record) {}},
		{"others can't hold as much", 14, 1, func(*record) {}},
		{"one that was killed held the rest", 10, 0, func(r *record) { r.outages = []outage{{span{ended, ended + 1}, 0}} }},
		{"others and one that was killed can't hold as much", 9, 1, func(r *record) { r.outages = []outage{{span{ended, ended + 1}, 0}} }},
		{"a call may have taken some that nobody knows of", 0, 0, func(r *record) { r.faults = []fault{{span{ended, ended + 1}, netDown}} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := blank(algo.Params{Algorithm: algo.SlidingLog, Limit: 30, Window: time.Second, DeniedHits: algo.Drop}, 3, 0.5)
			test.change(r)
			for i := range test.used {
				r.says(began+5000+1000*int64(i), 1, true)
			}
			r.says(began+60_000, 1, false)
			if v := r.judge(); len(v.findings) != test.found {
				t.Errorf("found %v, want %d", v.findings, test.found)
			}
		})
	}
}

// What a move of slots and a master that was replaced do to counters is accepted, and
// no more than that.
func TestOracleBoundsClusters(t *testing.T) {
	const second = 1_000_000
	began := int64(1_700_000_000 * second)
	moved := span{began - 5000, began - 1000} // a window may begin 5 ms late
	for _, test := range []struct {
		name  string
		next  int64 // when the limit was used up again, after some hits at the window's begin
		moves []span
		stale []span
		found int
	}{
		{"nothing has happened", 10_000, nil, nil, 1},
		{"a key was late", 10_000, []span{moved}, nil, 0},
		{"a key was moved long ago", 10_000, []span{{began - 3*second, began - 3*second + 4000}}, nil, 1},
		{"a master had been replaced", 10_000, nil, []span{{began, began + 3000}}, 0},
		{"a master was replaced later", 10_000, nil, []span{{began + 4000, began + 5000}}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := blank(algo.Params{Algorithm: algo.FixedWindow, Limit: 3, Window: time.Second, DeniedHits: algo.Drop}, 1, 0)
			r.moves, r.stale = test.moves, test.stale
			r.says(began-100_000, 1, true)
			r.says(began+3000, 2, true)
			for i := range int64(3) {
				r.says(began+test.next+1000*i, 1, true)
			}
			if v := r.judge(); len(v.findings) != test.found {
				t.Errorf("found %v, want %d", v.findings, test.found)
			}
		})
	}
	t.Run("hits after a key is on time again", func(t *testing.T) {
		r := blank(algo.Params{Algorithm: algo.FixedWindow, Limit: 3, Window: time.Second, DeniedHits: algo.Drop}, 1, 0)
		r.moves = []span{moved}
		for i := range int64(4) {
			r.says(began+8000+1000*i, 1, true)
		}
		if v := r.judge(); len(v.findings) != 1 {
			t.Errorf("found %v, want that there was one too many", v.findings)
		}
	})
}

// The same seed makes the same plan, requests included.
func TestPlansRepeat(t *testing.T) {
	for seed := range uint64(12) {
		a, b := newPlan(seed, quick), newPlan(seed, quick)
		for d := range a.domains {
			for v := 1; v < len(a.domains[d].versions); v++ {
				if string(a.domains[d].file(v)) != string(b.domains[d].file(v)) {
					t.Errorf("seed %d: version %d of a domain differs", seed, v)
				}
			}
		}
		if len(a.events) != len(b.events) || len(a.events) == 0 {
			t.Errorf("seed %d: %d and %d events", seed, len(a.events), len(b.events))
		}
		one, other := a.requests(3), b.requests(3)
		for range 100 {
			r1, d1, asks1, p1 := one.next()
			r2, d2, asks2, p2 := other.next()
			if r1 != r2 || d1 != d2 || p1 != p2 || len(asks1) != len(asks2) || asks1[0].hits != asks2[0].hits {
				t.Fatalf("seed %d: streams differ", seed)
			}
		}
	}
}
