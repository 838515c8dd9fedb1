package algo

// strictWindow is the sliding window that never admits more than its limit in
// any trailing window. The window is split into parts. Every part that the
// trailing window touches counts in full, even the oldest, which is partly out of
// view. The price is an effective window of up to one part more.
//
// State: the end of the current part, the counts of the current part and of the
// ones before it, newest first, and a word that is always 0. That word makes a
// state of one part longer than a slidingWindow's.
type strictWindow struct {
	limit  int64
	window int64 // µs
	bound  int64 // a charge raises the sum of all parts to this at most: limit, or with debt twice that
	parts  int64 // number of parts that make up a window
	part   int64 // µs; the window's share, rounded up
}

// strictExtra is the number of words in a state beside one for each part.
const strictExtra = 3

// counts returns the parts+1 counts, the current part's first.
func (w *strictWindow) counts(s State) []uint64 { return s[windowCount : windowCount+w.parts+1] }

func (w *strictWindow) words() int      { return int(w.parts) + strictExtra }
func (w *strictWindow) layout() int     { return 1 + int(w.parts) }
func (w *strictWindow) capacity() int64 { return w.limit }
func (*strictWindow) program() string   { return "strict_window" }
func (w *strictWindow) appendNumbers(dst []float64) []float64 {
	return append(dst, float64(w.limit), float64(w.window), float64(w.bound), float64(w.parts), float64(w.part))
}

func (w *strictWindow) adopt(s, other State, now int64) {
	adoptWindow(s, other, now, w.window, w.parts, w.part)
}

func (w *strictWindow) settle(s State, now int64) {
	counts := w.counts(s)
	end := int64(s[windowEnd])
	switch {
	case end > now+w.part: // the clock stepped back: see fixedWindow
		end = now + w.part
	case end <= now-w.parts*w.part:
		clear(counts)
	case end <= now:
		gone := (now-end)/w.part + 1
		copy(counts[gone:], counts)
		clear(counts[:gone])
		end += gone * w.part
	}
	s[len(s)-1] = 0
	counted := false
	for i := range counts {
		counts[i] = min(counts[i], mostOwed) // no limit allows more: a higher count is damage
		counted = counted || counts[i] != 0
	}
	if !counted {
		end = alignedEnd(now, w.part)
	}
	s[windowEnd] = uint64(end)
}

func (w *strictWindow) total(s State) (sum int64) {
	for _, c := range w.counts(s) {
		sum += int64(c)
	}
	return sum
}

func (w *strictWindow) fits(s State, _, n int64) bool { return n <= w.limit-w.total(s) }

func (w *strictWindow) charge(s State, _, n int64) State {
	s[windowCount] += uint64(max(0, min(n, w.bound-w.total(s))))
	return s
}

func (w *strictWindow) refund(s State, now, n int64) State {
	counts := w.counts(s)
	for i := range counts {
		back := min(counts[i], uint64(n))
		counts[i] -= back
		n -= int64(back)
	}
	if w.total(s) == 0 {
		s[windowEnd] = uint64(alignedEnd(now, w.part))
	}
	return s
}

func (w *strictWindow) left(s State, now int64) (remaining, reset int64) {
	if at := w.expiry(s); at != 0 {
		reset = at - now
	}
	return w.limit - w.total(s), reset
}

func (w *strictWindow) wait(s State, now, n int64) int64 {
	if n > w.limit {
		return never
	}
	excess := w.total(s) + n - w.limit
	counts := w.counts(s)
	for i := w.parts; excess > 0 && i >= 0; i-- {
		if excess -= int64(counts[i]); excess <= 0 {
			return w.leaves(s, i) - now
		}
	}
	return 0
}

// leaves returns when the i-th newest part is no longer counted.
func (w *strictWindow) leaves(s State, i int64) int64 {
	return int64(s[windowEnd]) + (w.parts-i)*w.part
}

func (w *strictWindow) expiry(s State) int64 {
	for i, c := range w.counts(s) {
		if c != 0 {
			return w.leaves(s, int64(i))
		}
	}
	return 0
}
