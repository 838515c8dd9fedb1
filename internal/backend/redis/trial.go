package redis

import (
	"context"
	"errors"
	"strconv"
	"sync"
)

// trial asks the server of a slot to delete a key that does not exist. That changes
// nothing, and succeeds only on a server that can be charged. For a proxy that shards,
// any answer of its own will do. The error is an ErrUnavailable.
func (b *Backend) trial(ctx context.Context, slot uint16) error {
	client, err := b.conn.current()
	if err != nil {
		return err
	}
	err = client.Do(ctx, client.B().Del().Key(b.trialKey(slot)).Build()).Error()
	if err == nil {
		return nil
	}
	if err = b.failed(err); errors.Is(err, ErrUnavailable) && !errors.Is(err, errUpstream) {
		return err
	}
	return nil
}

// trialName follows the prefix in the key of a trial.
const trialName = ":trial"

// trialKey returns a key that no counter has. In a cluster it is in the slot.
func (b *Backend) trialKey(slot uint16) string {
	key := b.opts.Prefix + trialName
	if b.opts.Mode == Cluster {
		key += "{" + strconv.Itoa(int(tags()[slot%slots])) + "}"
	}
	return key
}

// tags returns, for each slot, the least number that is a hash tag of the slot.
var tags = sync.OnceValue(func() *[slots]int32 {
	var found [slots]int32
	for n, missing := int32(1), slots; missing > 0; n++ {
		if at := &found[slotOf(strconv.Itoa(int(n)))]; *at == 0 {
			*at = n
			missing--
		}
	}
	return &found
})

// slotOf returns the slot of a hash tag as Redis Cluster specifies it, by CRC16 in the
// XMODEM variant.
func slotOf(tag string) uint16 {
	var crc uint16
	for i := range len(tag) {
		crc ^= uint16(tag[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % slots
}
