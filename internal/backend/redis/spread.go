package redis

import (
	"fmt"

	"github.com/distlimiter/ratelimit/internal/backend"
)

// spread decides a request in a cluster: one call for each slot that its keys
// are in, all at once. What must be decided in one step must be in one slot. Where
// the master of a slot is gone, the others' decisions stand.
func (b *Backend) spread(o *op) error {
	slots, err := b.slots(o)
	if err != nil {
		return err
	}
	parts := backend.Split(o.checks, func(i int) uint16 { return slots[i] })
	if len(parts) == 1 {
		return b.lanes.do(o, b.naming.Place(&o.checks[0], o.ids[0]))
	}
	return backend.Failure(backend.DecideParts(parts, o.out, func(p *backend.Part) error {
		part := newOp(p.Checks, false, p.Out, o.began, o.deadline)
		defer part.release()
		if len(o.epochs) > 0 {
			for _, at := range p.At {
				part.epochs = append(part.epochs, o.epochs[at])
			}
		}
		return b.lanes.do(part, b.naming.Place(&part.checks[0], part.ids[0]))
	}))
}

// slots returns the slot of each check's counter. The error is that of counters in
// different slots that must be decided in one step.
func (b *Backend) slots(o *op) (slots []uint16, err error) {
	client, err := b.conn.current()
	if err != nil {
		return nil, err
	}
	for i := range o.checks {
		c := &o.checks[i]
		key := string(b.naming.Append(nil, c, o.ids[i]))
		probe := client.B().Get().Key(key).Build() // knows its slot, and is never sent
		slots = append(slots, probe.Slot())
		together := i > 0 && (o.allOrNothing || c.Descriptor == o.checks[i-1].Descriptor)
		if together && slots[i] != slots[i-1] {
			return nil, fmt.Errorf("%w: %q and %q", ErrSpread, o.checks[i-1].Key, c.Key)
		}
	}
	return slots, nil
}
