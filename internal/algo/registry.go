package algo

import (
	"fmt"
	"slices"
	"strings"
)

// kinds is the registry of algorithms, by [Algorithm]. A new one is a file with
// its stepper and its kind, a Lua file for each of its programs below
// internal/backend/redis, its vectors below algotest, and a row here, at the end.
var kinds = [...]kind{
	FixedWindow:   fixedWindowKind,
	SlidingWindow: slidingWindowKind,
	SlidingLog:    slidingLogKind,
	TokenBucket:   tokenBucketKind,
	LeakyBucket:   leakyBucketKind,
	Hybrid:        hybridKind,
	Concurrency:   concurrencyKind,
}

// kind describes an algorithm, its arithmetic aside.
type kind struct {
	// name is what rules call it.
	name string
	// tag stands for it in counter keys: another tag begins all counters anew.
	tag string
	// anyWindow reports that a counter outlives a change of its window, which
	// counter keys then do not name.
	anyWindow bool
	// takes are the parameters that it has besides those that all have.
	takes Takes
	// countsDenied reports that denied hits count by default, rather than drop.
	countsDenied bool
	// maxLimit is the largest limit and why; 0: any.
	maxLimit       uint32
	whyNoMore, try string
	// new returns the arithmetic for parameters that have been checked. With debt
	// denied hits may take a counter beyond its limit.
	new func(p Params, debt bool) (stepper, error)
	// programs are the steppers' programs.
	programs []string
	// noHold is why there can be no hold around it; empty: there can.
	noHold string
	// alwaysHolds reports that it limits nothing but what is held.
	alwaysHolds bool
}

// Takes is a set of parameters that not all algorithms have.
type Takes uint8

// The parameters that not all algorithms have.
const (
	TakesBurst    Takes = 1 << iota // Params.Burst
	TakesRefill                     // Params.Refill
	TakesStrict                     // Params.Strict and Params.SubWindows
	TakesCalendar                   // Params.Calendar
)

// Takes reports whether the algorithm has all of these parameters.
func (a Algorithm) Takes(t Takes) bool { return a.known() && kinds[a].takes&t == t }

// AlgorithmsWith returns the names of the algorithms that have these parameters, as a
// sentence lists them: "token_bucket, leaky_bucket or hybrid".
func AlgorithmsWith(t Takes) string {
	return listOf(func(a Algorithm) bool { return a.Takes(t) })
}

// listOf returns the names of some algorithms as a sentence lists them.
func listOf(some func(Algorithm) bool) string {
	var names []string
	for i := range kinds {
		if some(Algorithm(i)) {
			names = append(names, kinds[i].name)
		}
	}
	if last := len(names) - 1; last > 0 {
		return strings.Join(names[:last], ", ") + " or " + names[last]
	}
	return strings.Join(names, "")
}

// Tag stands for the algorithm in counter keys. If windowed, states of different
// windows cannot follow one another, and a key has to name the window too.
func (a Algorithm) Tag() (tag string, windowed bool) { return kinds[a].tag, !kinds[a].anyWindow }

func (a Algorithm) known() bool { return int(a) < len(kinds) }

// String returns the name that rules use, such as "token_bucket".
func (a Algorithm) String() string {
	if a.known() {
		return kinds[a].name
	}
	return fmt.Sprintf("algorithm(%d)", uint8(a))
}

// Algorithms lists the names that rules may use, by Algorithm.
func Algorithms() []string {
	names := make([]string, len(kinds))
	for i := range kinds {
		names[i] = kinds[i].name
	}
	return names
}

// ParseAlgorithm returns the algorithm with the given rule name. The error is a
// *ParamError.
func ParseAlgorithm(name string) (Algorithm, error) {
	if i := slices.Index(Algorithms(), name); i >= 0 {
		return Algorithm(i), nil
	}
	return 0, &ParamError{"algorithm", fmt.Sprintf("unknown algorithm %q", name), "write one of " + strings.Join(Algorithms(), ", ")}
}
