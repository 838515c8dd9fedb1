package algo

import "cmp"

// hybrid passes a call only if both a token bucket and a sliding window pass it,
// and charges both or neither. The bucket smooths bursts; the window bounds the
// total. In a trailing window hybrid admits no more than either of the two would
// alone; with a strict window never more than the limit.
//
// State: the bucket's words, then the window's.
type hybrid struct {
	bucket *bucket
	window sliding
}

var hybridKind = kind{
	name: "hybrid", tag: "hy2", takes: TakesBurst | TakesRefill | TakesStrict, programs: []string{"hybrid"},
	new: func(p Params, debt bool) (stepper, error) {
		rate := p.Refill
		if rate == (Rate{}) || p.Limit == 0 {
			rate = Rate{p.Limit, p.Window}
		}
		b, err := newBucket(rate, cmp.Or(p.Burst, p.Limit), debt)
		if err != nil {
			return nil, err
		}
		return &hybrid{bucket: b, window: newSliding(p, debt)}, nil
	},
}

func (h *hybrid) words() int      { return bucketWords + h.window.words() }
func (h *hybrid) layout() int     { return h.window.layout() }
func (h *hybrid) capacity() int64 { return min(h.bucket.capacity(), h.window.capacity()) }
func (*hybrid) program() string   { return "hybrid" }

// appendNumbers appends the bucket's numbers, the window's program, and the window's
// numbers.
func (h *hybrid) appendNumbers(dst []float64) []float64 {
	dst = append(h.bucket.appendNumbers(dst), float64(programOf(h.window)))
	return h.window.appendNumbers(dst)
}

func (h *hybrid) appendState(dst State, next func() int64) State {
	return appendState(h.bucket.appendState(dst, next), h.window, next)
}

func (h *hybrid) adopt(s, other State, now int64) {
	if len(other) > bucketWords {
		copy(s[:bucketWords], other)
		h.window.adopt(s[bucketWords:], other[bucketWords:], now)
	}
}

func (h *hybrid) settle(s State, now int64) {
	h.bucket.settle(s[:bucketWords], now)
	h.window.settle(s[bucketWords:], now)
}

func (h *hybrid) fits(s State, now, n int64) bool {
	return h.bucket.fits(s[:bucketWords], now, n) && h.window.fits(s[bucketWords:], now, n)
}

func (h *hybrid) charge(s State, now, n int64) State {
	h.bucket.charge(s[:bucketWords], now, n)
	h.window.charge(s[bucketWords:], now, n)
	return s
}

func (h *hybrid) refund(s State, now, n int64) State {
	h.bucket.refund(s[:bucketWords], now, n)
	h.window.refund(s[bucketWords:], now, n)
	return s
}

func (h *hybrid) left(s State, now int64) (remaining, reset int64) {
	r1, t1 := h.bucket.left(s[:bucketWords], now)
	r2, t2 := h.window.left(s[bucketWords:], now)
	return min(r1, r2), max(t1, t2)
}

func (h *hybrid) wait(s State, now, n int64) int64 {
	return max(h.bucket.wait(s[:bucketWords], now, n), h.window.wait(s[bucketWords:], now, n))
}

func (h *hybrid) expiry(s State) int64 {
	return max(h.bucket.expiry(s[:bucketWords]), h.window.expiry(s[bucketWords:]))
}
