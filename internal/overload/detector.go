package overload

import "time"

// detector infers overload from scheduling latency. As in CoDel (RFC 8289), a wait
// above the target is overload only if it persists, because a burst, or a pause of the
// machine, is over before anything could be done about it. Overload ends when no
// request has been refused for a while.
type detector struct {
	target time.Duration

	overloaded bool
	above      time.Duration // how long the wait has been above the target
	calm       time.Duration // how long no request has been refused
}

const (
	// burst is how long a wait may stay above the target without being overload.
	burst = 100 * time.Millisecond
	// calm is how long no request must be refused for overload to end.
	calm = time.Second
)

// update takes the mean wait since the last update, and whether a request was refused
// in that time. It reports whether there is overload.
func (d *detector) update(wait time.Duration, refused bool, since time.Duration) bool {
	since = min(since, burst/2) // after a pause, the wait during it is not known
	d.above += since
	if wait <= d.target {
		d.above = 0
	}
	d.calm += since
	if refused || wait > d.target {
		d.calm = 0
	}
	switch {
	case d.above >= burst:
		d.overloaded = true
	case d.calm >= calm:
		d.overloaded = false
	}
	return d.overloaded
}
