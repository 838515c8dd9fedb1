package redis

import (
	"context"
	"errors"
	"testing"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// TestKeysWithoutASlot asks for the breaker of a number that is not a slot. The library's
// client of a single server gives its keys such numbers.
func TestKeysWithoutASlot(t *testing.T) {
	o, err := Options{Mode: Cluster, Addrs: []string{"a:1"}, Log: zap.NewNop()}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	bs := newBreakers(&o, func(context.Context, uint16) error { return nil })
	defer bs.close()
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

// TestTrialsGoToTheirSlots compares the keys of trials with the library's slots.
func TestTrialsGoToTheirSlots(t *testing.T) {
	t.Parallel()
	b := &Backend{opts: Options{Mode: Cluster, Prefix: defaultPrefix}}
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redistest.StartClusterOfOne(t, redistest.Config{}).Addr}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for slot := range uint16(slots) {
		key := b.trialKey(slot)
		if command := client.B().Del().Key(key).Build(); command.Slot() != slot {
			t.Fatalf("%s is in slot %d, want %d", key, command.Slot(), slot)
		}
	}
}
