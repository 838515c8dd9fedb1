package algo

// Program names the arithmetic of a limit, for a store that runs it elsewhere
// than in this process: a script in a database.
type Program uint8

// The programs. TokenBucket and LeakyBucket share one.
const (
	ProgramFixedWindow Program = iota
	ProgramSlidingWindow
	ProgramStrictWindow
	ProgramSlidingLog
	ProgramBucket
	ProgramHybrid
)

var programNames = [...]string{"fixed_window", "sliding_window", "strict_window", "sliding_log", "bucket", "hybrid"}

// Programs lists the names of the programs, in order.
func Programs() []string { return append([]string(nil), programNames[:]...) }

// String returns the name of the program, such as "bucket".
func (p Program) String() string { return programNames[p] }

// Program returns the program of the limit. Together with the numbers that
// AppendNumbers returns it is all that a step needs besides the state, the
// time, the hits and DeniedHits.
func (l *Limit) Program() Program { return programOf(l.stepper) }

func programOf(s stepper) Program {
	switch s.(type) {
	case *fixedWindow:
		return ProgramFixedWindow
	case *slidingWindow:
		return ProgramSlidingWindow
	case *strictWindow:
		return ProgramStrictWindow
	case *slidingLog:
		return ProgramSlidingLog
	case *bucket:
		return ProgramBucket
	}
	return ProgramHybrid
}

// AppendNumbers appends the parameters of the limit's program to dst: whole
// numbers from 0 to 2^53, which a float64 holds exactly. They are, times in µs:
//
//	fixed_window    limit, window
//	sliding_window  limit, window, bound
//	strict_window   limit, window, bound, parts, part
//	sliding_log     limit, window, slots
//	bucket          hits, period, capacity, most, full and its part, bound and its part
//	hybrid          those of bucket, the window's program, those of the window
func (l *Limit) AppendNumbers(dst []float64) []float64 { return appendNumbers(dst, l.stepper) }

func appendNumbers(dst []float64, s stepper) []float64 {
	switch a := s.(type) {
	case *fixedWindow:
		return append(dst, float64(a.limit), float64(a.window))
	case *slidingWindow:
		return append(dst, float64(a.limit), float64(a.window), float64(a.bound))
	case *strictWindow:
		return append(dst, float64(a.limit), float64(a.window), float64(a.bound), float64(a.parts), float64(a.part))
	case *slidingLog:
		return append(dst, float64(a.limit), float64(a.window), float64(a.slots))
	case *bucket:
		return append(dst, float64(a.hits), float64(a.period), float64(a.capacity), float64(a.most),
			float64(a.full.micros), float64(a.full.part), float64(a.bound.micros), float64(a.bound.part))
	case *hybrid:
		dst = appendNumbers(dst, a.bucket)
		return appendNumbers(append(dst, float64(programOf(a.window))), a.window)
	}
	return dst
}

// AppendState appends to dst the state that next tells, number after number: a
// settled state as a program answers it, in whole numbers below 2^53. They are
// the state's words, but for a bucket: its TAT, the part of that and the most owed
// hits on record; under a limit of 0 also the hits and the period on record.
func (l *Limit) AppendState(dst State, next func() int64) State {
	return appendState(dst, l.stepper, next)
}

func appendState(dst State, s stepper, next func() int64) State {
	switch a := s.(type) {
	case *bucket:
		return a.appendState(dst, next)
	case *hybrid:
		return appendState(a.bucket.appendState(dst, next), a.window, next)
	}
	for range max(0, s.words()) {
		dst = append(dst, uint64(next()))
	}
	return dst
}
