package redis

import (
	"fmt"
	"sync"

	"github.com/distlimiter/ratelimit/internal/backend"
)

// spread decides a request whose keys are spread over several servers: one call for
// each slot that its keys are in, all at once; behind a proxy, whose hashing is not
// known here, for each hash tag. What must be decided in one step must be in one
// slot. Where the server of a slot is gone, the others' decisions stand.
func (b *Backend) spread(o *op) error {
	parts, err := b.split(o)
	if err != nil {
		return err
	}
	if len(parts) == 1 {
		return b.do(o)
	}
	var wait sync.WaitGroup
	failures := make([]error, len(parts))
	for i, p := range parts {
		wait.Go(func() {
			part := newOp(p.Checks, false, p.Out, o.began, o.deadline)
			defer part.release()
			for _, at := range p.At {
				if len(o.epochs) > 0 {
					part.epochs = append(part.epochs, o.epochs[at])
				}
			}
			failures[i] = b.do(part)
		})
	}
	wait.Wait()
	var errs []error
	for i, p := range parts {
		if failures[i] != nil && errs == nil {
			errs = make([]error, len(o.checks))
		}
		p.Report(failures[i], o.out, errs)
	}
	return backend.Failure(errs)
}

// split groups the checks of the op by slot or hash tag, in order.
func (b *Backend) split(o *op) ([]*backend.Part, error) {
	client, err := b.conn.current()
	if err != nil {
		return nil, err
	}
	where := func(c *backend.Check, of id) place { return b.naming.place(c, of) }
	if b.opts.Mode == Cluster {
		where = func(c *backend.Check, of id) place {
			key := string(b.naming.append(nil, c, of))
			probe := client.B().Get().Key(key).Build() // knows its slot, and is never sent
			return place(probe.Slot())
		}
	}
	var parts []*backend.Part
	bySlot := map[place]*backend.Part{}
	var last place
	for i := range o.checks {
		c := &o.checks[i]
		slot := where(c, o.ids[i])
		together := o.allOrNothing || i > 0 && c.Descriptor == o.checks[i-1].Descriptor
		if i > 0 && together && slot != last {
			return nil, fmt.Errorf("%w: %q and %q", ErrSpread, o.checks[i-1].Key, c.Key)
		}
		last = slot
		p := bySlot[slot]
		if p == nil {
			p = &backend.Part{}
			bySlot[slot] = p
			parts = append(parts, p)
		}
		p.Add(i, *c)
	}
	return parts, nil
}
