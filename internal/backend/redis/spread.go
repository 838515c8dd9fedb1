package redis

import (
	"errors"
	"fmt"
	"sync"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// spread decides a request in a cluster: one call for each slot that its keys
// are in, all at once. What must be decided in one step must be in one slot.
func (b *Backend) spread(o *op) error {
	groups, err := b.split(o)
	if err != nil {
		return err
	}
	if len(groups) == 1 {
		return b.do(o)
	}
	var wait sync.WaitGroup
	errs := make([]error, len(groups))
	for i, g := range groups {
		wait.Go(func() {
			part := newOp(g.checks, false, g.out, o.began, o.deadline)
			defer part.release()
			for _, at := range g.at {
				if len(o.epochs) > 0 {
					part.epochs = append(part.epochs, o.epochs[at])
				}
			}
			errs[i] = b.do(part)
		})
	}
	wait.Wait()
	for _, g := range groups {
		for i, at := range g.at {
			o.out[at] = g.out[i]
		}
	}
	return errors.Join(errs...)
}

// part is the checks of a request that are in one slot.
type part struct {
	checks []backend.Check
	at     []int // where they are in the request
	out    []algo.Decision
}

// split groups the checks of the op by slot, in order.
func (b *Backend) split(o *op) ([]*part, error) {
	client, err := b.conn.current()
	if err != nil {
		return nil, err
	}
	var parts []*part
	bySlot := map[uint16]*part{}
	var last uint16
	for i := range o.checks {
		c := &o.checks[i]
		key := string(b.naming.append(nil, c, o.ids[i]))
		probe := client.B().Get().Key(key).Build() // knows its slot, and is never sent
		slot := probe.Slot()
		together := o.allOrNothing || i > 0 && c.Descriptor == o.checks[i-1].Descriptor
		if i > 0 && together && slot != last {
			return nil, fmt.Errorf("%w: %q and %q", ErrSpread, o.checks[i-1].Key, c.Key)
		}
		last = slot
		p := bySlot[slot]
		if p == nil {
			p = &part{}
			bySlot[slot] = p
			parts = append(parts, p)
		}
		p.checks = append(p.checks, *c)
		p.at = append(p.at, i)
		p.out = append(p.out, algo.Decision{})
	}
	return parts, nil
}
