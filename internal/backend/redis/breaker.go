package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/sparing"
)

// breaker stops calls to a server that does not answer: after some failures in a
// row, calls fail at once. It then makes trials beside the traffic, one after the
// other, until one is answered. An answer with an error is not a failure, because
// the server is there.
type breaker struct {
	all      *breakers
	open     atomic.Bool
	failures atomic.Int32  // in a row
	counted  atomic.Int64  // when a failure was last counted, in ns since the epoch
	heard    atomic.Bool   // whether a call was answered since the last look
	looking  atomic.Bool   // whether a look is under way
	slot     atomic.Uint32 // of the call that failed last, for the trials
	calm     atomic.Int64  // the number of failed requests before the first of the failures in a row
}

// do makes the call, unless calls are suspended. The call's context is done at until.
func (b *breaker) do(slot uint16, until time.Time, call func(ctx context.Context) error) error {
	if b.open.Load() {
		return ErrSuspended
	}
	began := time.Now()
	ctx := newDeadline(until, began, b, slot)
	defer ctx.free()
	err := call(ctx)
	if !errors.Is(err, errTimeout) || ctx.Err() == nil { // otherwise the context has reported it
		b.report(began, slot, err)
	}
	return err
}

// report counts the result of a call. A call that began before the last failure was
// counted adds no further failure: a server that stalls for a moment, or a connection
// that is closed, fails all calls under way at once. An error that a proxy reports
// for one of its servers is no failure either, because the proxy is there.
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

// recover makes trials until one is answered in time. A trial that was answered late
// may have waited for the server to come back, so the next one follows at once to
// find out.
func (b *breaker) recover(ctx context.Context) {
	var waits pauses
	for late := false; ; {
		began := time.Now()
		err := b.all.try(ctx, uint16(b.slot.Load()), b.all.trialTimeout)
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

// look makes a trial if no call was answered lately. So an outage is noticed without
// traffic.
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
	// lookEvery is the interval of looks at a server that answered no calls, and
	// the time that it has to answer one.
	lookEvery = time.Second
	// quietTime is how long no call must be suspended before an outage is over. A
	// server that comes and goes makes one outage.
	quietTime = time.Second
)

// breakers has one breaker for all keys, or in a cluster one for each range of slots,
// because a range lives on one server while other servers may work.
type breakers struct {
	each         []*breaker
	after        int32
	pause        time.Duration // between trials
	bound        time.Duration // within which an answer is in time
	trialTimeout time.Duration // includes the time to connect
	trial        func(ctx context.Context, slot uint16) error
	log          *zap.Logger

	failed, suspended atomic.Int64 // requests
	open              atomic.Int32 // breakers

	refused  atomic.Int64 // requests that no line about refusals has counted yet
	refusals *zap.Logger  // for that line, which it writes once a minute

	mu     sync.Mutex
	ctx    context.Context // done when they are stopped
	stop   context.CancelFunc
	tasks  sync.WaitGroup
	outage *outage // nil while there is none
	ending *time.Timer
}

// outage is a time during which calls were suspended, with pauses of less than quietTime.
type outage struct {
	began             time.Time
	worst             int // breakers that were open at once
	failed, suspended int64
}

const (
	slots           = 16384 // of a cluster
	slotsPerBreaker = 256
)

// newBreakers returns closed breakers. trial asks the server of a slot, and returns an
// ErrUnavailable if it does not answer.
func newBreakers(o *Options, trial func(ctx context.Context, slot uint16) error) *breakers {
	bs := &breakers{
		after: int32(o.BreakAfter), pause: o.BreakFor, bound: o.bound(), trialTimeout: o.DialTimeout,
		trial: trial, log: o.Log, refusals: sparing.Log(o.Log, 1, time.Minute),
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

// of returns the breaker of a slot. It is an error if a key in a cluster has no slot.
func (bs *breakers) of(slot uint16) (*breaker, error) {
	if len(bs.each) == 1 {
		return bs.each[0], nil
	}
	if at := int(slot / slotsPerBreaker); at < len(bs.each) {
		return bs.each[at], nil
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, errNoCluster)
}

// watch looks at all servers every lookEvery.
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

// try makes a trial with a timeout.
func (bs *breakers) try(ctx context.Context, slot uint16, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return bs.trial(ctx, slot)
}

// gone records that a breaker has opened. It logs one line per outage. The caller
// holds the mutex.
func (bs *breakers) gone(cause error, failed int64) {
	away := int(bs.open.Add(1))
	if bs.ending != nil {
		bs.ending.Stop()
		bs.ending = nil
	}
	if bs.outage == nil {
		bs.outage = &outage{began: time.Now(), failed: failed, suspended: bs.suspended.Load()}
		bs.log.Warn("Redis does not answer: calls are suspended until it does", zap.Error(cause))
	}
	bs.outage.worst = max(bs.outage.worst, away)
}

// back records that a breaker has closed. The outage is over when all stay closed.
func (bs *breakers) back() {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.open.Add(-1) > 0 || bs.ctx.Err() != nil {
		return
	}
	ended := time.Now()
	var timer *time.Timer
	timer = time.AfterFunc(quietTime, func() {
		bs.mu.Lock()
		defer bs.mu.Unlock()
		if bs.ending != timer { // a breaker has opened again
			return
		}
		o := bs.outage
		bs.outage, bs.ending = nil, nil
		bs.log.Info("Redis answers again",
			zap.Duration("after", ended.Sub(o.began)),
			zap.Int64("failed_requests", bs.failed.Load()-o.failed),
			zap.Int64("suspended_requests", bs.suspended.Load()-o.suspended),
			zap.String("away", fmt.Sprintf("%d of %d", o.worst, len(bs.each))))
	})
	bs.ending = timer
}

// share returns the fraction of the breakers that are open.
func (bs *breakers) share() float64 { return float64(bs.open.Load()) / float64(len(bs.each)) }

// allOpen reports whether all breakers are open. No call need be prepared then.
func (bs *breakers) allOpen() bool { return int(bs.open.Load()) == len(bs.each) }

// count counts the result of a request.
func (bs *breakers) count(err error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrSuspended):
		bs.suspended.Add(1)
	case errors.Is(err, ErrUnavailable):
		bs.failed.Add(1)
	case errors.Is(err, ErrRefused), errors.Is(err, ErrReply):
		bs.refuse(err)
	}
}

// refuse logs that the server answers with errors, because its memory is full, for
// example, or its user lacks a right.
func (bs *breakers) refuse(err error) {
	bs.refused.Add(1)
	if line := bs.refusals.Check(zap.WarnLevel, "Redis refuses calls: on_backend_error decides"); line != nil {
		line.Write(zap.Error(err), zap.Int64("requests", bs.refused.Swap(0)))
	}
}

// close ends all trials.
func (bs *breakers) close() {
	bs.mu.Lock()
	bs.stop()
	if bs.ending != nil {
		bs.ending.Stop()
		bs.ending = nil
	}
	bs.mu.Unlock()
	bs.tasks.Wait()
}

// pauses are the pauses between attempts to reach a server. A server that does not
// answer is tried at a steady pace, so that its return is found soon. A server that
// refuses the connection is tried less and less often.
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
