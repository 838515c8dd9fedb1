package limiter_test

import (
	"sync/atomic"
	"testing"

	"github.com/distlimiter/ratelimit/internal/backend/persecond"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// TestHoldsInTwoStores: what one store has granted goes back when the other refuses, as
// in the slots of a Cluster.
func TestHoldsInTwoStores(t *testing.T) {
	f := serve(t, `
domain: edge
limits:
  - name: in_flight
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 2}
  - {name: rate, match: {user: {}}, rate_limit: {unit: second, requests_per_unit: 1}}
`, func(o *limiter.Options) {
		var now atomic.Int64
		now.Store(noon)
		o.Backend = &persecond.Backend{Seconds: store(t, &now), Others: o.Backend}
	})
	if a := f.ask(begins("a", 1)); a.OverallCode != ok {
		t.Fatalf("%+v", a)
	}
	if a := f.ask(begins("a", 2)); a.OverallCode != over { // by the rate
		t.Fatalf("%+v", a)
	}
	f.mustHold("a", 1, 1)
	for _, r := range f.stats.Rules() { // what went back was not granted
		if h, holds := r.Holds(); holds && h.Granted != 1 {
			t.Errorf("%s: %+v", r.Name.Path, h)
		}
	}
	f.ask(ends("a", 2))
	f.ask(ends("a", 1))
	f.mustHold("a", 2, 0)
}
