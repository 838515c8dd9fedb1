package main

import (
	"math"
	"testing"
)

func TestGCPercentKeepsTheHeadroom(t *testing.T) {
	const unlimited = math.MaxInt64
	for _, c := range []struct {
		live  uint64
		limit int64
		want  int
	}{
		{0, unlimited, 400},
		{1 << 20, unlimited, 400},
		{8 << 20, unlimited, 400},
		{32 << 20, unlimited, 100},
		{33 << 20, unlimited, 75},
		{64 << 20, unlimited, 50},
		{4 << 30, unlimited, 25},
		{8 << 20, 1 << 30, 400},
		{8 << 20, 64 << 20, 100}, // an eighth of the limit is less
		{32 << 20, 64 << 20, 25},
	} {
		if got := gcPercent(c.live, c.limit); got != c.want {
			t.Errorf("%d MB live of %d: %d %%, want %d %%", c.live>>20, c.limit>>20, got, c.want)
		}
	}
}
