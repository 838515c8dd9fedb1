package backendtest_test

import (
	"testing"

	"github.com/distlimiter/ratelimit/internal/backend/backendtest"
)

// TestReference holds the reference to the scenarios, which are worked out by
// hand, and shows how a backend is tested.
func TestReference(t *testing.T) {
	backendtest.Run(t, func(testing.TB) backendtest.Fixture {
		var now int64
		return backendtest.Fixture{
			Backend:  backendtest.NewReference(func() int64 { return now }),
			SetClock: func(micros int64) { now = micros },
		}
	})
}
