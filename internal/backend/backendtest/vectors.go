package backendtest

import (
	"context"
	"testing"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/algo/algotest"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// testVectors runs the test vectors of the algorithms, each on a key of its own.
func testVectors(t *testing.T, factory Factory) {
	vectors, err := algotest.Vectors()
	if err != nil {
		t.Fatal(err)
	}
	f := factory(t)
	for _, v := range vectors {
		t.Run(v.File+"/"+v.Name, func(t *testing.T) {
			for i, step := range v.Steps {
				limit, err := algo.New(step.Params)
				if err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				f.SetClock(step.Now)
				check := required(0, v.File+"/"+v.Name, limit, step.Hits)
				check.Hold = step.Hold
				req := backend.Request{Checks: checks(check)}
				out := make([]algo.Decision, 1)
				if err := f.Backend.Decide(context.Background(), &req, out); err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				if out[0] != step.Want {
					t.Errorf("step %d at %d, hits %d, %s:\n got %s\nwant %s\n%s", i, step.Now, step.Hits,
						describeParams(limit), describe(out[0]), describe(step.Want), step.Note)
				}
			}
		})
	}
}
