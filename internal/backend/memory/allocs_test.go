//go:build !race

package memory_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
)

// TestDecideDoesNotAllocate covers every path through Decide for keys that are
// kept. It does not run under the race detector, which makes sync.Pool drop items.
func TestDecideDoesNotAllocate(t *testing.T) {
	s := newStore(t, memory.Options{SweepCycle: -1})
	l := perHour(t, 1_000_000)
	request := func(checks, perDescriptor int, allOrNothing bool) *backend.Request {
		req := &backend.Request{AllOrNothing: allOrNothing}
		for i := range checks {
			req.Checks = append(req.Checks, backend.Check{
				Key: fmt.Appendf(nil, "key %d", i), Limit: l, Hits: 1, Descriptor: i / perDescriptor,
			})
		}
		return req
	}
	for name, req := range map[string]*backend.Request{
		"one check":            request(1, 1, false),
		"eight descriptors":    request(8, 1, false),
		"eight limits":         request(8, 8, false),
		"eight all or nothing": request(8, 1, true),
	} {
		out := make([]algo.Decision, len(req.Checks))
		decide := func() {
			if err := s.Decide(context.Background(), req, out); err != nil {
				t.Fatal(err)
			}
		}
		if n := testing.AllocsPerRun(100, decide); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
