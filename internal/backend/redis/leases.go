package redis

import (
	"context"
	"slices"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/keys"
	"github.com/distlimiter/ratelimit/internal/backend/redis/lease"
)

// spend decides the op from a lease, if one holds enough.
func (b *Backend) spend(o *op, now time.Time) (spent bool) {
	if !lease.Serve(o.checks) {
		return false
	}
	d, spent := b.leases.Spend(o.ids[0], &o.checks[0], now)
	if spent {
		o.out[0] = d
	}
	return spent
}

// unspent decides those ops that leases can decide, and returns the others.
func (b *Backend) unspent(ops []*op, now time.Time) []*op {
	for i, o := range ops {
		if !b.spend(o, now) {
			continue
		}
		rest := slices.Clone(ops[:i])
		for _, o := range ops[i+1:] {
			if !b.spend(o, now) {
				rest = append(rest, o)
			}
		}
		b.metrics.leased.Add(float64(len(ops) - len(rest)))
		return rest
	}
	return ops
}

// trip is a trip of a lease with the ops that carry it out.
type trip struct {
	*lease.Trip
	first      *op   // the first request for the counter; nil without any
	hits       int64 // of all requests for the counter
	give, take *op   // nil for none
}

// beginTrips returns the trips of leases that a call for these ops carries out.
func (b *Backend) beginTrips(ops []*op, now time.Time) (trips []*trip) {
next:
	for _, o := range ops {
		if !lease.Serve(o.checks) {
			continue
		}
		for _, t := range trips {
			if t.first.ids[0] == o.ids[0] {
				t.hits += o.checks[0].Hits
				continue next
			}
		}
		trips = append(trips, &trip{first: o, hits: o.checks[0].Hits})
	}
	return slices.DeleteFunc(trips, func(t *trip) (none bool) {
		if t.Trip = b.leases.Begin(t.first.ids[0], &t.first.checks[0], t.hits, now); t.Trip == nil {
			return true
		}
		t.give, t.take = transfer(t.Of, t.Give), transfer(t.Of, t.Take)
		return false
	})
}

// transfer returns the op of hits that a lease gives back or takes; nil for none.
func transfer(of keys.ID, t *lease.Transfer) *op {
	if t == nil {
		return nil
	}
	return &op{checks: []backend.Check{t.Check}, ids: []keys.ID{of}, out: make([]algo.Decision, 1), before: t.Before}
}

// withTrips returns the ops of a call. Hits are given back first and taken ahead last,
// so that no request is refused because of a lease.
func withTrips(ops []*op, trips []*trip) []*op {
	if len(trips) == 0 {
		return ops
	}
	var all []*op
	for _, t := range trips {
		if t.give != nil {
			all = append(all, t.give)
		}
	}
	all = append(all, ops...)
	for _, t := range trips {
		if t.take != nil {
			all = append(all, t.take)
		}
	}
	return all
}

// endTrip records the result of a trip. If hits went back, remembered refusals of the
// counter no longer hold.
func (b *Backend) endTrip(t *trip, sent time.Time, err error) {
	b.leases.End(t.Trip, t.first.answer(), t.take.answer(), sent, time.Now(), err)
	if t.give != nil {
		b.refusals.Forget(t.Of)
	}
}

// answer returns the answer to the op's first check; without an op it is empty.
func (o *op) answer() lease.Answer {
	if o == nil {
		return lease.Answer{}
	}
	return lease.Answer{Decision: o.out[0], At: o.now}
}

// returnLeases gives back the rest of leases that expire and, when it is stopped, of
// all leases.
func (b *Backend) returnLeases(ctx context.Context) {
	for sleep(ctx, lease.Lifetime) {
		b.returnOverdue(time.Now())
	}
	now := time.Now()
	b.leases.ExpireAll(now)
	b.returnOverdue(now)
}

// returnOverdue gives back hits of expired leases. Hits that Redis does not accept in
// time are void.
func (b *Backend) returnOverdue(now time.Time) {
	until := now.Add(b.opts.bound())
	for _, overdue := range b.leases.Overdue(now) {
		t := &trip{Trip: overdue, give: transfer(overdue.Of, overdue.Give)}
		err := b.send([]*op{t.give}, until)
		b.endTrip(t, now, err)
	}
}
