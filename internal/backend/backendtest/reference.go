package backendtest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// Reference is the definition of what a backend decides, written to be read: a
// map of counters, copied whole before anything that may have to be undone. It
// forgets a key only when a request finds it expired.
type Reference struct {
	clock func() int64 // µs since the epoch

	mu       sync.Mutex
	counters map[string]counter
}

// counter is what is kept of one key, the zero value if nothing is. The state is
// never changed in place.
type counter struct {
	state  algo.State
	expiry int64 // µs since the epoch
}

// NewReference returns an empty reference under the given clock, in
// microseconds since the Unix epoch.
func NewReference(clock func() int64) *Reference {
	return &Reference{clock: clock, counters: map[string]counter{}}
}

// Decide implements [backend.Backend]. Descriptors are decided one after the
// other, each in view of what those before it charged, and each decision is
// reported from the state that its own descriptor left. When that refuses a
// request that is all or nothing, everything is undone and every descriptor
// charged as a denied call instead; whether a check fitted stays as first found.
func (r *Reference) Decide(_ context.Context, req *backend.Request, out []algo.Decision) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	groups := split(req.Checks, out)

	start := r.save(req.Checks)
	for _, g := range groups {
		before := r.save(g.checks)
		if r.try(g, now); !g.passes() {
			maps.Copy(r.counters, before)
			r.deny(g, now)
		} else {
			r.deny(g.unfit(), now)
		}
		r.report(g, now)
	}
	if req.AllOrNothing && refused(groups) {
		maps.Copy(r.counters, start)
		for _, g := range groups {
			r.deny(g, now)
			r.report(g, now)
		}
	}
	return nil
}

// save returns what is kept of the checks' keys.
func (r *Reference) save(checks []backend.Check) map[string]counter {
	saved := map[string]counter{}
	for _, c := range checks {
		saved[string(c.Key)] = r.counters[string(c.Key)]
	}
	return saved
}

// group is the checks of one descriptor with their decisions.
type group struct {
	checks []backend.Check
	out    []algo.Decision
}

func split(checks []backend.Check, out []algo.Decision) (groups []group) {
	for start, end := range backend.Descriptors(checks) {
		groups = append(groups, group{checks[start:end], out[start:end]})
	}
	return groups
}

func (g group) passes() bool { return backend.Passes(g.checks, g.out) }

// unfit returns the checks that did not fit.
func (g group) unfit() (u group) {
	for i, d := range g.out {
		if !d.Allowed {
			u.checks, u.out = append(u.checks, g.checks[i]), append(u.out, d)
		}
	}
	return u
}

// refused reports whether a request of these descriptors is: by one that is
// required, or by all of the alternatives.
func refused(groups []group) bool {
	quotas, quotasRefused := 0, 0
	for _, g := range groups {
		switch backend.RoleOf(g.checks) {
		case backend.Required:
			if !g.passes() {
				return true
			}
		case backend.Quota:
			quotas++
			if !g.passes() {
				quotasRefused++
			}
		}
	}
	return quotas > 0 && quotas == quotasRefused
}

// try charges every check that fits.
func (r *Reference) try(g group, now int64) {
	for i := range g.checks {
		c := &g.checks[i]
		r.store(c, c.Try(r.load(c, now), now, &g.out[i]), now)
	}
}

// deny charges the group as a denied call.
func (r *Reference) deny(g group, now int64) {
	for i := range g.checks {
		c := &g.checks[i]
		r.store(c, c.Deny(r.load(c, now), now, &g.out[i]), now)
	}
}

func (r *Reference) report(g group, now int64) {
	for i := range g.checks {
		c := &g.checks[i]
		g.out[i] = c.Report(r.load(c, now), now, &g.out[i])
	}
}

// load returns a copy of the check's state, settled.
func (r *Reference) load(c *backend.Check, now int64) algo.State {
	return c.Limit.Settle(slices.Clone(r.counters[string(c.Key)].state), now, nil)
}

// store keeps what a check that is not a look leaves, settled as it is even if
// nothing was charged, unless it equals no state.
func (r *Reference) store(c *backend.Check, s algo.State, now int64) {
	if c.Looks() {
		return
	}
	key := string(c.Key)
	if e := c.Limit.Expiry(s); e > now {
		r.counters[key] = counter{s, e}
	} else {
		delete(r.counters, key)
	}
}

// holds reports whether a store must still know the key at now.
func (r *Reference) holds(key string, now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counters[key].expiry > now
}
