package algo

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"time"
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
// A TAT is a time, and says how many hits were used only together with the rate
// that they were charged at. So the state records that rate: under another one
// the counter first drains at the recorded rate, and then owes the same number
// of hits at the new one. The most hits that it can owe is on record too: more
// is a clock that stepped back or damage, and is cut; a lowered capacity is not.
//
// State: the TAT's microseconds, its remainder with the rate's hits, the rate's
// period, and the most hits that can be owed.
type bucket struct {
	hits   uint64 // per period; 0 for a limit of 0, under which nothing is charged
	period uint64 // µs
	size   int64  // hits: the capacity
	most   uint64 // hits that can be owed: size, or with debt twice that
	cost   span   // T: of one hit
	full   span   // size·T: the furthest that the TAT may lie ahead when a call passes
	bound  span   // most·T: the furthest that a charge moves it
}

var (
	tokenBucketKind = kind{
		name: "token_bucket", tag: "tb", anyWindow: true, takes: TakesBurst, programs: []string{"bucket"},
		new: func(p Params, debt bool) (stepper, error) {
			return newBucket(Rate{p.Limit, p.Window}, cmp.Or(p.Burst, p.Limit), debt)
		},
	}
	leakyBucketKind = kind{
		name: "leaky_bucket", tag: "lb", anyWindow: true, takes: TakesBurst, programs: []string{"bucket"},
		noHold: "it spaces requests out by when they come, and a reserved place has no such time",
		new: func(p Params, debt bool) (stepper, error) {
			return newBucket(Rate{p.Limit, p.Window}, cmp.Or(p.Burst, 1), debt)
		},
	}
)

const (
	tatMicros = iota // µs since the epoch
	tatRate          // hits of the recorded rate · 2^32 + the TAT's part, in units of 1/hits µs
	tatPeriod        // µs
	tatMost          // hits

	bucketWords
)

// mostOwed is the most that any limit can be owed: twice its capacity.
const mostOwed = 2 * math.MaxUint32

// furthest is the furthest that a TAT ever lies ahead, in µs: what a bucket of
// the longest fill owes at the most.
const furthest = 2 * int64(MaxFill/time.Microsecond)

// span is a length of time: µs + part/hits, 0 ≤ part < hits.
type span struct {
	micros int64
	part   uint64
}

// newBucket returns a bucket of that capacity. With a rate of 0 nothing passes.
func newBucket(rate Rate, capacity uint32, debt bool) (*bucket, error) {
	if rate.Hits == 0 {
		return &bucket{}, nil
	}
	b := &bucket{hits: uint64(rate.Hits), period: uint64(rate.Per.Microseconds()), size: int64(capacity), most: uint64(capacity)}
	hi, lo := bits.Mul64(uint64(capacity), b.period)
	mostHi, mostLo := bits.Mul64(b.hits, uint64(MaxFill.Microseconds()))
	if hi > mostHi || hi == mostHi && lo > mostLo {
		return nil, &ParamError{"burst", fmt.Sprintf("a bucket of %d at %d per %v takes longer than 50 years to fill", capacity, rate.Hits, rate.Per),
			"use a smaller burst or a higher rate"}
	}
	if debt {
		b.most *= 2
	}
	b.cost = b.times(1)
	b.full = b.times(uint64(b.size))
	b.bound = b.times(b.most)
	return b, nil
}

// times returns n·T, or furthest if that is less.
func (b *bucket) times(n uint64) span {
	if n == 1 && b.cost != (span{}) {
		return b.cost
	}
	hi, lo := bits.Mul64(n, b.period)
	if hi >= b.hits {
		return span{micros: furthest}
	}
	q, r := bits.Div64(hi, lo, b.hits)
	if q >= uint64(furthest) {
		return span{micros: furthest}
	}
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

func partOf(s State) uint64 { return s[tatRate] & math.MaxUint32 }

// ahead returns how far the TAT lies ahead of now.
func ahead(s State, now int64) span { return span{int64(s[tatMicros]) - now, partOf(s)} }

// setAhead keeps the rate on record.
func setAhead(s State, now int64, d span) {
	s[tatMicros], s[tatRate] = uint64(now+d.micros), s[tatRate]&^math.MaxUint32|d.part
}

func (*bucket) words() int        { return bucketWords }
func (b *bucket) capacity() int64 { return b.size }
func (*bucket) program() string   { return "bucket" }
func (b *bucket) appendNumbers(dst []float64) []float64 {
	return append(dst, float64(b.hits), float64(b.period), float64(b.size), float64(b.most),
		float64(b.full.micros), float64(b.full.part), float64(b.bound.micros), float64(b.bound.part))
}

func (b *bucket) settle(s State, now int64) {
	d := ahead(s, now)
	if d.micros < 0 || d == (span{}) { // nothing is owed
		s[tatMicros], s[tatRate], s[tatPeriod], s[tatMost] = uint64(now), b.hits<<32, b.period, b.most
		return
	}
	if s[tatRate]>>32 == b.hits && s[tatPeriod] == b.period && s[tatMost] == b.most {
		if b.bound.less(d) { // the clock stepped back
			setAhead(s, now, b.bound)
		}
		return
	}
	b.settleOther(s, now, d)
}

// settleOther settles a state that records another rate or more owed hits than
// b's: its limit has changed.
func (b *bucket) settleOther(s State, now int64, d span) {
	r := recorded(s)
	d.part = min(d.part, max(r.hits, 1)-1)
	if bound := r.times(r.most); bound.less(d) {
		d = bound
	}
	if b.hits == 0 { // what was used drains on at the rate on record
		setAhead(s, now, d)
		return
	}
	if r.hits != b.hits || r.period != b.period {
		d = b.convert(d, r)
	}
	s[tatRate], s[tatPeriod], s[tatMost] = b.hits<<32, b.period, b.owed(d)
	setAhead(s, now, d)
}

// owed returns the most hits that can be owed by a counter that owes d.
func (b *bucket) owed(d span) uint64 { return max(b.most, uint64(b.hitsIn(d, b.period-1))) }

// appendState reads the TAT, its part and the most owed hits on record; under a
// limit of 0 also the hits and the period on record, which otherwise are b's.
func (b *bucket) appendState(dst State, next func() int64) State {
	tat, part, most := uint64(next()), uint64(next()), uint64(next())
	hits, period := b.hits, b.period
	if b.hits == 0 {
		hits, period = uint64(next()), uint64(next())
	}
	return append(dst, tat, hits<<32|part&math.MaxUint32, period, most)
}

// recorded returns the bucket with the rate that s records. A rate that no rule
// can have, which is damage, counts as one under which nothing is owed.
func recorded(s State) bucket {
	r := bucket{hits: s[tatRate] >> 32, period: s[tatPeriod], most: min(s[tatMost], mostOwed)}
	if r.hits == 0 || r.period == 0 || r.period > uint64(MaxWindow.Microseconds()) {
		return bucket{hits: 1, period: 1}
	}
	return r
}

// convert returns the span that pays at b's rate for the hits that d pays for at
// r's, rounded up to b's units.
func (b *bucket) convert(d span, r bucket) span {
	hi, lo := bits.Mul64(uint64(d.micros), r.hits)
	lo, carry := bits.Add64(lo, d.part, 0)
	whole, rest := bits.Div64(hi+carry, lo, r.period) // at most r.most
	x := b.times(whole)
	hi, lo = bits.Mul64(rest, b.period)
	lo, carry = bits.Add64(lo, r.period-1, 0)
	units, _ := bits.Div64(hi+carry, lo, r.period)
	units += x.part
	x.micros += int64(units / b.hits)
	x.part = units % b.hits
	if x.micros >= furthest {
		return span{micros: furthest}
	}
	return x
}

func (b *bucket) fits(s State, now, n int64) bool {
	return n <= b.size && !b.full.less(b.after(s, now, n))
}

// after returns how far the TAT lies ahead when n more hits have passed.
func (b *bucket) after(s State, now, n int64) span {
	if n == 0 { // also under a limit of 0, where a hit has no length
		return ahead(s, now)
	}
	return b.add(ahead(s, now), b.times(uint64(n)))
}

func (b *bucket) charge(s State, now, n int64) State {
	old := ahead(s, now)
	if !old.less(b.bound) {
		return s // it owes the most already, or more from before the capacity was lowered
	}
	d := b.bound
	if n < 2*b.size { // more is beyond any bound
		d = b.add(old, b.times(uint64(n)))
	}
	if b.bound.less(d) {
		d = b.bound
	}
	setAhead(s, now, d)
	return s
}

func (b *bucket) refund(s State, now, n int64) State {
	r := b
	if b.hits == 0 {
		old := recorded(s)
		r = &old
	}
	d := span{micros: -1}
	if n < mostOwed {
		d = r.sub(ahead(s, now), r.times(uint64(n)))
	}
	if d.micros < 0 {
		d = span{}
	}
	if b.hits != 0 && s[tatMost] != b.most {
		s[tatMost] = b.owed(d)
	}
	setAhead(s, now, d)
	return s
}

func (b *bucket) left(s State, now int64) (remaining, reset int64) {
	d := ahead(s, now)
	switch {
	case b.hits == 0:
		r := recorded(s)
		return -r.hitsIn(d, r.period-1), d.ceil()
	case b.full.less(d):
		return -b.hitsIn(b.sub(d, b.full), b.period-1), d.ceil()
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
	if hi >= b.period { // no settled state pays for as much
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, b.period)
	return int64(q)
}

func (b *bucket) wait(s State, now, n int64) int64 {
	if n > b.size {
		return never
	}
	return max(0, b.sub(b.after(s, now, n), b.full).ceil())
}

func (b *bucket) expiry(s State) int64 {
	return span{int64(s[tatMicros]), partOf(s)}.ceil()
}
