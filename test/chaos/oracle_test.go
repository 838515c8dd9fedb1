package chaos

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// history is a record of calls on one counter, as the algorithm itself decides them.
func history(t *testing.T, rng *rand.Rand, p algo.Params) *record {
	t.Helper()
	limit, err := algo.New(p)
	if err != nil {
		t.Fatal(err)
	}
	d := &domain{name: "each", rules: []*rule{nil, nil, nil, {limits: []algo.Params{p}, mode: "error"}}}
	d.versions = []version{nil, {nil, nil, nil, variant{p}}}
	r := &record{plan: &plan{topology: single, replicas: 1, domains: []*domain{d}}}
	r.rules = []ruleFile{{wrote: []int64{0, 0}, confirmed: []confirmation{{0, 1, 0}}}}
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
