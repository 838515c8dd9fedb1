// Package backendtest owns the conformance test of [backend.Backend]: whoever
// writes a store calls [Run] from a test of its own, and passes when every field
// of every decision is what the slow and plain [Reference] decides.
//
// Run takes a few settings from the environment:
//
//	BACKENDTEST_STEPS  requests of the random test (default 10000)
//	BACKENDTEST_SEED   where the random test starts (default: by the time of day)
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
	// SetClock sets what the backend takes for the present, in microseconds since
	// the Unix epoch, until it is set again; back as well as forward. It is called
	// before the first request, and never while one is under way.
	//
	// A store that forgets keys by another clock, as Redis does by its own, has
	// to keep them for as long as the test runs.
	SetClock func(micros int64)
}

// A Factory returns a new fixture; what has to be closed, t.Cleanup closes.
type Factory func(t testing.TB) Fixture

// Run tests the backends that the factory makes.
func Run(t *testing.T, factory Factory) {
	t.Run("vectors", func(t *testing.T) { testVectors(t, factory) })
	t.Run("scenarios", func(t *testing.T) { testScenarios(t, factory) })
	t.Run("calendar", func(t *testing.T) { testCalendar(t, factory) })
	t.Run("ownership", func(t *testing.T) { testOwnership(t, factory) })
	t.Run("optional", func(t *testing.T) { testOptional(t, factory) })
	t.Run("random", func(t *testing.T) { testRandom(t, factory) })
	t.Run("concurrent", func(t *testing.T) { testConcurrent(t, factory) })
}
