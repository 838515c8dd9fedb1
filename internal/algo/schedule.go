package algo

import (
	"fmt"
	"path"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	_ "time/tzdata" // zones are known on every machine
)

// zones caches the zones that have been read, by name. Reading one takes 4 KB, and
// longer than all other work for a limit. There are some 600 zones. A zone stays the
// same while the process lives, whatever happens to its file.
var zones sync.Map

// zoneOf returns the zone of that name. It refuses names that mean something else on
// each machine, and names of the copies that count leap seconds.
func zoneOf(name string) (*time.Location, error) {
	if zone, known := zones.Load(name); known {
		return zone.(*time.Location), nil
	}
	switch {
	case strings.EqualFold(name, "local"), name == "localtime", name == "posixrules":
		return nil, &ParamError{"timezone", fmt.Sprintf("the time zone %q is another one on each machine", name), zoneRemedy}
	case strings.HasPrefix(name, "posix/"), strings.HasPrefix(name, "right/"), path.Clean(name) != name:
		return nil, &ParamError{"timezone", fmt.Sprintf("unknown time zone %q", name), zoneRemedy}
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, &ParamError{"timezone", fmt.Sprintf("unknown time zone %q", name), zoneRemedy}
	}
	zones.Store(name, zone)
	return zone, nil
}

// schedule finds the windows of a calendar. The result depends only on the calendar,
// the zone and the time in question.
//
// A window begins at the first instant at which clocks in the zone show midnight of
// its first day or later. Where clocks go forward at midnight, the day begins at 01:00.
// So windows adjoin, and every instant is in exactly one, whatever clocks do.
type schedule struct {
	calendar Calendar // with its defaults
	zone     *time.Location
	found    atomic.Pointer[boundaries] // the result of the last search
}

// boundaries are the boundaries around a window, in µs since the epoch.
type boundaries struct {
	previous   int64 // where the window before begins
	begin, end int64 // of the window
	next       int64 // where the window after ends
	afterNext  int64 // where the window after that ends
}

// newSchedule returns the schedule of a calendar that has been checked.
func newSchedule(c Calendar) (*schedule, error) {
	zone, err := zoneOf(c.Zone)
	if err != nil {
		return nil, err
	}
	return &schedule{calendar: c, zone: zone}, nil
}

// around returns the boundaries around now. Nearly all calls ask for the same window.
func (s *schedule) around(now int64) *boundaries {
	if b := s.found.Load(); b != nil && b.begin <= now && now < b.end {
		return b
	}
	b := s.find(now)
	s.found.Store(b)
	return b
}

func (s *schedule) find(now int64) *boundaries {
	day := s.first(time.UnixMicro(now).In(s.zone))
	// Where clocks go back over midnight, it may be yesterday again.
	for s.begins(s.move(day, 1)) <= now {
		day = s.move(day, 1)
	}
	b := &boundaries{begin: s.begins(day)}
	b.previous = s.other(day, -1, b.begin)
	b.end = s.other(day, 1, b.begin)
	b.next = s.other(day, 1, b.end)
	b.afterNext = s.other(day, 1, b.next)
	return b
}

// other returns the nearest boundary before (step -1) or after (step 1) the boundary
// than, searching from day. Where the date line was moved, days are missing and several
// windows begin at once; windows of no length are skipped.
func (s *schedule) other(day time.Time, step int, than int64) int64 {
	for {
		day = s.move(day, step)
		if at := s.begins(day); at != than && (at > than) == (step > 0) {
			return at
		}
	}
}

// first returns the first day of the window that contains the local day of t. A day is
// represented by its midnight in UTC.
func (s *schedule) first(t time.Time) time.Time {
	year, month, day := t.Date()
	switch s.calendar.Every {
	case EveryWeek:
		day -= (int(t.Weekday()-s.calendar.Weekday()) + 7) % 7
	case EveryMonth:
		if day < s.calendar.Starts {
			month--
		}
		day = s.calendar.Starts
	case EveryQuarter:
		month, day = month-(month-1)%3, 1
	case EveryYear:
		month, day = time.January, 1
	}
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// move returns the first day of the window that many windows further on.
func (s *schedule) move(day time.Time, windows int) time.Time {
	switch s.calendar.Every {
	case EveryWeek:
		return day.AddDate(0, 0, 7*windows)
	case EveryMonth:
		return day.AddDate(0, windows, 0)
	case EveryQuarter:
		return day.AddDate(0, 3*windows, 0)
	case EveryYear:
		return day.AddDate(windows, 0, 0)
	}
	return day.AddDate(0, 0, windows)
}

// begins returns the first instant at which clocks in the zone show midnight of the
// day or later, in µs since the epoch. It relies on two facts: clocks are never a day
// or more ahead of UTC or behind it, and never change twice in two days.
func (s *schedule) begins(day time.Time) int64 {
	midnight := day.Unix()
	from, to := midnight-daySeconds, midnight+daySeconds
	before, after := s.offset(from), s.offset(to)
	shows := midnight - before
	if before != after {
		changed := from + int64(sort.Search(int(to-from), func(n int) bool { return s.offset(from+int64(n)) == after }))
		if shows >= changed {
			shows = max(changed, midnight-after)
		}
	}
	return shows * int64(time.Second/time.Microsecond)
}

const daySeconds = 24 * 60 * 60

// offset returns how far clocks in the zone are ahead of UTC at a time, both in seconds.
func (s *schedule) offset(at int64) int64 {
	_, offset := time.Unix(at, 0).In(s.zone).Zone()
	return int64(offset)
}

// HasCalendar reports whether the windows of the limit are those of a calendar. Its
// program then needs boundaries beside the numbers of AppendNumbers.
func (l *Limit) HasCalendar() bool { return !l.params.Calendar.IsZero() }

// AppendBoundaries appends to dst the five boundaries of four adjoining windows, of
// which now is in the second. So the clock of a store may be up to a window behind, or
// ahead by the rest of this window and the whole next one. Like AppendNumbers it
// appends whole numbers from 0 to 2^53. For a limit without a calendar it appends
// nothing.
func (l *Limit) AppendBoundaries(dst []float64, now int64) []float64 {
	c, ok := l.stepper.(*calendarWindow)
	if !ok {
		return dst
	}
	b := c.schedule.around(min(max(now, 0), 1<<52))
	for _, at := range [...]int64{b.previous, b.begin, b.end, b.next, b.afterNext} {
		dst = append(dst, float64(max(at, 0)))
	}
	return dst
}
