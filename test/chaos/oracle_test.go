package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/backendtest"
)

// blank is a record without calls, of one rule, on a number of replicas.
func blank(p algo.Params, replicas int, lease float64) *record {
	d := &domain{name: "each", rules: []*rule{nil, nil, nil, {limits: []algo.Params{p}, mode: "error", lease: lease}}}
	d.versions = []version{nil, {nil, nil, nil, variant{{Params: p}}}}
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
		answers: []answer{{ok: ok, name: limitName(3, 0, 1), limit: p.Limit, vague: true}},
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
			asks:    []ask{{rule: 3, values: []string{"x"}, hits: hits}},
			answers: []answer{answerOf(limitName(3, 0, 1), limit.Params(), decision, decision.Allowed)},
		})
	}
	return r
}

// answerOf is what the service says of a decision.
func answerOf(name string, p algo.Params, d algo.Decision, ok bool) answer {
	wait := d.ResetAfter
	if !ok && d.RetryAfter != algo.Never {
		wait = d.RetryAfter
	}
	return answer{
		ok: ok, name: name, limit: p.Limit, remaining: uint32(max(0, d.Remaining)),
		wait: int64((wait + time.Second - 1) / time.Second),
	}
}

func draw(rng *rand.Rand) algo.Params {
	p := tune(rng, newParams(rng, single), false)
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
				r.calls[i].over, r.calls[i].answers[0].ok, r.calls[i].answers[0].vague = false, true, true
			}
		}},
		{"everything is refused", "refused, though", func(r *record) {
			for i := range r.calls {
				r.calls[i].over, r.calls[i].answers[0] = true, answer{name: limitName(3, 0, 1), limit: r.calls[i].answers[0].limit, vague: true}
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

// The window of a hybrid is revived from as long ago as its bucket lets it live: seed
// 5007.
func TestOracleAcceptsWhatAStepBackRevivesOfAHybrid(t *testing.T) {
	p := algo.Params{Algorithm: algo.Hybrid, Limit: 5, Window: 200 * time.Millisecond, Burst: 20, Strict: true, SubWindows: 4, DeniedHits: algo.Count}
	limit, err := algo.New(p)
	if err != nil {
		t.Fatal(err)
	}
	const start, stepped, back = int64(1_700_000_000_000_000), 1_450_000, time.Hour
	r := blank(p, 1, 0)
	var state algo.State
	for _, u := range []struct{ at, hits int64 }{{0, 5}, {10_000, 50}, {4_000_000, 1}} {
		clock := start + u.at
		if u.at > stepped {
			clock -= back.Microseconds()
		}
		var decision algo.Decision
		state, decision = limit.Step(state, clock, u.hits)
		r.says(start+u.at, u.hits, decision.Allowed)
	}
	if !r.calls[2].over {
		t.Fatal("the first request after the step was admitted: want its window to be full again")
	}
	r.cuts = []cut{{span: span{start + stepped, start + stepped + 100}, replica: -1, back: back}}
	if v := r.judge(); len(v.findings) != 0 {
		t.Errorf("%v", v.findings)
	}
}

// A bucket that was full of room for long is found used up by the first to ask
// after a step back, also by one who is refused for it and charges nothing: from then on
// it drains, and not from the step. Seed 2011.
func TestOracleAcceptsABucketThatDrainsFromItsFirstUseAfterAStepBack(t *testing.T) {
	p := algo.Params{Algorithm: algo.Hybrid, Limit: 8, Window: 900 * time.Millisecond, Burst: 3, Strict: true, DeniedHits: algo.Drop}
	limit, err := algo.New(p)
	if err != nil {
		t.Fatal(err)
	}
	const start, stepped, back = int64(1_700_000_000_000_000), 300_000, time.Hour + 1100*time.Millisecond
	r := blank(p, 1, 0)
	r.plan.topology = clocked
	var state algo.State
	var decisions []algo.Decision
	for _, at := range []int64{0, 2_340_000, 2_560_000} {
		clock := start + at
		if at > stepped {
			clock -= back.Microseconds()
		}
		next, decision := limit.Step(state, clock, 1)
		state = next
		r.says(start+at, 1, decision.Allowed)
		c := &r.calls[len(r.calls)-1]
		c.answers[0] = answerOf(c.answers[0].name, limit.Params(), decision, decision.Allowed)
		decisions = append(decisions, decision)
	}
	if decisions[1].Allowed || !decisions[2].Allowed || decisions[2].Remaining != 0 {
		t.Fatalf("after the step it is decided %+v and %+v: want a refusal, and an admission that leaves nothing", decisions[1], decisions[2])
	}
	r.cuts = []cut{{span: span{start + stepped, start + stepped + 100}, replica: -1, back: back}}
	if v := r.judge(); len(v.findings) != 0 {
		t.Errorf("%v", v.findings)
	}
	r.cuts = nil
	if v := r.judge(); len(v.findings) == 0 {
		t.Error("without the step nothing is found")
	}
}

// Of two calls under way at once either may be decided first, whichever began first.
func TestOracleLetsACallPassThatOverlapsARefusal(t *testing.T) {
	p := algo.Params{Algorithm: algo.SlidingLog, Limit: 1, Window: 10 * time.Second, DeniedHits: algo.Drop}
	limit, err := algo.New(p)
	if err != nil {
		t.Fatal(err)
	}
	const start = int64(1_700_000_000_000_000)
	passedAt, refusedAt := start+400, start+900
	state, passed := limit.Step(algo.State{}, passedAt, 1)
	_, refused := limit.Step(state, refusedAt, 1)
	if !passed.Allowed || refused.Allowed {
		t.Fatalf("%+v, %+v: want an admission and a refusal", passed, refused)
	}
	r := blank(p, 1, 0)
	for _, c := range []struct {
		sent, got int64
		decision  algo.Decision
	}{{start, start + 1000, refused}, {start + 10, start + 500, passed}} {
		r.says(c.sent, 1, c.decision.Allowed)
		last := &r.calls[len(r.calls)-1]
		last.sent, last.got = c.sent, c.got
		last.answers[0] = answerOf(last.answers[0].name, limit.Params(), c.decision, c.decision.Allowed)
	}
	if v := r.judge(); len(v.findings) != 0 {
		t.Errorf("%v", v.findings)
	}
	r.calls[1].sent, r.calls[1].got = start+1001, start+1500
	if v := r.judge(); len(v.findings) == 0 {
		t.Error("nothing is found when it passes after the refusal")
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
			answers: []answer{{ok: true, name: limitName(3, 0, 1), limit: 3, vague: true}},
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
		p := tune(rng, newParams(rng, single), false)
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
	// What others hold, and what was spent of it, explains a refusal.
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

// world decides requests for one descriptor, whose limits change, as the definition of
// a store does; mistakes are made by what tests put in between.
type world struct {
	r       *record
	ref     *backendtest.Reference
	now     int64
	version int
	salt    string // of the counters' names
	late    int64  // how long a request takes until it is decided, in µs

	wrongly func(*backend.Request) // before each request
	twist   func(variant) variant  // what the service takes a version for
	wait    func(algo.Decision) algo.Decision
}

// reloads returns a world in which versions of the limits follow each other.
func reloads(rng *rand.Rand, versions int, base []algo.Params, shadow int) *world {
	d := &domain{name: "each", rules: []*rule{nil, nil, nil, {limits: base, mode: "error"}}, versions: []version{nil}}
	w := &world{r: &record{plan: &plan{topology: single, replicas: 1, domains: []*domain{d}}}, now: 1_700_000_000_000_000}
	w.r.rules = []ruleFile{{wrote: []int64{0}}}
	for range versions {
		var v variant
		for _, p := range base[:1+rng.IntN(len(base))] {
			v = append(v, limit{tune(rng, p, false), chance(rng, shadow)})
		}
		d.versions = append(d.versions, version{nil, nil, nil, v})
	}
	w.ref = backendtest.NewReference(func() int64 { return w.now })
	return w
}

// reload puts the next version in force.
func (w *world) reload() {
	file := &w.r.rules[0]
	w.version++
	if file.wrote = append(file.wrote, w.now); w.version > 1 {
		file.changes = append(file.changes, change{span{w.now, w.now + 10}, w.version, w.version})
	}
	w.now += 10
	file.confirmed = append(file.confirmed, confirmation{0, w.version, w.now})
	w.now += 10
}

// ask records a request that costs that many hits.
func (w *world) ask(t *testing.T, hits int64) {
	t.Helper()
	of := w.r.plan.domains[0].versions[w.version][3]
	if w.twist != nil {
		of = w.twist(of)
	}
	req := backend.Request{}
	for at, l := range of {
		compiled, err := algo.New(l.Params)
		if err != nil {
			t.Fatal(err)
		}
		check := backend.Check{Key: fmt.Appendf(nil, "%d%s", at, w.salt), Limit: compiled, Hits: hits}
		if l.shadow {
			check.Role = backend.Shadow
		}
		req.Checks = append(req.Checks, check)
	}
	if w.wrongly != nil {
		w.wrongly(&req)
	}
	out := make([]algo.Decision, len(req.Checks))
	if err := w.ref.Decide(t.Context(), &req, out); err != nil {
		t.Fatal(err)
	}
	least, rehearsed := -1, of.rehearsed()
	ok, wait := true, algo.Decision{}
	for at, d := range out {
		if of[at].shadow && !rehearsed {
			continue
		}
		if ok = ok && d.Allowed; !d.Allowed {
			wait.RetryAfter = max(wait.RetryAfter, d.RetryAfter)
		}
		if o := least; o < 0 || !d.Allowed && out[o].Allowed || d.Allowed == out[o].Allowed && d.Remaining < out[o].Remaining {
			least = at
		}
	}
	d := out[least]
	if d.RetryAfter = wait.RetryAfter; w.wait != nil {
		d = w.wait(d)
	}
	w.r.calls = append(w.r.calls, call{
		step: len(w.r.calls), sent: w.now - w.late, got: w.now + 4, over: !ok && !rehearsed,
		asks:    []ask{{rule: 3, values: []string{"x"}, hits: hits}},
		answers: []answer{answerOf(limitName(3, least, w.version), of[least].Params, d, ok || rehearsed)},
	})
}

// run makes requests at random, and reloads in between.
func (w *world) run(t *testing.T, rng *rand.Rand) *verdict {
	t.Helper()
	for range len(w.r.plan.domains[0].versions) - 1 {
		w.reload()
		steps, longest := 5+rng.IntN(60), int64(300_000)
		if w.r.plan.domains[0].versions[w.version][3][0].Limit == 0 { // for shorter than is remembered
			steps, longest = 3, 1000
		}
		for range steps {
			w.late = pick(rng, int64(3), 3, 100_000)
			w.now += 8 + w.late + rng.Int64N(pick(rng, 1000, min(longest, 50_000), longest))
			hits := pick(rng, int64(1), 1, 1, 2, 5, 1<<40, 0, -1)
			if !w.r.plan.domains[0].rules[3].refund {
				hits = max(hits, 0)
			}
			w.ask(t, hits)
		}
	}
	return w.r.judge()
}

// What the definition decides is never found fault with, however limits change, with
// limits in shadow mode alone and beside others.
func TestOracleAcceptsReloads(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(11, seed))
		base := []algo.Params{newParams(rng, single), newParams(rng, single)}
		w := reloads(rng, 8, base[:1+rng.IntN(2)], pick(rng, 0, 30))
		w.r.plan.domains[0].rules[3].refund = chance(rng, 20)
		if v := w.run(t, rng); len(v.findings) > 0 {
			t.Fatalf("seed %d: %s\n%+v", seed, v.findings[0], w.r.plan.domains[0].versions)
		}
	}
}

// shadowed takes limits in shadow mode for enforced ones.
func shadowed(v variant) variant {
	v = slices.Clone(v)
	for i := range v {
		v[i].shadow = false
	}
	return v
}

// What the service must not do with counters when limits change, nor with limits in shadow
// mode, is found.
func TestOracleFindsWrongReloads(t *testing.T) {
	charge := func(t *testing.T, w *world, at int, l limit, hits int64) {
		compiled, err := algo.New(l.Params)
		if err != nil {
			t.Fatal(err)
		}
		req := backend.Request{Checks: []backend.Check{{Key: fmt.Appendf(nil, "%d%s", at, w.salt), Limit: compiled, Hits: hits}}}
		if err := w.ref.Decide(t.Context(), &req, make([]algo.Decision, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for _, wrong := range []struct {
		name   string
		limits int
		shadow int
		do     func(t *testing.T, w *world)
	}{
		{name: "a reload begins counters anew", limits: 1, do: func(_ *testing.T, w *world) {
			w.wrongly = func(*backend.Request) { w.salt = fmt.Sprint(w.version) }
		}},
		{name: "a reload gives a hit back", limits: 1, do: func(t *testing.T, w *world) {
			seen := 1
			w.wrongly = func(*backend.Request) {
				if w.version != seen {
					charge(t, w, 0, w.r.plan.domains[0].versions[seen][3][0], -1)
					seen = w.version
				}
			}
		}},
		{name: "a reload takes what is left", limits: 1, do: func(t *testing.T, w *world) {
			seen := 1
			w.wrongly = func(*backend.Request) {
				if w.version != seen {
					l := w.r.plan.domains[0].versions[seen][3][0]
					l.DeniedHits = algo.Drain
					charge(t, w, 0, l, 1<<40)
					seen = w.version
				}
			}
		}},
		{name: "a lowered limit cuts what was used", limits: 1, do: func(t *testing.T, w *world) {
			w.wrongly = func(req *backend.Request) {
				look, out := *req, make([]algo.Decision, 1)
				look.Checks = slices.Clone(req.Checks)
				look.Checks[0].Hits = 0
				if err := w.ref.Decide(t.Context(), &look, out); err != nil {
					t.Fatal(err)
				}
				if over := out[0].Remaining; over < 0 {
					charge(t, w, 0, w.r.plan.domains[0].versions[w.version][3][0], over)
				}
			}
		}},
		{name: "a limit of 0 forgets", limits: 1, do: func(_ *testing.T, w *world) {
			zeros := 0
			for _, v := range w.r.plan.domains[0].versions[1:] {
				if zeros++; zeros%2 == 0 {
					v[3][0].Limit = 0
				}
			}
			w.wrongly = func(req *backend.Request) {
				if req.Checks[0].Limit.Params().Limit == 0 {
					w.salt += "x"
				}
			}
		}},
		{name: "a refusal in shadow mode is not charged", limits: 1, shadow: 100, do: func(_ *testing.T, w *world) {
			w.twist = func(v variant) variant {
				v = slices.Clone(v)
				for i := range v {
					if v[i].shadow && v[i].DeniedHits == algo.Count {
						v[i].DeniedHits = algo.Drop
					}
				}
				return v
			}
		}},
		{name: "a limit in shadow mode refuses", limits: 2, shadow: 50, do: func(_ *testing.T, w *world) {
			w.twist = shadowed
		}},
		{name: "a limit in shadow mode refuses and is not named", limits: 2, shadow: 50, do: func(_ *testing.T, w *world) {
			w.wrongly = func(req *backend.Request) {
				for i := range req.Checks {
					req.Checks[i].Role = backend.Required
				}
			}
		}},
		{name: "refusals are not charged", limits: 1, do: func(_ *testing.T, w *world) {
			w.twist = func(v variant) variant {
				v = slices.Clone(v)
				v[0].DeniedHits = algo.Drop
				return v
			}
		}},
		{name: "the whole time until a reset is told", limits: 1, do: func(_ *testing.T, w *world) {
			w.wait = func(d algo.Decision) algo.Decision {
				d.RetryAfter = d.ResetAfter + time.Second
				return d
			}
		}},
	} {
		t.Run(wrong.name, func(t *testing.T) {
			for i, name := range algo.Algorithms() {
				const histories = 30
				found := false
				for seed := uint64(0); seed < histories && !found; seed++ {
					rng := rand.New(rand.NewPCG(13, seed))
					base := []algo.Params{newParams(rng, single), newParams(rng, single)}[:wrong.limits]
					base[0].Algorithm, base[0].Window = algo.Algorithm(i), 900*time.Millisecond
					w := reloads(rng, 8, base, wrong.shadow)
					wrong.do(t, w)
					found = len(w.run(t, rng).findings) > 0
				}
				if !found {
					t.Errorf("%s: found in none of %d histories", name, histories)
				}
			}
		})
	}
}

// A refusal that took long may have been charged at its beginning: seeds 4008 and 5007.
func TestOracleAcceptsDebtOfALongCall(t *testing.T) {
	p := algo.Params{Algorithm: algo.TokenBucket, Limit: 5, Window: 800 * time.Millisecond, Burst: 3, DeniedHits: algo.Count}
	limit, err := algo.New(p)
	if err != nil {
		t.Fatal(err)
	}
	const start = int64(1_700_000_000_000_000)
	r := blank(p, 1, 0)
	var state algo.State
	for _, u := range []struct{ at, hits int64 }{{0, 1 << 40}, {800_000, 1}} {
		var d algo.Decision
		state, d = limit.Step(state, start+u.at, u.hits)
		r.says(start+u.at, u.hits, d.Allowed)
		r.calls[len(r.calls)-1].answers[0] = answerOf(limitName(3, 0, 1), p, d, d.Allowed)
	}
	r.calls[0].got = start + 100_000
	if v := r.judge(); len(v.findings) != 0 {
		t.Errorf("%v", v.findings)
	}
}

// An answer may hold what the store has decided beside what it has not: one that is
// refused stands for all, and shows of the others that all is left. Seed 30000.
func TestOracleTellsErrorsOfSomeDescriptors(t *testing.T) {
	const at = int64(1_700_000_000_000_000)
	p := algo.Params{Algorithm: algo.TokenBucket, Limit: 5, Window: 900 * time.Millisecond, Burst: 1, DeniedHits: algo.Count}
	for _, test := range []struct {
		name, mode string
		over       bool // whether the other descriptor is refused
		remaining  uint32
		well       bool   // whether the store was
		finding    string // empty: none
	}{
		{"allowed", "allow", false, 1, false, ""},
		{"allowed beside a refusal", "allow", true, 1, false, ""},
		{"failed beside a refusal", "error", true, 1, false, ""},
		{"failed beside a refusal, by default", noFailure, true, 1, false, ""},
		{"failed with a store that is well", "error", true, 1, true, "answered without the store, which was well"},
		{"failed, and no error", "error", false, 1, false, "3 hits admitted"},
		{"refused, and said to pass", "deny", true, 1, false, "3 hits admitted"},
		{"admitted beside a refusal", "error", true, 0, false, "3 hits admitted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := blank(p, 1, 0)
			d := r.plan.domains[0]
			d.rules[3].mode = test.mode
			d.rules = append(d.rules, &rule{limits: []algo.Params{p}, mode: "deny"})
			d.versions[1] = append(d.versions[1], variant{{Params: p}})
			r.calls = []call{{
				sent: at, got: at + 100, over: test.over,
				asks: []ask{{rule: 4, values: []string{"y"}, hits: 1}, {rule: 3, values: []string{"x"}, hits: 3}},
				answers: []answer{
					{ok: !test.over, name: limitName(4, 0, 1), limit: p.Limit, wait: 1},
					{ok: true, name: limitName(3, 0, 1), limit: p.Limit, remaining: test.remaining},
				},
			}}
			if !test.well {
				r.faults = []fault{{span: span{at - 1000, at + 1000}}}
			}
			v := r.judge()
			switch {
			case test.finding == "" && len(v.findings) > 0:
				t.Errorf("%v", v.findings)
			case test.finding != "" && (len(v.findings) == 0 || !strings.Contains(v.findings[0].what, test.finding)):
				t.Errorf("found %v, want %q", v.findings, test.finding)
			}
		})
	}
}

// Of two limits in two stores an answer shows one, of which the store may have been
// well; the other may have been admitted without.
func TestOracleTellsErrorsOfOneOfTwoStores(t *testing.T) {
	const at = int64(1_700_000_000_000_000)
	p := algo.Params{Algorithm: algo.TokenBucket, Limit: 1, Window: 900 * time.Millisecond, Burst: 1, DeniedHits: algo.Drop}
	q := algo.Params{Algorithm: algo.TokenBucket, Limit: 1, Window: time.Second, Burst: 1, DeniedHits: algo.Drop}
	for _, test := range []struct {
		name     string
		topology topology
		findings int
	}{{"of two stores", perSecond, 0}, {"of one", single, 2}} {
		t.Run(test.name, func(t *testing.T) {
			r := blank(p, 1, 0)
			r.plan.topology = test.topology
			d := r.plan.domains[0]
			d.rules[3].limits, d.rules[3].mode = []algo.Params{p, q}, "allow"
			d.versions[1][3] = variant{{Params: p}, {Params: q}}
			for i := range 2 { // the answers show each limit once, with nothing left
				r.calls = append(r.calls, call{
					step: i, sent: at + int64(i)*1000, got: at + int64(i)*1000 + 100,
					asks:    []ask{{rule: 3, values: []string{"x"}, hits: 1}},
					answers: []answer{{ok: true, name: limitName(3, i, 1), limit: 1}},
				})
			}
			r.faults = []fault{{span: span{at - 1000, at + 5000}}}
			if v := r.judge(); len(v.findings) != test.findings {
				t.Errorf("%v, want %d", v.findings, test.findings)
			}
		})
	}
}
