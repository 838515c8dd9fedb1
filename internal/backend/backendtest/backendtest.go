// Package backendtest owns the conformance test of [backend.Backend]. A store calls
// [Run] from a test of its own. The store passes if every field of every decision equals
// the decision of the slow and plain [Reference].
//
// Run takes a few settings from the environment:
//
//	BACKENDTEST_STEPS  requests of the random test (default 10000)
//	BACKENDTEST_SEED   seed of the random test (default: from the time of day)
//
// A failure of the random test prints the values that replay it.
package backendtest

import (
	"testing"

	"github.com/distlimiter/ratelimit/internal/backend"
)

// Fixture is one backend under test.
type Fixture struct {
	// Backend is empty when the factory hands it out.
	Backend backend.Backend
	// SetClock sets the backend's clock, in microseconds since the Unix epoch. The
	// clock then stands still until it is set again; it may be set back. SetClock is
	// called before the first request, and never while one is under way.
	//
	// A store that expires keys by another clock, as Redis does by its own, must
	// keep them for as long as the test runs.
	SetClock func(micros int64)
}

// A Factory returns a new fixture, which it closes by t.Cleanup.
type Factory func(t testing.TB) Fixture

// Run tests the backends that the factory makes.
func Run(t *testing.T, factory Factory) {
	t.Run("vectors", func(t *testing.T) { testVectors(t, factory) })
	t.Run("scenarios", func(t *testing.T) { testScenarios(t, factory) })
	t.Run("expired", func(t *testing.T) { testExpired(t, factory) })
	t.Run("calendar", func(t *testing.T) { testCalendar(t, factory) })
	t.Run("ownership", func(t *testing.T) { testOwnership(t, factory) })
	t.Run("optional", func(t *testing.T) { testOptional(t, factory) })
	t.Run("random", func(t *testing.T) { testRandom(t, factory) })
	t.Run("concurrent", func(t *testing.T) { testConcurrent(t, factory) })
}
