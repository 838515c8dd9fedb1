package algo

import (
	"fmt"
	"math/bits"
)

// bucket is the generic cell rate algorithm in its virtual scheduling form
// (ITU-T I.371), which is the arithmetic of both TokenBucket and LeakyBucket.
// The theoretical arrival time (TAT) is when the bucket will be full (a queue:
// empty) again. A hit costs T = period/hits of time; n hits pass when the TAT
// would then lie at most capacity·T ahead. Over any interval t at most
// capacity + t/T pass.
//
// T is rarely a whole number of microseconds, and rounding it would drift: at
// 700,000/s by 40 %. So times are kept as whole microseconds and a remainder in
// units of 1/hits microseconds, in which T is whole.
//
// State: the TAT's microseconds and its remainder.
type bucket struct {
	hits     uint64 // per period
	period   uint64 // µs
	capacity int64  // hits
	cost     span   // T: of one hit
	full     span   // capacity·T: the furthest that the TAT may lie ahead when a call passes
	bound    span   // the furthest that it may lie at all: full, or with debt twice that
}

const (
	tatMicros = iota // µs since the epoch
	tatPart          // in units of 1/hits µs; settled states: < hits
)

// span is a length of time: µs + part/hits, 0 ≤ part < hits.
type span struct {
	micros int64
	part   uint64
}

// newBucket returns the bucket of a rule, with the defaults that [Params] states.
func newBucket(p Params, debt bool) (*bucket, error) {
	rate, capacity := p.Refill, p.Burst
	if rate == (Rate{}) {
		rate = Rate{p.Limit, p.Window}
	}
	if capacity == 0 {
		capacity = p.Limit
		if p.Algorithm == LeakyBucket {
			capacity = 1
		}
	}
	b := &bucket{hits: uint64(rate.Hits), period: uint64(rate.Per.Microseconds()), capacity: int64(capacity)}
	hi, lo := bits.Mul64(uint64(capacity), b.period)
	mostHi, mostLo := bits.Mul64(b.hits, uint64(MaxFill.Microseconds()))
	if hi > mostHi || hi == mostHi && lo > mostLo {
		return nil, fmt.Errorf("a bucket of %d at %d per %v takes longer than 50 years to fill: use a smaller burst or a higher rate", capacity, rate.Hits, rate.Per)
	}
	b.cost = b.times(1)
	b.full = b.times(b.capacity)
	b.bound = b.full
	if debt {
		b.bound = b.times(2 * b.capacity)
	}
	return b, nil
}

// times returns n·T, for 0 ≤ n ≤ 2·capacity (which MaxFill keeps in range).
func (b *bucket) times(n int64) span {
	if n == 1 && b.cost != (span{}) {
		return b.cost
	}
	hi, lo := bits.Mul64(uint64(n), b.period)
	q, r := bits.Div64(hi, lo, b.hits)
	return span{int64(q), r}
}

func (b *bucket) add(x, y span) span {
	x.micros += y.micros
	x.part += y.part
	if x.part >= b.hits {
		x.part -= b.hits
		x.micros++
	}
	return x
}

// sub returns x − y; its micros are negative when y > x.
func (b *bucket) sub(x, y span) span {
	x.micros -= y.micros
	if x.part < y.part {
		x.part += b.hits
		x.micros--
	}
	x.part -= y.part
	return x
}

func (x span) less(y span) bool {
	return x.micros < y.micros || x.micros == y.micros && x.part < y.part
}

// ceil returns x in whole microseconds, rounded up.
func (x span) ceil() int64 {
	if x.part > 0 {
		return x.micros + 1
	}
	return x.micros
}

// ahead returns how far the TAT lies ahead of now.
func ahead(s State, now int64) span { return span{int64(s[tatMicros]) - now, s[tatPart]} }

func setAhead(s State, now int64, d span) {
	s[tatMicros], s[tatPart] = uint64(now+d.micros), d.part
}

func (*bucket) words() int { return 2 }

func (b *bucket) settle(s State, now int64) {
	// Another rate counts remainders in other units; less than a microsecond is lost.
	s[tatPart] = min(s[tatPart], b.hits-1)
	if int64(s[tatMicros]) < now {
		setAhead(s, now, span{})
	} else if b.bound.less(ahead(s, now)) {
		// A lowered burst, a clock that stepped back, or damage: heal rather
		// than block for longer than these parameters ever would.
		setAhead(s, now, b.bound)
	}
}

func (b *bucket) fits(s State, now, n int64) bool {
	return n <= b.capacity && !b.full.less(b.add(ahead(s, now), b.times(n)))
}

func (b *bucket) charge(s State, now, n int64) State {
	d := b.bound
	if n < 2*b.capacity { // more is beyond any bound, and beyond times
		d = b.add(ahead(s, now), b.times(n))
	}
	if b.bound.less(d) {
		d = b.bound
	}
	setAhead(s, now, d)
	return s
}

func (b *bucket) refund(s State, now, n int64) State {
	d := span{micros: -1}
	if n < 2*b.capacity {
		d = b.sub(ahead(s, now), b.times(n))
	}
	if d.micros < 0 {
		d = span{}
	}
	setAhead(s, now, d)
	return s
}

func (b *bucket) left(s State, now int64) (remaining, reset int64) {
	d := ahead(s, now)
	if b.full.less(d) {
		debt := b.sub(d, b.full)
		return -b.hitsIn(debt, b.period-1), d.ceil()
	}
	return b.hitsIn(b.sub(b.full, d), 0), d.ceil()
}

// hitsIn returns how many hits a span pays for: ⌊(span·hits + round)/period⌋.
func (b *bucket) hitsIn(x span, round uint64) int64 {
	hi, lo := bits.Mul64(uint64(x.micros), b.hits)
	lo, carry := bits.Add64(lo, x.part+round, 0)
	hi += carry
	if hi == 0 {
		return int64(lo / b.period)
	}
	q, _ := bits.Div64(hi, lo, b.period)
	return int64(q)
}

func (b *bucket) wait(s State, now, n int64) int64 {
	if n > b.capacity {
		return never
	}
	return max(0, b.sub(b.add(ahead(s, now), b.times(n)), b.full).ceil())
}

func (b *bucket) expiry(s State) int64 {
	return span{int64(s[tatMicros]), s[tatPart]}.ceil()
}
