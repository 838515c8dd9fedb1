package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/backendtest"
)

// holders decides the calls of clients that hold as the definition of a store does.
// Mistakes are made by what tests put in between.
type holders struct {
	r   *record
	d   *domain
	ref *backendtest.Reference
	now int64

	id      func(call *call, a ask) string // which request the store takes it for
	twist   func(*backend.Check)
	after   func(*call, ask, *backend.Check, algo.Decision)
	expires func(algo.Params) algo.Params
	version int
}

func newHolders(rng *rand.Rand, versions int) *holders {
	d := &domain{name: "each", rules: make([]*rule, siblings), versions: make([]version, versions+1)}
	for i := range d.rules {
		d.rules[i] = &rule{}
	}
	for n := 1; n <= versions; n++ {
		d.versions[n] = make(version, siblings)
	}
	p := &plan{topology: single, replicas: 1, clients: 1, pause: 25 * time.Millisecond, domains: []*domain{d}}
	p.addHolds(rng)
	for _, r := range d.rules[siblings:] {
		r.mode = "error"
	}
	h := &holders{r: &record{plan: p, rules: []ruleFile{{wrote: []int64{0}}}}, d: d, now: 1_700_000_000_000_000}
	h.ref = backendtest.NewReference(func() int64 { return h.now })
	return h
}

// reload puts the next version in force.
func (h *holders) reload() {
	file := &h.r.rules[0]
	h.version++
	if file.wrote = append(file.wrote, h.now); h.version > 1 {
		file.changes = append(file.changes, change{span{h.now, h.now + 10}, h.version, h.version})
	}
	h.now += 10
	file.confirmed = append(file.confirmed, confirmation{0, h.version, h.now})
	h.now += 10
}

// send records a call as it was decided.
func (h *holders) send(t *testing.T, client int, s step) {
	t.Helper()
	c := call{client: client, step: len(h.r.calls), asks: s.asks, sent: h.now - 3, got: h.now + 3}
	for _, a := range s.asks {
		v := h.d.versions[h.version][a.rule]
		if v == nil {
			c.answers = append(c.answers, answer{ok: true})
			continue
		}
		p := v[0].Params
		if h.expires != nil {
			p = h.expires(p)
		}
		compiled, err := algo.New(p)
		if err != nil {
			t.Fatal(err)
		}
		id := a.id
		if h.id != nil {
			id = h.id(&c, a)
		}
		check := backend.Check{Key: fmt.Appendf(nil, "%d %q", a.rule, a.values), Limit: compiled, Hits: a.hits, Hold: algo.Hold{ID: number(id), Settles: a.settles}}
		if h.twist != nil {
			h.twist(&check)
		}
		d := h.decide(t, check)
		if h.after != nil {
			h.after(&c, a, &check, d)
		}
		said := answerOf(limitName(a.rule, 0, h.version), v[0].Params, d, d.Allowed)
		c.answers, c.over = append(c.answers, said), c.over || !d.Allowed
	}
	h.r.calls = append(h.r.calls, c)
	h.now += 6
}

func (h *holders) decide(t *testing.T, check backend.Check) algo.Decision {
	t.Helper()
	out := make([]algo.Decision, 1)
	if err := h.ref.Decide(t.Context(), &backend.Request{Checks: []backend.Check{check}}, out); err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// number is an ID as the service makes one of text.
func number(id string) (n uint64) {
	n = 14695981039346656037
	for i := range len(id) {
		n = (n ^ uint64(id[i])) * 1099511628211
	}
	return n
}

// run lets clients live through all versions.
func (h *holders) run(t *testing.T, rng *rand.Rand) *verdict {
	t.Helper()
	type client struct {
		next func() life
		life life
		at   int64 // of its next step
	}
	var all []*client
	for i := range 8 {
		all = append(all, &client{next: h.r.plan.lives(i)})
	}
	for range len(h.d.versions) - 1 {
		h.reload()
		for until := h.now + 1_500_000 + rng.Int64N(2_000_000); h.now < until; {
			c := slices.MinFunc(all, func(a, b *client) int { return int(a.at - b.at) })
			if len(c.life.steps) == 0 {
				c.life = c.next()
			} else {
				h.now = max(h.now, c.at)
				h.send(t, slices.Index(all, c), c.life.steps[0])
				if c.life.steps = c.life.steps[1:]; c.life.shy && h.r.calls[len(h.r.calls)-1].over {
					c.life.steps = nil
				}
			}
			if c.at = max(c.at, h.now); len(c.life.steps) > 0 {
				c.at += c.life.steps[0].pause.Microseconds()
			}
		}
	}
	return h.r.judge()
}

// What the definition decides of holds is never found fault with, however clients misbehave
// and limits change.
func TestOracleAcceptsHolds(t *testing.T) {
	granted := 0
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(21, seed))
		h := newHolders(rng, 6)
		v := h.run(t, rng)
		if len(v.findings) > 0 {
			t.Fatalf("seed %d: %s\n%+v", seed, v.findings[0], h.d.versions)
		}
		granted += v.granted
	}
	if granted < 6_000 {
		t.Errorf("%d holds were granted", granted)
	}
}

// What must not become of a hold is found.
func TestOracleFindsWrongHolds(t *testing.T) {
	settle := func(t *testing.T, h *holders, check *backend.Check, id string) {
		other := *check
		other.Hits, other.Hold = 0, algo.Hold{ID: number(id), Settles: true}
		h.decide(t, other)
	}
	for _, wrong := range []struct {
		name string
		do   func(t *testing.T, h *holders)
	}{
		{"a settlement gives back twice", func(t *testing.T, h *holders) {
			var latest string // that was granted a hold
			h.after = func(_ *call, a ask, check *backend.Check, d algo.Decision) {
				switch {
				case a.settles:
					settle(t, h, check, latest)
				case d.Allowed && a.hits > 0:
					latest = a.id
				}
			}
		}},
		{"a settlement of a refused request gives back", func(t *testing.T, h *holders) {
			var latest string
			h.after = func(_ *call, a ask, check *backend.Check, d algo.Decision) {
				switch {
				case a.settles && !d.Settled:
					settle(t, h, check, latest)
				case !a.settles && d.Allowed && a.hits > 0:
					latest = a.id
				}
			}
		}},
		{"a settlement gives nothing back", func(_ *testing.T, h *holders) {
			h.id = func(c *call, a ask) string {
				if a.settles {
					return fmt.Sprint("none ", c.step)
				}
				return a.id
			}
		}},
		{"a settlement is not charged", func(_ *testing.T, h *holders) {
			h.twist = func(c *backend.Check) {
				if c.Hold.Settles {
					c.Hits = 0
				}
			}
		}},
		{"a request that asks twice holds twice", func(_ *testing.T, h *holders) {
			asked := map[string]int{}
			h.id = func(_ *call, a ask) string {
				if !a.settles {
					asked[a.id]++
				}
				return fmt.Sprint(a.id, "/", asked[a.id])
			}
		}},
		{"holds expire early", func(_ *testing.T, h *holders) { h.expires = holdsFor(40 * time.Millisecond) }},
		{"holds expire late", func(_ *testing.T, h *holders) { h.expires = holdsFor(10 * time.Second) }},
		{"a request waits for the expiry", func(_ *testing.T, h *holders) {
			h.after = func(c *call, _ ask, _ *backend.Check, _ algo.Decision) {
				for i := range c.answers {
					if !c.answers[i].ok {
						c.answers[i].wait += 2
					}
				}
			}
		}},
		{"refusals hold", func(t *testing.T, h *holders) {
			h.after = func(_ *call, a ask, check *backend.Check, d algo.Decision) {
				if !a.settles && !d.Allowed && a.hits < 4 {
					p := check.Limit.Params()
					p.Limit = 1000
					if p.Burst > 0 {
						p.Burst = 1000
					}
					wide, err := algo.New(p)
					if err != nil {
						t.Fatal(err)
					}
					held := *check
					held.Limit = wide
					h.decide(t, held)
				}
			}
		}},
	} {
		t.Run(wrong.name, func(t *testing.T) {
			const histories = 10
			found, seed := 0, uint64(0)
			for ; seed < histories && found < histories/2; seed++ {
				rng := rand.New(rand.NewPCG(23, seed))
				h := newHolders(rng, 4)
				wrong.do(t, h)
				if len(h.run(t, rng).findings) > 0 {
					found++
				}
			}
			t.Logf("found in %d of %d histories", found, seed)
			if found < histories/2 {
				t.Errorf("found in %d of %d histories", found, histories)
			}
		})
	}
}

func holdsFor(d time.Duration) func(algo.Params) algo.Params {
	return func(p algo.Params) algo.Params {
		if p.Algorithm.AlwaysHolds() {
			p.Window = d
		} else {
			p.Hold = d
		}
		return p
	}
}

// The same seed draws the same rules that hold, and the same lives.
func TestLivesRepeat(t *testing.T) {
	a, b := newPlan(5, quick), newPlan(5, quick)
	one, other := a.lives(3), b.lives(3)
	for range 100 {
		if l, m := one(), other(); fmt.Sprint(l) != fmt.Sprint(m) {
			t.Fatalf("%+v and %+v", l, m)
		}
	}
}
