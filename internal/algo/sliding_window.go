package algo

import (
	"cmp"
	"math/bits"
)

// slidingWindow estimates the hits of the trailing window from two counters
// (Cloudflare's published sliding window counter): this window's count, plus the
// last window's count times the share of that window that is still in view. The
// product is rounded down. Rounded up, a limit of 1 would refuse until the last
// hit has faded completely, and a steady client below the limit would be refused
// half of the time. The estimate is exact if the last window's hits were spread
// evenly; an adversary that bunches them gets at most 2·limit in a trailing window.
//
// State: the end of the window in force, its count, the count before. Windows
// are aligned to the epoch when nothing is counted and keep their phase from
// then on. It differs from the aligned one only after a clock step. A
// strictWindow of the same limit has a layout of its own; each of the two
// converts the other's.
type slidingWindow struct {
	limit  int64
	window int64 // µs
	bound  int64 // the most that a charge raises the estimate to: limit, or with debt twice that
}

var slidingWindowKind = kind{
	name: "sliding_window", tag: "sw2", takes: TakesStrict, programs: []string{"sliding_window", "strict_window"},
	new: func(p Params, debt bool) (stepper, error) { return newSliding(p, debt), nil },
}

// sliding is a slidingWindow or a strictWindow.
type sliding interface {
	stepper
	adopter
}

// newSliding returns the window of SlidingWindow and Hybrid: two counters, or
// sub-windows when strict.
func newSliding(p Params, debt bool) sliding {
	limit, window := int64(p.Limit), p.Window.Microseconds()
	bound := limit
	if debt {
		bound = 2 * limit
	}
	if !p.Strict {
		return &slidingWindow{limit: limit, window: window, bound: bound}
	}
	parts := int64(cmp.Or(p.SubWindows, DefaultSubWindows))
	return &strictWindow{limit: limit, window: window, bound: bound, parts: parts, part: (window + parts - 1) / parts}
}

func (*slidingWindow) words() int        { return windowPrev + 1 }
func (*slidingWindow) layout() int       { return 1 }
func (w *slidingWindow) capacity() int64 { return w.limit }
func (*slidingWindow) program() string   { return "sliding_window" }
func (w *slidingWindow) appendNumbers(dst []float64) []float64 {
	return append(dst, float64(w.limit), float64(w.window), float64(w.bound))
}

func (w *slidingWindow) adopt(s, other State, now int64) {
	adoptWindow(s, other, now, w.window, 1, w.window)
}

// adoptWindow converts other, a state of the same window in another layout, into
// s, which is all zero and has parts+1 counts. A count goes where the latest of
// its hits may have been. So a window counts hits for as long as any of them may
// be in view, and no longer, however often the layouts take turns.
func adoptWindow(s, other State, now, window, parts, part int64) {
	var from stepper
	length := window // of other's parts
	switch n := int64(len(other)) - strictExtra; {
	case len(other) == windowPrev+1:
		from = &slidingWindow{window: window}
	case n >= 1 && n <= MaxSubWindows:
		length = (window + n - 1) / n
		from = &strictWindow{window: window, parts: n, part: length}
	default:
		return
	}
	var memory [strictExtra + MaxSubWindows]uint64
	settled := State(memory[:copy(memory[:], other)])
	from.settle(settled, now)
	end := alignedEnd(now, part)
	s[windowEnd] = uint64(end)
	for i, count := range settled[windowCount:] {
		latest := min(int64(settled[windowEnd])-int64(i)*length-1, now)
		if at := (end - 1 - latest) / part; at <= parts {
			s[windowCount+at] += count
		}
	}
}

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
	// No limit allows more: a higher count is damage.
	s[windowCount] = min(s[windowCount], mostOwed)
	s[windowPrev] = min(s[windowPrev], mostOwed)
	s[windowEnd] = uint64(end)
	w.forget(s, now)
}

// forget drops a previous count that has faded below one hit. When nothing is
// counted it also drops the windows' phase.
func (w *slidingWindow) forget(s State, now int64) {
	if hi, lo := bits.Mul64(s[windowPrev], s[windowEnd]-uint64(now)); hi == 0 && lo < uint64(w.window) {
		s[windowPrev] = 0
	}
	if s[windowCount] == 0 && s[windowPrev] == 0 {
		s[windowEnd] = uint64(alignedEnd(now, w.window))
	}
}

// room returns how many hits fit: limit − count − ⌊previous·(window − elapsed)/window⌋.
// It is negative when in debt.
func (w *slidingWindow) room(s State, now int64) int64 {
	fading := int64(s[windowPrev])
	if fading != 0 {
		fading = floorMulDiv(fading, int64(s[windowEnd])-now, w.window)
	}
	return w.limit - int64(s[windowCount]) - fading
}

// fades returns how long before a window's end the previous count has faded to room
// or less. count is above 0. The estimate has faded that far when
// count·(time to the end)/window < room + 1.
func (w *slidingWindow) fades(count, room int64) int64 {
	return ceilMulDiv(room+1, w.window, count) - 1
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
	w.forget(s, now)
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
	// Before the window ends, its own count stays and only the previous one fades.
	if room := w.limit - int64(s[windowCount]) - n; room >= 0 {
		prev := int64(s[windowPrev])
		if prev <= room {
			return 0
		}
		return max(0, toEnd-w.fades(prev, room))
	}
	// After the end, this window's count is the one that fades.
	return toEnd + w.window - w.fades(int64(s[windowCount]), w.limit-n)
}

func (w *slidingWindow) expiry(s State) int64 {
	end := int64(s[windowEnd])
	switch {
	case s[windowCount] != 0:
		return end + w.window - w.fades(int64(s[windowCount]), 0)
	case s[windowPrev] != 0:
		return end - w.fades(int64(s[windowPrev]), 0)
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
