package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// breaker stops calling a server that does not answer: after some failures in a
// row calls fail at once. Trials are then made beside the traffic, one after the
// other, until one is answered. A server that answers with an error is there, and
// no failure.
type breaker struct {
	all      *breakers
	open     atomic.Bool
	failures atomic.Int32  // in a row
	counted  atomic.Int64  // when a failure was last counted, in ns since the epoch
	heard    atomic.Bool   // whether a call was answered since the last look
	looking  atomic.Bool   // whether a look is under way
	slot     atomic.Uint32 // of the call that failed last, for the trials
	calm     atomic.Int64  // how many requests had failed before the first of the failures
}

// do makes the call, unless calls are suspended. Until is when its context is done.
func (b *breaker) do(slot uint16, until time.Time, call func(ctx context.Context) error) error {
	if b.open.Load() {
		return ErrSuspended
	}
	began := time.Now()
	ctx := newDeadline(until, began, b, slot)
	defer ctx.free()
	err := call(ctx)
	if !errors.Is(err, errTimeout) || ctx.Err() == nil { // else the context has told
		b.report(began, slot, err)
	}
	return err
}

// report counts what became of a call. A failure of a call that began before
// another one was counted is no further one: a server that is held up for a
// moment, and a connection that is closed, fail all calls at once. A proxy that
// answers for one of its servers is there.
func (b *breaker) report(began time.Time, slot uint16, err error) {
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, errUpstream) {
		if b.failures.Load() != 0 {
			b.failures.Store(0)
		}
		if !b.heard.Load() {
			b.heard.Store(true)
		}
		return
	}
	last := b.counted.Load()
	if began.UnixNano() < last || !b.counted.CompareAndSwap(last, time.Now().UnixNano()) {
		return
	}
	b.slot.Store(uint32(slot))
	n := b.failures.Add(1)
	if n == 1 {
		b.calm.Store(b.all.failed.Load())
	}
	if n >= b.all.after {
		b.trip(err)
	}
}

// trip suspends calls until a trial is answered.
func (b *breaker) trip(cause error) {
	bs := b.all
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.ctx.Err() != nil || !b.open.CompareAndSwap(false, true) {
		return
	}
	failed := bs.failed.Load()
	if b.failures.Load() > 0 {
		failed = b.calm.Load()
	}
	bs.gone(cause, failed)
	bs.tasks.Go(func() { b.recover(bs.ctx) })
}

// recover makes trials until one is answered in time. One that was answered late
// may have waited for the server to be back: whether it is, the next one tells at
// once.
func (b *breaker) recover(ctx context.Context) {
	var waits pauses
	for late := false; ; {
		began := time.Now()
		err := b.all.try(ctx, uint16(b.slot.Load()), b.all.patience)
		if err == nil && time.Since(began) <= b.all.bound {
			break
		}
		if late = err == nil && !late; late {
			continue
		}
		if !sleep(ctx, waits.next(b.all.pause, err)) {
			return
		}
	}
	b.failures.Store(0)
	b.counted.Store(time.Now().UnixNano())
	b.open.Store(false)
	b.all.back()
}

// look makes a trial where no call was answered of late, so that a server that is
// gone is known without traffic.
func (b *breaker) look(ctx context.Context) {
	if b.heard.Swap(false) || b.open.Load() || !b.looking.CompareAndSwap(false, true) {
		return
	}
	defer b.looking.Store(false)
	err := b.all.try(ctx, uint16(b.slot.Load()), lookEvery)
	if err != nil && !errors.Is(err, errNotYet) {
		b.trip(err)
	}
}

const (
	// lookEvery is how often a server is looked for that answers no calls, and how
	// long it may take to answer.
	lookEvery = time.Second
	// settled is how long nothing must be suspended for an outage to be over. A
	// server that comes and goes is one outage.
	settled = time.Second
)

// breakers has one breaker for all, or in a cluster one for each range of slots,
// for a range lives on one server and others may be well.
type breakers struct {
	each     []*breaker
	after    int32
	pause    time.Duration // between trials
	bound    time.Duration // of what is answered in time
	patience time.Duration // of a trial, connecting included
	trial    func(ctx context.Context, slot uint16) error
	log      *zap.Logger

	failed, suspended atomic.Int64 // requests
	open              atomic.Int32 // breakers

	mu      sync.Mutex
	ctx     context.Context // done when they are stopped
	stop    context.CancelFunc
	tasks   sync.WaitGroup
	outage  *outage // nil while there is none
	settles *time.Timer
}

// outage is a time in which calls were suspended now and then.
type outage struct {
	began             time.Time
	worst             int // breakers that were open at once
	failed, suspended int64
}

const (
	slots           = 16384 // of a cluster
	slotsPerBreaker = 256
)

// newBreakers returns closed breakers. The trial asks the server of a slot, and
// returns an ErrUnavailable if it is not there.
func newBreakers(o *Options, trial func(ctx context.Context, slot uint16) error) *breakers {
	bs := &breakers{
		after: int32(o.BreakAfter), pause: o.BreakFor, bound: o.bound(), patience: o.DialTimeout,
		trial: trial, log: o.Log,
	}
	n := 1
	if o.Mode == Cluster {
		n = slots / slotsPerBreaker
	}
	for i := range n {
		b := &breaker{all: bs}
		b.slot.Store(uint32(i * slotsPerBreaker))
		bs.each = append(bs.each, b)
	}
	bs.ctx, bs.stop = context.WithCancel(context.Background())
	bs.tasks.Go(bs.watch)
	return bs
}

// of returns the breaker of a slot. The error is that of a key without a slot in a
// cluster.
func (bs *breakers) of(slot uint16) (*breaker, error) {
	if len(bs.each) == 1 {
		return bs.each[0], nil
	}
	if at := int(slot / slotsPerBreaker); at < len(bs.each) {
		return bs.each[at], nil
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, errNoCluster)
}

// watch looks for servers now and then.
func (bs *breakers) watch() {
	for sleep(bs.ctx, lookEvery) {
		for _, b := range bs.each {
			bs.mu.Lock()
			if bs.ctx.Err() == nil {
				bs.tasks.Go(func() { b.look(bs.ctx) })
			}
			bs.mu.Unlock()
		}
	}
}

// try makes a trial that may take so long.
func (bs *breakers) try(ctx context.Context, slot uint16, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return bs.trial(ctx, slot)
}

// gone notes that a breaker has opened, with one line for an outage. The mutex is
// held.
func (bs *breakers) gone(cause error, failed int64) {
	away := int(bs.open.Add(1))
	if bs.settles != nil {
		bs.settles.Stop()
		bs.settles = nil
	}
	if bs.outage == nil {
		bs.outage = &outage{began: time.Now(), failed: failed, suspended: bs.suspended.Load()}
		bs.log.Warn("Redis does not answer: calls are suspended until it does", zap.Error(cause))
	}
	bs.outage.worst = max(bs.outage.worst, away)
}

// back notes that a breaker has closed. The outage is over when all stay closed.
func (bs *breakers) back() {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.open.Add(-1) > 0 || bs.ctx.Err() != nil {
		return
	}
	ended := time.Now()
	var timer *time.Timer
	timer = time.AfterFunc(settled, func() {
		bs.mu.Lock()
		defer bs.mu.Unlock()
		if bs.settles != timer { // it has gone again
			return
		}
		o := bs.outage
		bs.outage, bs.settles = nil, nil
		bs.log.Info("Redis answers again",
			zap.Duration("after", ended.Sub(o.began)),
			zap.Int64("failed_requests", bs.failed.Load()-o.failed),
			zap.Int64("suspended_requests", bs.suspended.Load()-o.suspended),
			zap.String("away", fmt.Sprintf("%d of %d", o.worst, len(bs.each))))
	})
	bs.settles = timer
}

// share returns the part of the breakers that let no call pass.
func (bs *breakers) share() float64 { return float64(bs.open.Load()) / float64(len(bs.each)) }

// allOpen reports whether no call passes, so that none need be prepared.
func (bs *breakers) allOpen() bool { return int(bs.open.Load()) == len(bs.each) }

// count counts what became of a request.
func (bs *breakers) count(err error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrSuspended):
		bs.suspended.Add(1)
	case errors.Is(err, ErrUnavailable):
		bs.failed.Add(1)
	}
}

// close ends all trials.
func (bs *breakers) close() {
	bs.mu.Lock()
	bs.stop()
	if bs.settles != nil {
		bs.settles.Stop()
		bs.settles = nil
	}
	bs.mu.Unlock()
	bs.tasks.Wait()
}

// pauses are those between attempts to reach a server. One that is not there is
// tried at a steady pace, so that it is found as soon as it is; one that refuses
// the connection is tried less and less often.
type pauses struct{ last time.Duration }

const longestPause = time.Second

// next returns the pause after an attempt that failed with err.
func (p *pauses) next(first time.Duration, err error) time.Duration {
	if p.last == 0 || !errors.Is(err, errLogin) {
		p.last = first
	} else {
		p.last = min(2*p.last, max(first, longestPause))
	}
	return jitter(p.last)
}
