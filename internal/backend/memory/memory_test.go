package memory_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/backend/backendtest"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
)

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(t testing.TB) backendtest.Fixture {
		var now atomic.Int64
		s := memory.New(memory.Options{Clock: now.Load, SweepCycle: 50 * time.Millisecond})
		t.Cleanup(func() { s.Close() })
		return backendtest.Fixture{Backend: s, SetClock: now.Store}
	})
}
