package config

import (
	"fmt"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// Limit is one rate limit of a descriptor.
type Limit struct {
	// Name is reported in current_limit.name and used by Replaces. May be empty.
	Name string
	// Unlimited limits nothing; Algo is nil then.
	Unlimited bool
	// ShadowMode decides and counts, but refuses nothing. See also [Descriptor.Candidate].
	ShadowMode bool
	// Algo is the compiled algorithm.
	Algo *algo.Limit
	// AlgorithmGiven reports whether the algorithm was written, rather than the default.
	AlgorithmGiven bool
	// Table makes the limit follow an entry. RequestsPerUnit and Algo are then the
	// table's default. Nil: no table. See [Limit.For].
	Table *Table
	// BurstPercent is the burst as a percentage of the limit, if it is written so. The
	// burst in Algo's parameters follows from it.
	BurstPercent Percent
	// RequestsPerUnit, Unit and UnitMultiplier are what current_limit reports.
	// A window that is not a whole number of units has Unit UnitUnknown.
	RequestsPerUnit uint32
	Unit            Unit
	UnitMultiplier  uint32 // 1 unless the window is a multiple of the unit
	// Replaces names the limits that do not apply in a request in which this one does.
	// It has no effect in ShadowMode.
	Replaces       []string
	OnBackendError BackendErrorMode
	// Lease is the part of the limit, from 0 to 1, that all replicas together may take
	// from a shared store ahead of the requests that will spend it. 0: none.
	Lease float64
	// RawBody is the body of the 429 that this limit causes. Empty: the proxy's own.
	RawBody string
	// RequestHeaders mark a request that is over the limit and passes all the same, as
	// in ShadowMode. Sorted by name.
	RequestHeaders []Header
	// AdjustedBy are the adjustments that changed the limit, in the order in which they
	// apply. Other limits share the slice.
	AdjustedBy []*Adjustment
	Pos        Pos
}

// Header is an HTTP header.
type Header struct{ Name, Value string }

// BackendErrorMode chooses the answer while the store fails.
type BackendErrorMode uint8

// The answers while the store fails.
const (
	BackendErrorDefault BackendErrorMode = iota // as the service is set
	BackendErrorError                           // a gRPC error: Envoy's failure_mode_deny decides
	BackendErrorAllow
	BackendErrorDeny
	BackendErrorLocal // the same rules in memory
)

// backendErrorNames are the names that rules use, by BackendErrorMode.
var backendErrorNames = [...]string{BackendErrorDefault: "default", BackendErrorError: "error", BackendErrorAllow: "allow",
	BackendErrorDeny: "deny", BackendErrorLocal: "local"}

// String returns the name that rules use, such as "allow".
func (m BackendErrorMode) String() string {
	if int(m) < len(backendErrorNames) {
		return backendErrorNames[m]
	}
	return fmt.Sprintf("on_backend_error(%d)", uint8(m))
}

// ParseBackendErrorMode returns the mode with the given rule name: error, allow,
// deny or local.
func ParseBackendErrorMode(name string) (BackendErrorMode, error) {
	for i, n := range backendErrorNames[1:] {
		if n == name {
			return BackendErrorMode(i + 1), nil
		}
	}
	return BackendErrorDefault, &algo.ParamError{Param: "on_backend_error", What: fmt.Sprintf("unknown on_backend_error %q", name), Remedy: "write error, allow, deny or local"}
}
