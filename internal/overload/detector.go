package overload

import "time"

// Detector tells overload from how long work waits. As in CoDel (RFC 8289) it takes
// a wait above the target for overload only when it goes on for a while, for a
// burst, or a pause of the machine, is over before anything could be done about it.
// Overload ends when nothing has had to be refused for a while.
type Detector struct {
	Target time.Duration

	overloaded bool
	above      time.Duration // for how long the wait has been above the target
	calm       time.Duration // for how long nothing was refused
}

const (
	// burst is for how long a wait above the target is no overload.
	burst = 100 * time.Millisecond
	// calm is for how long nothing is refused when overload is over.
	calm = time.Second
)

// Update takes in the wait of the time since the last update, and whether anything
// was refused in that time. It reports whether there is overload.
func (d *Detector) Update(wait time.Duration, refused bool, since time.Duration) bool {
	since = min(since, burst/2) // after a pause nobody knows what was meanwhile
	d.above += since
	if wait <= d.Target {
		d.above = 0
	}
	d.calm += since
	if refused || wait > d.Target {
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
