package algo

import (
	"sort"
	"time"
)

// slidingLog remembers the time of every hit and is exact: n hits pass when the
// trailing window (now − window, now] holds at most limit − n.
//
// State: empty, or the number of entries, the slot of the next one, and a ring of
// timestamps (µs since the epoch) in ascending order. The ring grows by doubling
// up to limit slots, and one more when denied hits count, which tells "full"
// from "exceeded". It never shrinks: a lowered limit keeps the hits that a higher
// one let happen. A settled state holds live entries only; what has left stays
// in its slot until overwritten but is not counted, whatever the clock does.
type slidingLog struct {
	limit  int
	window int64 // µs
	slots  int   // the most entries that a charge leaves, unless there are more already
}

const (
	logSize = iota
	logNext
	logRing // index of the first slot
)

const firstRing = 4 // slots: most keys see few hits

func newSlidingLog(limit int, window int64, debt bool) *slidingLog {
	l := &slidingLog{limit: limit, window: window, slots: limit}
	if debt && limit > 0 {
		l.slots++
	}
	return l
}

var slidingLogKind = kind{
	name: "sliding_log", tag: "sl", programs: []string{"sliding_log"},
	noHold:   "it remembers when each hit came, and what is settled came at no one time",
	maxLimit: MaxLogLimit, whyNoMore: "a sliding_log of %d hits, of which each takes 8 bytes in every counter", try: "sliding_window with strict: true",
	new: func(p Params, debt bool) (stepper, error) {
		return newSlidingLog(int(p.Limit), p.Window.Microseconds(), debt), nil
	},
}

func (*slidingLog) words() int        { return grows }
func (l *slidingLog) capacity() int64 { return int64(l.limit) }
func (*slidingLog) program() string   { return "sliding_log" }
func (l *slidingLog) appendNumbers(dst []float64) []float64 {
	return append(dst, float64(l.limit), float64(l.window), float64(l.slots))
}

// answer reads how many entries the log has, the oldest of them, and the one that
// must leave for the hits to pass; 0 for none. That is all that a decision needs.
func (l *slidingLog) answer(now, hits int64, allowed bool, next func() int64) Decision {
	size, oldest, blocking := next(), next(), next()
	in := func(entry int64) time.Duration { // one that damage has out of order may have left
		return micros(max(0, entry-now+l.window))
	}
	d := Decision{Allowed: allowed, Remaining: int64(l.limit) - size}
	if size > 0 {
		d.ResetAfter = in(oldest)
	}
	switch {
	case allowed:
	case hits > int64(l.limit) || l.limit == 0:
		d.RetryAfter = Never
	case blocking > 0:
		d.RetryAfter = in(blocking)
	}
	return d
}

// size returns how many entries s holds.
func size(s State) int {
	if len(s) <= logRing {
		return 0
	}
	return int(s[logSize])
}

// slot returns the place of the i-th newest entry, the newest being 0.
func slot(s State, i int) *uint64 {
	ring := s[logRing:]
	at := int(s[logNext]) - 1 - i
	if at < 0 {
		at += len(ring)
	}
	return &ring[at]
}

// leaves returns when the i-th newest entry leaves the window, or now if it has:
// at the latest when a hit at now would, whatever damage there is.
func (l *slidingLog) leaves(s State, now int64, i int) int64 {
	return max(now, int64(min(*slot(s, i), uint64(now)))+l.window)
}

func (l *slidingLog) settle(s State, now int64) {
	if len(s) <= logRing {
		return
	}
	if ring := uint64(len(s) - logRing); s[logSize] > ring || s[logNext] == 0 || s[logNext] > ring {
		s[logSize], s[logNext] = 0, ring // damaged
	}
	n := int(s[logSize])
	// The clock stepped back: those hits happened, at the latest now.
	for i := 0; i < n && *slot(s, i) > uint64(now); i++ {
		*slot(s, i) = uint64(now)
	}
	left := func(i int) bool { return l.leaves(s, now, i) == now }
	switch {
	case n == 0:
	case left(0):
		n = 0
	case left(n - 1):
		n = sort.Search(n, left)
	}
	s[logSize] = uint64(n)
}

func (l *slidingLog) fits(s State, _, n int64) bool { return n <= int64(l.limit-size(s)) }

func (l *slidingLog) charge(s State, now, n int64) State {
	add := int(min(n, int64(l.slots)))
	if add == 0 {
		return s
	}
	had := size(s)
	total := max(had, min(had+add, l.slots))
	s = grow(s, total, l.slots)
	ring := s[logRing:]
	next := int(s[logNext])
	for range add {
		if next == len(ring) {
			next = 0
		}
		ring[next] = uint64(now)
		next++
	}
	s[logSize], s[logNext] = uint64(total), uint64(next)
	return s
}

// grow returns s with a ring of at least need slots, at most most.
func grow(s State, need, most int) State {
	have := max(0, len(s)-logRing)
	if need <= have {
		return s
	}
	n := size(s)
	grown := make(State, logRing+min(max(need, 2*have, firstRing), most))
	for i := range n {
		grown[logRing+n-1-i] = *slot(s, i)
	}
	grown[logSize], grown[logNext] = uint64(n), uint64(n)
	return grown
}

func (l *slidingLog) refund(s State, _, n int64) State {
	if back := int(min(n, int64(size(s)))); back > 0 {
		next := int(s[logNext]) - back
		if next <= 0 {
			next += len(s) - logRing
		}
		s[logNext] = uint64(next)
		s[logSize] -= uint64(back)
	}
	return s
}

func (l *slidingLog) left(s State, now int64) (remaining, reset int64) {
	n := size(s)
	if n > 0 {
		reset = l.leaves(s, now, n-1) - now
	}
	return int64(l.limit - n), reset
}

// wait needs one timestamp: of the newest entry that must leave. limit − n entries are
// newer.
func (l *slidingLog) wait(s State, now, n int64) int64 {
	switch {
	case n > int64(l.limit):
		return never
	case l.fits(s, now, n):
		return 0
	}
	return l.leaves(s, now, l.limit-int(n)) - now
}

func (l *slidingLog) expiry(s State) int64 {
	if size(s) == 0 {
		return 0
	}
	return int64(*slot(s, 0)) + l.window
}
