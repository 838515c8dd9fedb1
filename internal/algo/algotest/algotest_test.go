package algotest

import (
	"testing"

	"github.com/distlimiter/ratelimit/internal/algo"
)

func TestVectorsAreWellFormed(t *testing.T) {
	vs, err := Vectors()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	covered := map[algo.Algorithm]bool{}
	for _, v := range vs {
		id := v.File + "/" + v.Name
		if seen[id] {
			t.Errorf("%s: two vectors of this name", id)
		}
		seen[id] = true
		if v.Why == "" || len(v.Steps) == 0 {
			t.Errorf("%s: says not why, or has no steps", id)
		}
		for i, s := range v.Steps {
			covered[s.Params.Algorithm] = true
			if _, err := algo.New(s.Params); err != nil {
				t.Errorf("%s: step %d: %v", id, i, err)
			}
		}
	}
	for i, name := range algo.Algorithms() {
		if !covered[algo.Algorithm(i)] {
			t.Errorf("no vector of %s", name)
		}
	}
}
