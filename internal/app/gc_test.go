package app

import (
	"math"
	"runtime/debug"
	"testing"

	"go.uber.org/zap/zaptest"
)

func TestGCPercentKeepsTheHeadroom(t *testing.T) {
	const unlimited = math.MaxInt64
	for _, c := range []struct {
		live, scanned uint64
		limit         int64
		want          int
	}{
		{0, 0, unlimited, 400},
		{1 << 20, 1 << 20, unlimited, 400},
		{8 << 20, 1 << 20, unlimited, 400},
		{32 << 20, 16 << 20, unlimited, 100},
		{33 << 20, 2 << 20, unlimited, 75},
		{64 << 20, 2 << 20, unlimited, 50},
		{4 << 30, 2 << 20, unlimited, 25},
		{128 << 20, 48 << 20, unlimited, 75}, // many rules
		{128 << 20, 64 << 20, unlimited, 100},
		{256 << 20, 250 << 20, unlimited, 50},
		{128 << 20, 48 << 20, 512 << 20, 50},
		{8 << 20, 1 << 20, 1 << 30, 400},
		{8 << 20, 1 << 20, 64 << 20, 100}, // an eighth of the limit is less
		{32 << 20, 1 << 20, 64 << 20, 25},
	} {
		if got := gcPercent(heapSizes{c.live, c.scanned}, c.limit); got != c.want {
			t.Errorf("%d MB live, %d of them scanned, of %d: %d %%, want %d %%", c.live>>20, c.scanned>>20, c.limit>>20, got, c.want)
		}
	}
}

// TestCounterBytesFollowTheMemoryLimit takes half of the limit, and the setting before it.
func TestCounterBytesFollowTheMemoryLimit(t *testing.T) {
	before := debug.SetMemoryLimit(1 << 30)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	s := &service{log: zaptest.NewLogger(t)}
	if got := s.counterBytes(); got != 1<<29 {
		t.Errorf("%d bytes of a limit of 1 GiB, want half of it", got)
	}
	s.opts.Memory.MaxBytes = 3 << 20
	if got := s.counterBytes(); got != 3<<20 {
		t.Errorf("%d bytes, want those that are set", got)
	}
	s.opts.Memory.MaxBytes = 0
	debug.SetMemoryLimit(math.MaxInt64)
	if got := s.counterBytes(); got < MinCounterBytes || got == math.MaxInt64 {
		t.Errorf("%d bytes without GOMEMLIMIT, want half of the container's or the machine's memory", got)
	}
}
