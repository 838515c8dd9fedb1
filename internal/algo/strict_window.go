package algo

// strictWindow is the sliding window that never admits more than its limit in
// any trailing window. The window is split into parts; the parts that the
// trailing window touches are counted whole, the oldest too although it is
// partly out of view. The price is an effective window of up to one part more.
//
// State: the end of the current part, then the counts of the current part and
// of the ones before it, newest first.
type strictWindow struct {
	limit int64
	bound int64 // the most that all parts hold together: limit, or with debt twice that
	parts int64 // number of parts that make up a window
	part  int64 // µs; the window's share, rounded up
}

const partCounts = 1 // index of the current part's count; parts+1 counts follow

func (w *strictWindow) words() int { return partCounts + int(w.parts) + 1 }

func (w *strictWindow) settle(s State, now int64) {
	counts := s[partCounts:]
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
	// Counts of a higher limit are cut to what this one could have let happen,
	// the oldest first, for they leave first.
	left := uint64(w.bound)
	for i := range counts {
		counts[i] = min(counts[i], left)
		left -= counts[i]
	}
	if left == uint64(w.bound) { // nothing counted
		end = alignedEnd(now, w.part)
	}
	s[windowEnd] = uint64(end)
}

func (w *strictWindow) total(s State) (sum int64) {
	for _, c := range s[partCounts:] {
		sum += int64(c)
	}
	return sum
}

func (w *strictWindow) fits(s State, _, n int64) bool { return n <= w.limit-w.total(s) }

func (w *strictWindow) charge(s State, _, n int64) State {
	s[partCounts] += uint64(min(n, w.bound-w.total(s)))
	return s
}

func (w *strictWindow) refund(s State, now, n int64) State {
	counts := s[partCounts:]
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
	counts := s[partCounts:]
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
	for i, c := range s[partCounts:] {
		if c != 0 {
			return w.leaves(s, int64(i))
		}
	}
	return 0
}
