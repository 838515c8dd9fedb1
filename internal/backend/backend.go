// Package backend says what a store of counters must do: decide every limit of
// a request in one atomic step. The stores themselves are memory and redis
// below it; backendtest holds the reference that they must agree with, and the
// conformance test that shows it.
package backend

import (
	"context"
	"math"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// Role says how a refusal by one descriptor counts towards its request.
type Role uint8

// The roles of a descriptor.
const (
	Required Role = iota // its refusal refuses the request
	Shadow               // decided and counted, never refuses; charged only what it would allow
	Quota                // one of a set of alternatives: the request is refused when all of them refuse
)

// Check is one limit to decide for one counter.
type Check struct {
	// Key is the counter's key, unambiguous over all domains and rules: it names
	// the algorithm and its window, but neither limit nor burst, which may change
	// while the counter lives. The backend copies what it keeps.
	Key []byte
	// Shard is the length of the leading part of Key that says which counters
	// live together: a store that is spread over several servers keeps keys with
	// equal such parts on one, where they are decided in one step. That is what
	// the limits of one descriptor have in common, and in a domain that is all or
	// nothing what all its counters do. 0: the counter is decided alone.
	Shard int
	// Lease is the share of the limit, from 0 to 1, that all replicas of the
	// service together may take ahead of the requests that will spend it, to save
	// trips to a store that they share. 0: none.
	Lease float64
	// Limit holds the algorithm with its parameters.
	Limit *algo.Limit
	// Hits to charge: 0 only looks and leaves everything as it is; negative gives
	// back, which needs no room and is done whatever else is refused.
	Hits int64
	// Descriptor numbers the request descriptor that the limit belongs to. Checks
	// of one descriptor are adjacent and are charged all or none.
	Descriptor int
	// Role of the descriptor; the same in all checks of one descriptor.
	Role Role
}

// DecideAlone decides a check that is all of its descriptor, in a request that is
// not all or nothing or has no other: then nothing is ever undone. It works in
// place on the counter's state, settled to now, and returns what is to be kept,
// unless the check only looked.
func (c *Check) DecideAlone(s algo.State, now int64) (algo.State, algo.Decision) {
	l, allowed := c.Limit, true
	switch {
	case c.Hits == 0:
		allowed = l.Look(s, now)
	case c.Hits < 0:
		s = l.Refund(s, now, -max(c.Hits, -math.MaxInt64))
	case l.Fits(s, now, c.Hits):
		s = l.Charge(s, now, c.Hits)
	default:
		allowed = false
		if c.Role != Shadow {
			s = l.Deny(s, now, c.Hits)
		}
	}
	return s, l.Report(s, now, c.Hits, allowed)
}

// Request is everything that one ShouldRateLimit call asks of the store.
//
// Its descriptors are decided in order, each in view of what those before it
// charged. A descriptor passes when each of its checks fits, in view of the
// checks before it, and is then charged them all. Otherwise it is a denied call:
//
//   - a check that did not fit charges what its limit says of denied hits,
//   - one that did fit charges its hits if its limit counts denied hits, and
//     otherwise nothing,
//   - in a Shadow descriptor nothing is charged.
type Request struct {
	Checks []Check
	// AllOrNothing charges no descriptor when the request is refused: when a
	// Required one does not pass, or there are Quota ones and none of them does.
	// What was charged is then undone, and every descriptor is a denied call.
	AllOrNothing bool
	// Remembered is set by a store that refused every descriptor out of what it
	// remembers of its servers, without asking them.
	Remembered bool
}

// MaxChecks is how many checks a request may have, in any store: one atomic step
// holds up all others.
const MaxChecks = 1024

// Backend decides. Implementations are safe for concurrent use.
type Backend interface {
	// Decide takes every check of the request, at most MaxChecks, in one atomic step and writes one
	// decision per check to out, which has len(req.Checks) elements. Allowed says
	// whether that check itself fitted; the rest describes the state that its
	// descriptor left behind. After an error out is undefined and nothing can be
	// said of what was charged.
	//
	// Every check but a look keeps its state, settled to now, even if nothing was
	// charged; a state that equals "never used" is not kept.
	Decide(ctx context.Context, req *Request, out []algo.Decision) error
}
