package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// The entries of descriptors under rules that hold: which request it is, and that it is
// over.
const (
	holdBy        = "request_id"
	settlingKey   = "phase"
	settlingValue = "done"
)

// addHolds draws two rules for each domain, one that limits how many requests are in
// flight, and one that lets them reserve, and the clients that hold.
func (p *plan) addHolds(rng *rand.Rand) {
	p.holders = 10
	for _, d := range p.domains {
		var able []algo.Algorithm
		for _, a := range rates() {
			if _, can := a.CanHold(); can {
				able = append(able, a)
			}
		}
		bases := []algo.Params{
			{Algorithm: algo.Concurrency},
			{Algorithm: pick(rng, able...), Window: newWindow(rng)},
		}
		first := len(d.rules)
		for i, key := range []string{"slots", "tokens"} {
			r := &rule{path: []level{{key, ""}}, values: [][]string{{"a", "b"}}, limits: bases[i : i+1], holds: true, mode: pick(rng, noFailure, "error", "allow", "deny", "local")}
			if p.topology == inMemory {
				r.mode = noFailure
			}
			d.rules = append(d.rules, r)
		}
		for n := 1; n < len(d.versions); n++ {
			for i, base := range bases {
				d.versions[n] = append(d.versions[n], nextHeld(rng, d.versions[n-1], first+i, base, n == len(d.versions)-1))
			}
		}
	}
}

// nextHeld draws a rule that holds in a version, given the version before it. The last
// version has it, so that it can be looked at in the end.
func nextHeld(rng *rand.Rand, before version, at int, base algo.Params, last bool) variant {
	was := variant(nil)
	if before != nil {
		was = before[at]
	}
	switch {
	case was != nil && !chance(rng, 30):
		return was
	case before != nil && !last && chance(rng, 20):
		return nil // left out, while requests hold
	}
	p := tune(rng, base, false)
	p.DeniedHits = algo.DeniedDefault
	expires := pick(rng, 300*time.Millisecond, 700*time.Millisecond, 1200*time.Millisecond, 2*time.Second)
	if p.Algorithm.AlwaysHolds() {
		p.Window = expires
	} else {
		p.Hold = expires
	}
	return variant{{Params: p}}
}

// expires returns how long a request holds that settles nothing; 0: the limit does not
// hold.
func expires(p algo.Params) time.Duration {
	if p.Algorithm.AlwaysHolds() {
		return p.Window
	}
	return p.Hold
}

// set returns a rule on sets of entries as a file has it.
func (r *rule) set(number, version int, v variant) map[string]any {
	key := r.path[0].key
	return map[string]any{
		"name": key, "match": map[string]any{key: map[string]any{}}, "count_by": []string{key}, "rate_limit": r.texts(number, version, v)[0],
		"hold": map[string]any{"by": holdBy, "expires": expires(v[0].Params).String(), "settled_by": map[string]string{settlingKey: settlingValue}},
	}
}

// unheld returns how many rules of the domain hold nothing: these are the first.
func (d *domain) unheld() int {
	if n := slices.IndexFunc(d.rules, func(r *rule) bool { return r.holds }); n >= 0 {
		return n
	}
	return len(d.rules)
}

// behaviour is how a request of a client that holds comes and goes.
type behaviour string

const (
	settlesOnce  behaviour = "settled once"
	settlesTwice behaviour = "settled twice"
	settlesFirst behaviour = "settled before they asked"
	settlesLate  behaviour = "settled late, most when they had expired"
	asksTwice    behaviour = "asked twice"
	dies         behaviour = "never settled"
	asksNothing  behaviour = "only looked"
)

// life is a request that holds: what is sent for it, in order.
type life struct {
	domain int
	does   behaviour
	shy    bool // it does not settle when it is refused, as Envoy would
	steps  []step
}

// step is one call of a life.
type step struct {
	pause   time.Duration // before it
	replica int
	asks    []ask
}

// lives returns a client's endless stream of requests that hold.
func (p *plan) lives(client int) func() life {
	rng, number := rand.New(rand.NewPCG(p.seed, uint64(2000+client))), 0
	return func() life {
		number++
		return p.newLife(rng, fmt.Sprintf("%d of %d", number, client))
	}
}

func (p *plan) newLife(rng *rand.Rand, id string) life {
	l := life{domain: rng.IntN(len(p.domains)), shy: chance(rng, 15)}
	d := p.domains[l.domain]
	var meets []int // which rules
	for i := d.unheld(); i < len(d.rules); i++ {
		if chance(rng, 60) {
			meets = append(meets, i)
		}
	}
	if len(meets) == 0 {
		meets = []int{d.unheld() + rng.IntN(len(d.rules)-d.unheld())}
	}
	value := pick(rng, d.rules[meets[0]].values[0]...)
	home := rng.IntN(p.replicas)
	send := func(pause time.Duration, settles bool, hits func() int64) {
		s := step{pause: pause, replica: home}
		// Counters in memory are those of a replica, where few settlements come to another.
		if p.topology != inMemory || chance(rng, 10) {
			s.replica = rng.IntN(p.replicas)
		}
		for _, rule := range meets {
			s.asks = append(s.asks, ask{rule: rule, values: []string{value}, hits: hits(), id: id, settles: settles})
		}
		l.steps = append(l.steps, s)
	}
	estimate := func() int64 { return pick(rng, int64(1), 1, 2, 2, 3, 5, 8, 50) }
	cost := func() int64 { return pick(rng, int64(0), 1, 2, 4, 9, -2) }
	looks := func() int64 { return 0 }
	short := func() time.Duration { return between(rng, 0, 150*time.Millisecond) }
	begin := func() time.Duration { return between(rng, 0, 2*p.pause) }
	switch c := rng.IntN(100); {
	case c < 40:
		l.does = settlesOnce
		send(begin(), false, estimate)
		send(short(), true, cost)
	case c < 52:
		l.does = settlesTwice
		send(begin(), false, estimate)
		send(short(), true, cost)
		send(short(), true, cost)
	case c < 64:
		l.does = settlesFirst
		send(begin(), true, cost)
		send(short(), false, estimate)
		send(short(), true, cost)
	case c < 72:
		l.does = settlesLate
		send(begin(), false, estimate)
		send(between(rng, 200*time.Millisecond, 2500*time.Millisecond), true, cost)
	case c < 84:
		l.does = asksTwice
		send(begin(), false, estimate)
		send(short(), false, estimate)
		send(short(), true, cost)
	case c < 94:
		l.does = dies
		send(begin(), false, estimate)
	default:
		l.does = asksNothing
		send(begin(), false, looks)
	}
	return l
}
