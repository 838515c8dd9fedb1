package backendtest

import (
	"slices"
	"testing"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// testOptional tests those of [backend.Resetter] and [backend.Lister] that the backend
// implements. If it is a [backend.HealthReporter], it must report that it is healthy.
func testOptional(t *testing.T, factory Factory) {
	f := factory(t)
	f.SetClock(epoch)
	if !backend.Healthy(f.Backend) {
		t.Error("it decides, and reports that it can't")
	}
	decide := func(key string, hits int64) algo.Decision {
		t.Helper()
		out := make([]algo.Decision, 1)
		if err := f.Backend.Decide(t.Context(), &backend.Request{Checks: checks(required(0, key, drop5, hits))}, out); err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	decide("reset", 2)
	decide("kept", 3)
	decide("looked at", 0)
	if store, lists := f.Backend.(backend.Lister); lists {
		var keys []string
		for key := range store.Keys() {
			keys = append(keys, string(key))
		}
		slices.Sort(keys)
		if want := []string{"kept", "reset"}; !slices.Equal(keys, want) {
			t.Errorf("it lists %q, want %q", keys, want)
		}
	}
	store, resets := f.Backend.(backend.Resetter)
	if !resets {
		return
	}
	for _, want := range []bool{true, false} { // the second time there is nothing to forget
		used, err := store.Reset(t.Context(), required(0, "reset", drop5, 0))
		if err != nil || used != want {
			t.Errorf("reset: used %v, %v; want %v", used, err, want)
		}
	}
	if left := decide("reset", 0).Remaining; left != 5 {
		t.Errorf("%d left of a counter that was reset, want all 5", left)
	}
	if left := decide("kept", 0).Remaining; left != 2 {
		t.Errorf("%d left of another counter, want its 2", left)
	}
}

// testOwnership reuses the caller's memory as soon as Decide returns.
func testOwnership(t *testing.T, factory Factory) {
	f := factory(t)
	f.SetClock(epoch)
	key := make([]byte, 1)
	req := backend.Request{Checks: []backend.Check{{Key: key, Limit: drop5, Hits: 1}}}
	out := make([]algo.Decision, 1)
	for round := range int64(3) {
		for _, name := range "abc" {
			key[0] = byte(name)
			before := req.Checks[0]
			if err := f.Backend.Decide(t.Context(), &req, out); err != nil {
				t.Fatal(err)
			}
			if c := req.Checks[0]; key[0] != byte(name) || c.Hits != before.Hits || c.Limit != before.Limit {
				t.Fatalf("the backend has changed the check to %+v", c)
			}
			if want := 5 - 1 - round; out[0].Remaining != want {
				t.Errorf("%c: %d left after %d hits, want %d", name, out[0].Remaining, round+1, want)
			}
			out[0] = algo.Decision{}
		}
	}
}
