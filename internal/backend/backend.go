// Package backend owns what a store of counters must do: decide every limit of
// a request in one atomic step. The stores are packages below it: memory, redis, and
// persecond, which puts counters into two others; backendtest holds the reference
// that they must agree with, and the conformance test that shows it.
package backend

import (
	"context"
	"iter"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// Role says how a check's refusal counts towards its request.
type Role uint8

// The roles of a check.
const (
	Required Role = iota // its refusal refuses the request
	Shadow               // a rehearsal: decided and charged as if it were enforced, but refuses nothing
	Quota                // its descriptor is one of a set of alternatives: the request is refused when all of them refuse
)

// Check is one limit to decide for one counter.
type Check struct {
	// Key is the counter's key, unambiguous over all domains and rules: it names
	// the algorithm and its window, but neither limit nor burst, which may change
	// while the counter lives.
	Key []byte
	// Shard is the length of the leading part of Key that says which counters
	// live together: a store that is spread over several servers keeps keys with
	// equal such parts on one, where they are decided in one step. That is what
	// the limits of one rule have in common or, where Joint, what all counters of
	// the domain do. 0: the counter lives alone.
	Shard int
	// Joint reports that the counters of the domain are all decided together: its
	// requests are all or nothing.
	Joint bool
	// Lease is the share of the limit, from 0 to 1, that all replicas of the
	// service together may take ahead of the requests that will spend it, to save
	// trips to a store that they share. 0: none.
	Lease float64
	// Limit holds the algorithm with its parameters.
	Limit *algo.Limit
	// Hits to charge: 0 only looks and leaves everything as it is; negative gives
	// back, which needs no room and is done whatever else is refused.
	Hits int64
	// Hold is the request's, where Limit holds. A settlement needs no room either: it is
	// done whatever else is refused, and refuses nothing.
	Hold algo.Hold
	// Descriptor numbers the request descriptor that the limit belongs to. Checks
	// of one descriptor are adjacent and are charged all or none; where they live
	// apart, by giving back what one part has charged when another refuses.
	Descriptor int
	// Role of the check. In one descriptor, Shadow may stand beside Required or
	// beside Quota.
	Role Role
}

// Looks reports whether the check leaves everything as it is.
func (c *Check) Looks() bool { return c.Hits == 0 && !c.Hold.Settles }

// GivesBack reports whether the check gives back or settles, which needs no room.
func (c *Check) GivesBack() bool { return c.Hits < 0 || c.Hold.Settles }

// Held returns the check's limit as the check meets it.
func (c *Check) Held() algo.Held { return c.Limit.For(c.Hold) }

// A store decides a check by the methods below, on states that are settled to now. They
// keep in found what the others need.

// Try charges what the check asks for if it fits, and writes to found whether it did.
// A look changes nothing.
func (c *Check) Try(s algo.State, now int64, found *algo.Decision) algo.State {
	l := c.Held()
	found.Allowed, found.Settled = true, false
	switch {
	case c.Looks():
		found.Allowed = l.Look(s, now)
	case c.GivesBack():
		found.Settled = c.Hold.Settles && l.Holding(s)
		s = l.Refund(s, now, c.Hits)
	case l.Fits(s, now, c.Hits):
		s = l.Charge(s, now, c.Hits)
	default:
		found.Allowed = false
	}
	return s
}

// Deny charges the check as part of a denied call: one that did not fit charges what
// its limit says of denied hits, one that did only if they count. What is given back is
// given back all the same.
func (c *Check) Deny(s algo.State, now int64, found *algo.Decision) algo.State {
	switch {
	case c.Looks():
	case c.GivesBack():
		s = c.Held().Refund(s, now, c.Hits)
	case !found.Allowed || c.Limit.DeniedHits() == algo.Count:
		s = c.Limit.Deny(s, now, c.Hits)
	}
	return s
}

// Report reads the answer off the state that the check's descriptor left behind.
func (c *Check) Report(s algo.State, now int64, found *algo.Decision) algo.Decision {
	if c.Hold.Settles {
		return c.Held().Report(s, now, c.Hits, found.Settled)
	}
	return c.Held().Report(s, now, c.Hits, found.Allowed)
}

// Undo makes the check one that gives back what it was charged: as it passed, or as a
// denied call was. A settlement can't be undone: its request is over.
func (c *Check) Undo(passed bool) {
	if passed && c.Limit.Holds() && c.Hold.ID != 0 {
		c.Hits, c.Hold.Settles = 0, true
		return
	}
	c.Hits, c.Hold = -c.Hits, algo.Hold{}
}

// Descriptors runs over the descriptors of a request: from where to where the
// checks of each are.
func Descriptors(checks []Check) iter.Seq2[int, int] {
	return func(yield func(start, end int) bool) {
		for start, end := 0, 0; start < len(checks); start = end {
			for end = start + 1; end < len(checks) && checks[end].Descriptor == checks[start].Descriptor; end++ {
			}
			if !yield(start, end) {
				return
			}
		}
	}
}

// DescriptorAt returns from where to where the checks of the descriptor are that has the
// i-th.
func DescriptorAt(checks []Check, i int) (start, end int) {
	for start = i; start > 0 && checks[start-1].Descriptor == checks[i].Descriptor; start-- {
	}
	for end = i + 1; end < len(checks) && checks[end].Descriptor == checks[i].Descriptor; end++ {
	}
	return start, end
}

// RoleOf returns the role of the descriptor that has these checks: the role of the
// enforced ones, or Shadow if there are none.
func RoleOf(checks []Check) Role {
	for i := range checks {
		if checks[i].Role != Shadow {
			return checks[i].Role
		}
	}
	return Shadow
}

// Passes reports whether the descriptor that has these checks passes, by whether
// each of them fitted: those in shadow mode do not matter beside others, and
// settlements, which are not asked, not at all.
func Passes(checks []Check, out []algo.Decision) bool {
	rehearsal := RoleOf(checks) == Shadow
	for i := range checks {
		if !out[i].Allowed && !checks[i].Hold.Settles && (rehearsal || checks[i].Role != Shadow) {
			return false
		}
	}
	return true
}

// Request is everything that one ShouldRateLimit call asks of the store.
//
// Its descriptors are decided in order, each in view of what those before it
// charged. A descriptor passes when each of its checks that is enforced fits, in
// view of the checks before it; one that has none of those passes when each of
// its checks fits. A check that fits in a descriptor that passes is charged its
// hits. Any other check is part of a denied call:
//
//   - one that did not fit charges what its limit says of denied hits,
//   - one that did fit charges its hits if its limit counts denied hits, and
//     otherwise nothing.
type Request struct {
	Checks []Check
	// AllOrNothing charges no descriptor when the request is refused: when a
	// Required one does not pass, or there are Quota ones and none of them does.
	// What was charged is then undone, and every descriptor is a denied call.
	AllOrNothing bool
}

// MaxChecks is how many checks a request may have, in any store: one atomic step
// holds up all others.
const MaxChecks = 1024

// Backend is a store of counters. What it may do besides deciding are interfaces of
// their own: Resetter, Lister, HealthReporter.
//
// A store MUST be safe for concurrent use. Package backendtest tests what a test can
// see of the obligations below.
type Backend interface {
	// Decide takes every check of the request in one atomic step and writes one
	// decision per check to out. Allowed reports whether that check itself fitted; the
	// rest describes the state that its descriptor left behind.
	//
	// What callers bring: a request MUST have at most MaxChecks checks, the checks of
	// one descriptor side by side, and out MUST have len(req.Checks) elements.
	//
	// Who owns it: a store MUST NOT change the request, and MUST NOT hold on to the
	// request, its Checks, their Keys or out after Decide has returned, not even by a
	// goroutine that outlives the call: callers use all of them again. It copies what
	// it keeps. A Limit never changes and MAY be kept.
	//
	// How long it takes: the deadline of ctx bounds the call. A store that waits for
	// anything but its own locks MUST return by then, SHOULD return early enough for the
	// answer to reach the client, and MUST have a bound of its own for a ctx without a
	// deadline. It MAY ignore that ctx is cancelled, and a store that never waits MAY
	// ignore ctx. A request whose caller does not wait any longer MAY be charged.
	//
	// Errors: a store MUST NOT guess a decision; what to answer without one is up to the
	// caller. After nil every element of out is a decision. A store that is in several
	// places returns a *PartialError when some of them failed: the checks without an
	// error in it are decided and charged as if the request had no others. Checks of one
	// descriptor that are in one place, and all those of an AllOrNothing request, MUST be
	// decided or fail together. After any other error no element of out means anything,
	// and callers MUST NOT assume that anything was charged or that nothing was. ErrorOf
	// reads an error for one check.
	//
	// What is kept: every check but a look MUST leave its state settled to now, even if
	// nothing was charged. A state that equals "never used" MUST NOT be kept for ever:
	// see algo.Limit.Expiry.
	Decide(ctx context.Context, req *Request, out []algo.Decision) error
}
