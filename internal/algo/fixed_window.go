package algo

// fixedWindow counts hits in windows that start at multiples of the window
// since the epoch. It admits up to 2·limit in a trailing window: limit at the
// end of one window and limit at the start of the next.
//
// State: the end of the window in force, and the hits counted in it. The state
// keeps the end rather than a window number, so that settle can correct a clock
// that stepped back exactly.
type fixedWindow struct {
	limit  int64
	window int64 // µs
}

const (
	windowEnd   = iota // µs since the epoch; settled states: now < end ≤ now + window
	windowCount        // hits in the window in force
	windowPrev         // slidingWindow: hits in the window before
)

var fixedWindowKind = kind{
	name: "fixed_window", tag: "fw", takes: TakesCalendar, countsDenied: true, programs: []string{"fixed_window", "calendar_window"},
	new: func(p Params, _ bool) (stepper, error) {
		if !p.Calendar.IsZero() {
			return newCalendarWindow(p)
		}
		return &fixedWindow{limit: int64(p.Limit), window: p.Window.Microseconds()}, nil
	},
}

func (*fixedWindow) words() int        { return 2 }
func (f *fixedWindow) capacity() int64 { return f.limit }
func (*fixedWindow) leavesWhole()      {}
func (*fixedWindow) program() string   { return "fixed_window" }
func (f *fixedWindow) appendNumbers(dst []float64) []float64 {
	return append(dst, float64(f.limit), float64(f.window))
}

func (f *fixedWindow) settle(s State, now int64) {
	end := int64(s[windowEnd])
	switch {
	case s[windowCount] == 0 || now >= end:
		s[windowEnd], s[windowCount] = uint64(alignedEnd(now, f.window)), 0
	case end > now+f.window:
		// The clock stepped back. What was charged stays charged, but for no
		// longer than one window from now; the window after is aligned again.
		s[windowEnd] = uint64(now + f.window)
	}
	if s[windowCount] > maxCount {
		s[windowCount] = maxCount
	}
}

// alignedEnd returns the first multiple of window after now.
func alignedEnd(now, window int64) int64 { return now - now%window + window }

func (f *fixedWindow) fits(s State, _, n int64) bool {
	return n <= f.limit-int64(s[windowCount])
}

// charge counts beyond the limit, up to maxCount, as envoyproxy/ratelimit does: no
// debt outlives the window.
func (f *fixedWindow) charge(s State, _, n int64) State {
	s[windowCount] += uint64(min(n, maxCount-int64(s[windowCount])))
	return s
}

func (f *fixedWindow) refund(s State, now, n int64) State {
	s[windowCount] -= min(s[windowCount], uint64(n))
	if s[windowCount] == 0 {
		s[windowEnd] = uint64(alignedEnd(now, f.window))
	}
	return s
}

func (f *fixedWindow) left(s State, now int64) (remaining, reset int64) {
	return f.limit - int64(s[windowCount]), int64(s[windowEnd]) - now
}

func (f *fixedWindow) wait(s State, now, n int64) int64 {
	switch {
	case n > f.limit:
		return never
	case f.fits(s, now, n):
		return 0
	}
	return int64(s[windowEnd]) - now
}

func (f *fixedWindow) expiry(s State) int64 {
	if s[windowCount] == 0 {
		return 0
	}
	return int64(s[windowEnd])
}
