// Package config owns the rules as people write them: the YAML grammar, its
// validation with file, line and column, the files and directories rules come
// from, and noticing when those change. It hands out validated [Rules]; how they
// are matched and decided is left to descriptor and algo.
package config

import "github.com/distlimiter/ratelimit/internal/algo"

// Rules is a validated, immutable set of domains, in file order.
type Rules struct {
	Domains []*Domain
	// Warnings are oddities that load all the same, as they do in envoyproxy/ratelimit.
	Warnings []Problem
}

// Consume says what a request with several descriptors is charged.
type Consume uint8

// The ways to charge a request with several descriptors.
const (
	Each         Consume = iota // each limited descriptor on its own, as envoyproxy/ratelimit does
	AllOrNothing                // all of them, or none when one is over
)

// String returns the name that rules use: "each" or "all_or_nothing".
func (c Consume) String() string {
	if c == AllOrNothing {
		return "all_or_nothing"
	}
	return "each"
}

// Domain is a set of rules of its own.
type Domain struct {
	Name    string
	Consume Consume
	// ConsumeGiven says whether Consume was written, rather than the default.
	ConsumeGiven bool
	Descriptors  []*Descriptor
	Pos          Pos
}

// Descriptor is one node of a domain's tree of rules.
type Descriptor struct {
	Key string
	// Value is empty (any value), exact, or a pattern in which each * stands for
	// zero or more characters.
	Value string
	// Limits is empty when the node only leads to others. All of them must pass.
	Limits         []*Limit
	ShadowMode     bool
	QuotaMode      bool
	ShareThreshold bool
	DetailedMetric bool
	ValueToMetric  bool
	// Metadata goes into the answer's dynamic metadata. JSON-like values only.
	Metadata    map[string]any
	Descriptors []*Descriptor
	// Origin is where the node comes from.
	Origin Origin
	// Overridden is what is not in force because of this rule, without what is
	// below it. Nil: nothing.
	Overridden *Descriptor
	Pos        Pos
}

// Limit is one rate limit of a descriptor.
type Limit struct {
	// Name is reported in current_limit.name and used by Replaces. May be empty.
	Name string
	// Unlimited limits nothing; Algo is nil then.
	Unlimited bool
	// ShadowMode decides and counts, and refuses nobody. See also [Descriptor.Candidate].
	ShadowMode bool
	// Algo is the compiled algorithm.
	Algo *algo.Limit
	// RequestsPerUnit, Unit and UnitMultiplier are what current_limit reports.
	// A window that is not a whole number of units has Unit UnitUnknown.
	RequestsPerUnit uint32
	Unit            Unit
	UnitMultiplier  uint32 // 1 unless the window is a multiple of the unit
	// Replaces names the limits that do not apply in a request in which this one does.
	// Of a limit in ShadowMode it has no effect.
	Replaces       []string
	OnBackendError BackendErrorMode
	// Lease is the part of the limit, from 0 to 1, that all replicas together may take
	// from a shared store ahead of the requests that will spend it. 0: none.
	Lease float64
	// RawBody is the body of the 429 that this limit causes. Empty: the proxy's own.
	RawBody string
	Pos     Pos
}

// Unit is a unit of time, numbered as envoy.service.ratelimit.v3.RateLimitResponse.RateLimit.Unit.
type Unit int32

// The units.
const (
	UnitUnknown Unit = iota
	Second
	Minute
	Hour
	Day
	Month // 30 days
	Year  // 365 days
	Week
)

// BackendErrorMode says what to answer when the store fails.
type BackendErrorMode uint8

// What to answer when the store fails.
const (
	BackendErrorDefault BackendErrorMode = iota // as the service is set
	BackendErrorError                           // a gRPC error: Envoy's failure_mode_deny decides
	BackendErrorAllow
	BackendErrorDeny
	BackendErrorLocal // the same rules in memory
)
