// Package algo owns the rate-limit algorithms: their parameters, their state and
// one pure step each, and their registry. It knows nothing of keys, stores, rules or the
// network; the clock is always an argument.
//
// An algorithm is a few small functions over a State: settle it to the present,
// ask whether n more hits fit, charge or give back hits, and read off what is
// left. [Limit.Step] composes them into the one definition of a decision that
// every backend must reproduce field for field.
//
// Time is in whole microseconds since the Unix epoch, so that every value is
// exact both in an int64 and in a Lua number (2^53).
package algo

import (
	"fmt"
	"math"
	"time"
)

// Algorithm names an algorithm: it is the number of its row in the registry.
type Algorithm uint8

// The algorithms that other packages and tests name, in the order of the
// documentation. FixedWindow, the zero value, is the default of rules.
const (
	FixedWindow   Algorithm = iota // a count that starts anew at every multiple of the window
	SlidingWindow                  // this window's count plus the part of the last one still in view
	SlidingLog                     // the time of every hit: exact
	TokenBucket                    // GCRA: a burst up front, then the sustained rate
	LeakyBucket                    // GCRA as a queue of fixed depth drained at the sustained rate
	Hybrid                         // a token bucket and a sliding window, both of which must pass
	Concurrency                    // how many hits are held at once: see Hold
)

// DeniedHits says what a denied call charges.
type DeniedHits uint8

// What a denied call charges.
const (
	DeniedDefault DeniedHits = iota // Count for FixedWindow without a Hold, Drop for others
	Count                           // its hits too: the limit goes into debt, at most one more capacity (a fixed window counts on)
	Drop                            // nothing
	Drain                           // all that is left: Remaining
)

var deniedNames = [...]string{"default", "count", "drop", "drain"}

// String returns the name that rules use: "count", "drop" or "drain".
func (d DeniedHits) String() string {
	if int(d) < len(deniedNames) {
		return deniedNames[d]
	}
	return fmt.Sprintf("denied_hits(%d)", uint8(d))
}

// ParseDeniedHits returns the value with the given rule name. The error is a
// *ParamError.
func ParseDeniedHits(name string) (DeniedHits, error) {
	for i, n := range deniedNames[1:] {
		if n == name {
			return DeniedHits(i + 1), nil
		}
	}
	return 0, &ParamError{"denied_hits", fmt.Sprintf("unknown denied_hits %q", name), "write count, drop or drain"}
}

// ParamError is what is wrong with one parameter of a limit.
type ParamError struct {
	Param  string // as rules call it
	What   string // is wrong
	Remedy string // what to write instead
}

// Error returns "what is wrong: what to write".
func (e *ParamError) Error() string { return e.What + ": " + e.Remedy }

// Bounds on parameters. Beyond them arithmetic would leave 2^53 microseconds,
// or one key would cost unreasonable memory.
const (
	// MaxWindow is the longest window: 366 days.
	MaxWindow = 366 * 24 * time.Hour
	// MinWindow is the shortest window.
	MinWindow = time.Millisecond
	// MaxFill is the longest time a bucket may take to fill from empty.
	MaxFill = 50 * 366 * 24 * time.Hour
	// MaxLogLimit is the largest limit of a sliding log, which keeps 8 bytes a hit.
	MaxLogLimit = 65536
	// DefaultSubWindows is the number of parts a strict window is split into.
	DefaultSubWindows = 10
	// MaxSubWindows bounds them.
	MaxSubWindows = 60
)

// Never is the RetryAfter of a call that no wait would let through: it asks for
// more hits than the limit can ever hold.
const Never = time.Duration(math.MaxInt64)

// Params is what a rule says of one limit.
type Params struct {
	Algorithm Algorithm

	// Limit is the sustained rate: hits per window. 0 blocks every hit.
	Limit uint32
	// Window is in whole microseconds, from MinWindow to MaxWindow. 0 with a Calendar.
	Window time.Duration
	// Calendar (FixedWindow) is instead of Window: windows begin with days, months or
	// years of a time zone.
	Calendar Calendar

	// Burst is the bucket's capacity. 0 means the default: Limit for TokenBucket
	// and Hybrid, 1 for LeakyBucket. Other algorithms have none.
	Burst uint32
	// Refill is the rate of Hybrid's bucket. Its zero value means Limit per Window.
	Refill Rate

	// Strict (SlidingWindow, Hybrid) never admits more than Limit in any window,
	// at the price of an effective window of up to Window·(1+1/SubWindows) (and
	// a microsecond a part where Window is no multiple of them).
	Strict bool
	// SubWindows is the number of parts of a strict window. 0 means DefaultSubWindows.
	SubWindows int

	// DeniedHits says what a denied call charges.
	DeniedHits DeniedHits

	// Hold is for how long the hits of a request are held that does not settle. 0:
	// hits are charged and not held. Concurrency has none: it holds for Window.
	Hold time.Duration
}

// Rate is a number of hits per period.
type Rate struct {
	Hits uint32
	Per  time.Duration
}

// State is the memory of one counter in 64-bit words. Its layout belongs to the
// algorithm. Empty or all zero means "never used", to which every state returns
// by itself (see [Limit.Expiry]).
type State []uint64

// Decision is the answer to one call on one counter.
type Decision struct {
	// Allowed reports whether the hits were admitted.
	Allowed bool
	// Remembered reports that a store took the decision from what it remembers of
	// its servers, without asking them. The arithmetic of a limit never sets it.
	Remembered bool
	// Settled reports that a settlement has given back what its request held; see
	// Hold. Allowed then reports whether the limit is not exceeded now.
	Settled bool
	// Held is how many requests hold hits, and Expired how many were found by this
	// call to have held theirs for too long, and hold no more; those that no call comes
	// to find within a minute are not counted.
	Held, Expired uint16
	// Remaining is how many single hits would pass now. Negative is debt: by how
	// much the limit is exceeded, through denied hits that count (a SlidingLog
	// says -1 for any debt), a lowered limit or a clock that stepped back.
	Remaining int64
	// ResetAfter is how long until the counter equals an unused one; 0 when it
	// already is. Two differ: FixedWindow gives the end of the current window,
	// used or not, and SlidingLog the time until its oldest live hit leaves.
	ResetAfter time.Duration
	// RetryAfter is how long until the same call would pass if nothing else
	// came: 0 when allowed, [Never] when it asks for more than the limit holds.
	RetryAfter time.Duration
}
