package memory

import "github.com/distlimiter/ratelimit/internal/algo"

// logs holds the states that have outgrown their records.
type logs struct {
	states []algo.State
	vacant []uint64 // unused numbers
	words  int
}

// add returns the number of a new state, its content undefined.
func (l *logs) add(words int) uint64 {
	i := uint64(len(l.states))
	if n := len(l.vacant); n > 0 {
		i = l.vacant[n-1]
		l.vacant = l.vacant[:n-1]
	} else {
		l.states = append(l.states, nil)
	}
	l.states[i] = make(algo.State, words)
	l.words += words
	return i
}

func (l *logs) release(i uint64) {
	l.words -= len(l.states[i])
	l.states[i] = nil
	l.vacant = append(l.vacant, i)
	if len(l.vacant) == len(l.states) {
		*l = logs{}
	}
}

func (l *logs) bytes() int64 {
	const perState = 24 + 8 // its slice, and the number when it is vacant
	return int64(8*l.words + perState*cap(l.states))
}
