// Package backend says what a store of counters must do: decide every limit of
// a request in one atomic step. The stores themselves are memory and redis
// below it; backendtest holds the conformance test that each of them passes.
package backend

import (
	"context"

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
	// Key is the counter's key, unambiguous over all domains and rules. The
	// backend copies what it keeps.
	Key []byte
	// Limit holds the algorithm with its parameters.
	Limit *algo.Limit
	// Hits to charge: 0 only looks, negative gives back.
	Hits int64
	// Descriptor numbers the request descriptor that the limit belongs to. Checks
	// of one descriptor are adjacent and are charged all or none.
	Descriptor int
	// Role of the descriptor; the same in all checks of one descriptor.
	Role Role
}

// Request is everything that one ShouldRateLimit call asks of the store.
type Request struct {
	Checks []Check
	// AllOrNothing charges all descriptors or, when the request is refused, none
	// (but for limits that ask to count denied hits). Otherwise each descriptor
	// is charged on its own, in order.
	AllOrNothing bool
}

// Backend decides. Implementations are safe for concurrent use.
type Backend interface {
	// Decide takes every check of the request in one atomic step and writes one
	// decision per check to out, which has len(req.Checks) elements. After an
	// error out is undefined and nothing can be said of what was charged.
	Decide(ctx context.Context, req *Request, out []algo.Decision) error
}
