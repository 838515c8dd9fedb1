// Package backend says what a store of counters must do: decide every limit of
// a request in one atomic step. The stores themselves are memory and redis
// below it; backendtest holds the reference that they must agree with, and the
// conformance test that shows it.
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
	// while the counter lives. The backend copies what it keeps.
	Key []byte
	// Shard is the length of the leading part of Key that says which counters
	// live together: a store that is spread over several servers keeps keys with
	// equal such parts on one, where they are decided in one step. That is what
	// the limits of one descriptor have in common or, where Joint, what all
	// counters of the domain do. 0: the counter lives alone.
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
	// Descriptor numbers the request descriptor that the limit belongs to. Checks
	// of one descriptor are adjacent and are charged all or none.
	Descriptor int
	// Role of the check. In one descriptor, Shadow may stand beside Required or
	// beside Quota.
	Role Role
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

// RoleOf returns the role of the descriptor that has these checks: that of those
// which are enforced, or Shadow if none is.
func RoleOf(checks []Check) Role {
	for i := range checks {
		if checks[i].Role != Shadow {
			return checks[i].Role
		}
	}
	return Shadow
}

// Passes reports whether the descriptor that has these checks passes, by whether
// each of them fitted: those in shadow mode do not matter beside others.
func Passes(checks []Check, out []algo.Decision) bool {
	rehearsal := RoleOf(checks) == Shadow
	for i := range checks {
		if !out[i].Allowed && (rehearsal || checks[i].Role != Shadow) {
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

// Backend decides. Implementations are safe for concurrent use.
type Backend interface {
	// Decide takes every check of the request, at most MaxChecks, in one atomic step and writes one
	// decision per check to out, which has len(req.Checks) elements. Allowed says
	// whether that check itself fitted; the rest describes the state that its
	// descriptor left behind.
	//
	// A store that is in several places, some of which failed, returns a
	// *PartialError: the checks for which that has no error are decided and charged
	// as if the request had no others. Checks of one descriptor that are in one
	// place, and all those of an AllOrNothing request, are decided or fail together.
	// After any other error out is undefined and nothing can be said of what was
	// charged. ErrorOf reads both.
	//
	// Every check but a look keeps its state, settled to now, even if nothing was
	// charged; a state that equals "never used" is not kept.
	Decide(ctx context.Context, req *Request, out []algo.Decision) error
}
