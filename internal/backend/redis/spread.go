package redis

import (
	"fmt"

	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
)

// spread decides a request whose keys are spread over several servers. It makes one
// call for each slot of its keys, all at once. Behind a proxy, whose hashing is unknown
// here, it makes one call for each hash tag. One more call follows if a descriptor
// passes in one slot and not in another. A request that is all or nothing must be in
// one slot. If the server of a slot is gone, the decisions of the others stand.
func (b *Backend) spread(o *op) error {
	slots, err := b.slots(o)
	if err != nil {
		return err
	}
	parts := backend.Split(o.checks, func(i int) keys.Slot { return slots[i] })
	if len(parts) == 1 {
		return b.lanes.do(o, b.naming.Slot(&o.checks[0], o.ids[0]))
	}
	return backend.DecideParts(o.checks, parts, o.out, func(p *backend.Part) error {
		part := newOp(p.Checks, false, p.Out, o.began, o.deadline)
		b.forgetRefunded(part)
		defer part.release()
		if len(o.epochs) > 0 {
			for _, at := range p.At {
				part.epochs = append(part.epochs, o.epochs[at])
			}
		}
		return b.lanes.do(part, b.naming.Slot(&part.checks[0], part.ids[0]))
	})
}

// slots returns the slot of each check's counter, or its place behind a proxy. It is an
// error if counters in different slots must be decided in one step.
func (b *Backend) slots(o *op) (slots []keys.Slot, err error) {
	client, err := b.conn.current()
	if err != nil {
		return nil, err
	}
	for i := range o.checks {
		c := &o.checks[i]
		if b.opts.Mode == Cluster {
			key := string(b.naming.Append(nil, c, o.ids[i]))
			probe := client.B().Get().Key(key).Build() // knows its slot, and is never sent
			slots = append(slots, keys.Slot(probe.Slot()))
		} else {
			slots = append(slots, b.naming.Slot(c, o.ids[i]))
		}
		if i > 0 && o.allOrNothing && slots[i] != slots[i-1] {
			return nil, fmt.Errorf("%w: %q and %q", ErrSpread, o.checks[i-1].Key, c.Key)
		}
	}
	return slots, nil
}
