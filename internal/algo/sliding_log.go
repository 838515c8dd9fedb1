package algo

import "sort"

// slidingLog remembers the time of every hit and is exact: n hits pass when the
// trailing window (now − window, now] holds at most limit − n. To know that, one
// old timestamp is enough: the (limit − n + 1)-th newest must have left.
//
// State: empty, or the number of entries, the slot of the next one, and a ring of
// timestamps (µs since the epoch) in ascending order. The ring grows by doubling
// up to limit slots, and one more when denied hits count, which tells "full"
// from "exceeded". Entries that have left stay in their slots until overwritten.
type slidingLog struct {
	limit  int
	window int64 // µs
	slots  int   // the most the ring holds
}

const (
	logSize = iota
	logNext
	logRing // index of the first slot
)

const firstRing = 4 // slots: most keys see few hits

func newSlidingLog(limit int, window int64, debt bool) slidingLog {
	l := slidingLog{limit: limit, window: window, slots: limit}
	if debt {
		l.slots++
	}
	return l
}

func (slidingLog) words() int { return 0 }

// entries returns how many timestamps s holds.
func entries(s State) int {
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

// at returns the time of the i-th newest entry, which is live until at + window:
// now at the latest, whatever damage there is.
func at(s State, now int64, i int) int64 { return int64(min(*slot(s, i), uint64(now))) }

func (l slidingLog) settle(s State, now int64) {
	if len(s) <= logRing {
		return
	}
	if ring := uint64(len(s) - logRing); s[logSize] > ring || s[logNext] == 0 || s[logNext] > ring {
		s[logSize], s[logNext] = 0, ring // damaged
	}
	s[logSize] = min(s[logSize], uint64(l.slots)) // what a higher limit has left
	if s[logSize] > 0 && at(s, now, 0) <= now-l.window {
		s[logSize] = 0 // all have left, also any that damage put in the future
	}
	// The clock stepped back: those hits happened, at the latest now.
	for i := 0; i < int(s[logSize]) && *slot(s, i) > uint64(now); i++ {
		*slot(s, i) = uint64(now)
	}
}

// live returns how many entries are within the window.
func (l slidingLog) live(s State, now int64) int {
	return sort.Search(entries(s), func(i int) bool { return at(s, now, i) <= now-l.window })
}

func (l slidingLog) fits(s State, now, n int64) bool { return l.wait(s, now, n) == 0 }

func (l slidingLog) charge(s State, now, n int64) State {
	add := int(min(n, int64(l.slots)))
	s = l.reserve(s, now, add)
	ring := s[logRing:]
	next := int(s[logNext])
	for range add {
		if next == len(ring) {
			next = 0
		}
		ring[next] = uint64(now)
		next++
	}
	s[logNext] = uint64(next)
	s[logSize] = uint64(min(int(s[logSize])+add, len(ring), l.slots))
	return s
}

// reserve makes room for add more entries beside the live ones, which is as
// many as there will ever be a need to tell apart.
func (l slidingLog) reserve(s State, now int64, add int) State {
	have := 0
	if len(s) > logRing {
		have = len(s) - logRing
		if int(s[logSize])+add <= have || have >= l.slots {
			return s
		}
	}
	live := l.live(s, now)
	need := min(live+add, l.slots)
	if need <= have {
		return s
	}
	grown := make(State, logRing+min(max(need, 2*have, firstRing), l.slots))
	for i := range live {
		grown[logRing+live-1-i] = uint64(at(s, now, i))
	}
	grown[logSize], grown[logNext] = uint64(live), uint64(live)
	return grown
}

func (l slidingLog) refund(s State, _, n int64) State {
	if size := entries(s); size > 0 {
		back := int(min(n, int64(size)))
		next := int(s[logNext]) - back
		if next <= 0 {
			next += len(s) - logRing
		}
		s[logNext] = uint64(next)
		s[logSize] -= uint64(back)
	}
	return s
}

func (l slidingLog) left(s State, now int64) (remaining, reset int64) {
	live := l.live(s, now)
	if live > 0 {
		reset = at(s, now, live-1) + l.window - now
	}
	return int64(l.limit - live), reset
}

func (l slidingLog) wait(s State, now, n int64) int64 {
	if n > int64(l.limit) {
		return never
	}
	mustHaveLeft := l.limit - int(n) // counted from the newest, which is 0
	if mustHaveLeft >= entries(s) {
		return 0
	}
	return max(0, at(s, now, mustHaveLeft)+l.window-now)
}

func (l slidingLog) expiry(s State) int64 {
	if entries(s) == 0 {
		return 0
	}
	return int64(*slot(s, 0)) + l.window
}
