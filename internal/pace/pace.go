// Package pace adapts a sampling rate so that the number of samples per second stays
// about the same, however many events there are.
package pace

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Pace adapts the sampling rate to the rate of events. It is safe for concurrent
// use; all its users share one rate.
type Pace struct {
	perSecond int
	period    atomic.Uint32 // one event of this many is taken; a power of two, or 0 for 1

	mu     sync.Mutex
	second int64 // Unix time
	taken  int   // in that second, since the period last changed
}

const maxPeriod = 1 << 20

// New returns a Pace that takes about perSecond samples a second, or all events while
// there are fewer.
func New(perSecond int) *Pace { return &Pace{perSecond: perSecond} }

// Period returns the present sampling period: one event of that many is taken. It is at
// least 1.
func (p *Pace) Period() uint32 { return max(p.period.Load(), 1) }

// Draw reports at random whether to take an event, and returns the period. The caller
// must report an event that it takes with Take.
func (p *Pace) Draw() (period uint32, taken bool) {
	period = p.Period()
	return period, period == 1 || rand.Uint32()&(period-1) == 0
}

// Take counts a sample and returns the period that follows it.
func (p *Pace) Take(now time.Time) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shorten(now)
	p.taken++
	period := p.Period()
	if p.taken >= p.perSecond && period < maxPeriod {
		p.taken = 0
		period *= 2
		p.period.Store(period)
	}
	return period
}

// shorten halves the period for each second that has brought few samples.
func (p *Pace) shorten(now time.Time) {
	gone := now.Unix() - p.second
	if gone <= 0 {
		return
	}
	if p.taken >= p.perSecond/2 {
		gone--
	}
	p.period.Store(p.Period() >> min(gone, 31))
	p.second, p.taken = now.Unix(), 0
}

// Relax shortens the period after seconds in which there may have been no samples.
func (p *Pace) Relax(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shorten(now)
}
