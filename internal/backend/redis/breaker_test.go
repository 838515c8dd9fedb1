package redis

import (
	"errors"
	"testing"

	"go.uber.org/zap"
)

// TestKeysWithoutASlot asks for the breaker of what is no slot, as the library's
// client of a single server numbers its keys.
func TestKeysWithoutASlot(t *testing.T) {
	o, err := Options{Mode: Cluster, Addrs: []string{"a:1"}, Log: zap.NewNop()}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	bs := newBreakers(&o)
	for _, slot := range []uint16{0, 255, 256, 16383} {
		if _, err := bs.of(slot); err != nil {
			t.Errorf("slot %d: %v", slot, err)
		}
	}
	for _, slot := range []uint16{16384, 1 << 15, 65535} {
		if _, err := bs.of(slot); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%d, which is no slot: got %v, want ErrUnavailable", slot, err)
		}
	}
}
