package algo

import "math/bits"

// slidingWindow estimates the hits of the trailing window from two counters:
// this window's count, plus the last window's in the proportion in which it is
// still in view (Cloudflare's published sliding window counter). The estimate
// is exact if the last window's hits were spread evenly; an adversary that
// bunches them gets at most 2·limit − 1 in a trailing window.
//
// State: the end of the window in force, its count, the count before. Windows
// are aligned to the epoch when nothing is counted and keep their phase from
// then on, which differs from the aligned one only after a clock step.
type slidingWindow struct {
	limit  int64
	window int64 // µs
	bound  int64 // the most that the estimate is charged to: limit, or with debt twice that
}

func (*slidingWindow) words() int { return 3 }

func (w *slidingWindow) settle(s State, now int64) {
	end := int64(s[windowEnd])
	switch {
	case end > now+w.window: // the clock stepped back: see fixedWindow
		end = now + w.window
	case now-w.window >= end:
		s[windowCount], s[windowPrev] = 0, 0
	case now >= end:
		s[windowPrev], s[windowCount] = s[windowCount], 0
		end += w.window
	}
	// A lowered limit must not be blocked by counts that it would not have let
	// happen.
	s[windowCount] = min(s[windowCount], uint64(w.bound))
	s[windowPrev] = min(s[windowPrev], uint64(w.bound))
	if s[windowCount] == 0 && s[windowPrev] == 0 {
		end = alignedEnd(now, w.window)
	}
	s[windowEnd] = uint64(end)
}

// room is how many hits fit: limit − count − previous·(window − elapsed)/window,
// floored; negative when in debt.
func (w *slidingWindow) room(s State, now int64) int64 {
	fading := int64(s[windowPrev])
	if fading != 0 {
		fading = ceilMulDiv(fading, int64(s[windowEnd])-now, w.window)
	}
	return w.limit - int64(s[windowCount]) - fading
}

func (w *slidingWindow) fits(s State, now, n int64) bool { return n <= w.room(s, now) }

func (w *slidingWindow) charge(s State, now, n int64) State {
	debt := w.bound - w.limit
	s[windowCount] += uint64(max(0, min(n, w.room(s, now)+debt)))
	return s
}

func (w *slidingWindow) refund(s State, now, n int64) State {
	for i := windowCount; i <= windowPrev; i++ {
		back := min(s[i], uint64(n))
		s[i] -= back
		n -= int64(back)
	}
	if s[windowCount] == 0 && s[windowPrev] == 0 {
		s[windowEnd] = uint64(alignedEnd(now, w.window))
	}
	return s
}

func (w *slidingWindow) left(s State, now int64) (remaining, reset int64) {
	if at := w.expiry(s); at != 0 {
		reset = at - now
	}
	return w.room(s, now), reset
}

func (w *slidingWindow) wait(s State, now, n int64) int64 {
	if n > w.limit {
		return never
	}
	toEnd := int64(s[windowEnd]) - now
	// Before the window ends its count stays and only the previous one fades. It
	// has faded enough when previous·(time to the end) ≤ room·window.
	if room := w.limit - int64(s[windowCount]) - n; room >= 0 {
		prev := int64(s[windowPrev])
		if prev <= room {
			return 0
		}
		return max(0, toEnd-floorMulDiv(room, w.window, prev))
	}
	// After it, this window's count is the one that fades.
	return toEnd + w.window - floorMulDiv(w.limit-n, w.window, int64(s[windowCount]))
}

func (w *slidingWindow) expiry(s State) int64 {
	switch {
	case s[windowCount] != 0:
		return int64(s[windowEnd]) + w.window
	case s[windowPrev] != 0:
		return int64(s[windowEnd])
	}
	return 0
}

// floorMulDiv returns ⌊a·b/c⌋ for non-negative a, b and positive c whose
// quotient fits an int64.
func floorMulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi == 0 {
		return int64(lo / uint64(c))
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(q)
}

// ceilMulDiv is floorMulDiv rounded up.
func ceilMulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	lo, carry := bits.Add64(lo, uint64(c-1), 0)
	hi += carry
	if hi == 0 {
		return int64(lo / uint64(c))
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(q)
}
