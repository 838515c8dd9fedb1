package algo

import (
	"fmt"
	"path"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	_ "time/tzdata" // zones are known on every machine
)

// Calendar says in which windows of the calendar a limit counts. The zero value is
// none: its windows are multiples of a length.
type Calendar struct {
	// Every is how often a window begins, at the first instant of a local day.
	Every Period
	// Zone is the time zone by its name in the IANA database, such as Europe/Berlin.
	// Empty means UTC.
	Zone string
	// Starts is the day that a window begins on: of a month 1 to 28, of a week 1
	// (Monday) to 7 (Sunday). 0 means 1. Other periods have none.
	Starts int
}

// Period is how often a window of a calendar begins.
type Period uint8

// The periods. NoCalendar is the zero value.
const (
	NoCalendar Period = iota
	EveryDay
	EveryWeek
	EveryMonth
	EveryQuarter // from the first of January, April, July and October
	EveryYear    // from the first of January
)

// lastStart is the last day that a month may start on: every month has it.
const lastStart = 28

var periods = [...]struct {
	name    string
	longest int // days
}{NoCalendar: {"none", 0}, EveryDay: {"day", 1}, EveryWeek: {"week", 7}, EveryMonth: {"month", 31}, EveryQuarter: {"quarter", 92}, EveryYear: {"year", 366}}

// String returns the name that rules use, such as "month".
func (p Period) String() string {
	if int(p) < len(periods) {
		return periods[p].name
	}
	return fmt.Sprintf("calendar(%d)", uint8(p))
}

// Periods lists the names that rules may use.
func Periods() (names []string) {
	for _, p := range periods[EveryDay:] {
		names = append(names, p.name)
	}
	return names
}

const (
	periodRemedy = "write day, week, month, quarter or year"
	zoneRemedy   = "write a name of the IANA time zone database, such as Europe/Berlin or UTC"
)

// ParsePeriod returns the period with the given rule name. The error is a *ParamError.
func ParsePeriod(name string) (Period, error) {
	for p := EveryDay; int(p) < len(periods); p++ {
		if periods[p].name == name {
			return p, nil
		}
	}
	return NoCalendar, &ParamError{"calendar", fmt.Sprintf("unknown calendar %q", name), periodRemedy}
}

// ParseStarts returns the Calendar.Starts that rules write as text: a number for a
// month, the name of a day for a week. The error is a *ParamError.
func (p Period) ParseStarts(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if p == EveryWeek {
		n, err = 0, nil
		for day := time.Sunday; day <= time.Saturday; day++ {
			if strings.EqualFold(day.String(), text) {
				n = (int(day)+6)%7 + 1
			}
		}
	}
	if last, remedy := p.lastStart(); err != nil || last > 0 && (n < 1 || n > last) {
		return 0, &ParamError{"starts", fmt.Sprintf("a %s cannot start on %q", p, text), remedy}
	}
	return n, p.checkStarts(n)
}

// lastStart returns the highest Calendar.Starts, 0 if there is none, and what to write.
func (p Period) lastStart() (last int, remedy string) {
	switch p {
	case EveryWeek:
		return 7, "write a day of the week, such as monday"
	case EveryMonth:
		return lastStart, fmt.Sprintf("write a day from 1 to %d, which every month has", lastStart)
	}
	return 0, "remove it: only a week and a month can start on another day"
}

func (p Period) checkStarts(n int) error {
	last, remedy := p.lastStart()
	switch {
	case last == 0 && n != 0:
		return &ParamError{"starts", fmt.Sprintf("a calendar %s has no other start", p), remedy}
	case n < 0 || n > last:
		return &ParamError{"starts", fmt.Sprintf("a %s cannot start on day %d", p, n), remedy}
	}
	return nil
}

// CheckZone says what is wrong with the name of a zone. The error is a *ParamError.
func CheckZone(name string) error {
	_, err := zoneOf(name)
	return err
}

func (c Calendar) check() error {
	if c.Every == NoCalendar || int(c.Every) >= len(periods) {
		return &ParamError{"calendar", fmt.Sprintf("unknown calendar %d", c.Every), periodRemedy}
	}
	if err := c.Every.checkStarts(c.Starts); err != nil {
		return err
	}
	return CheckZone(c.Zone)
}

// withDefaults returns c with what its zero values mean.
func (c Calendar) withDefaults() Calendar {
	if c.Every == NoCalendar {
		return c
	}
	if c.Zone == "" {
		c.Zone = time.UTC.String()
	}
	if last, _ := c.Every.lastStart(); last > 0 && c.Starts == 0 {
		c.Starts = 1
	}
	return c
}

// IsZero reports whether it is no calendar.
func (c Calendar) IsZero() bool { return c == Calendar{} }

// String returns the calendar in words: "calendar month (Europe/Berlin, from the 15th)".
func (c Calendar) String() string {
	if c.IsZero() {
		return "none"
	}
	c = c.withDefaults()
	from := ""
	if c.Starts > 1 {
		from = ", from the " + ordinal(c.Starts)
		if c.Every == EveryWeek {
			from = ", from " + c.Weekday().String()
		}
	}
	return fmt.Sprintf("calendar %s (%s%s)", c.Every, c.Zone, from)
}

// Weekday returns the day that a week starts on.
func (c Calendar) Weekday() time.Weekday { return time.Weekday(c.Starts % 7) }

func ordinal(n int) string {
	suffix := "th"
	if n < 11 || n > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return strconv.Itoa(n) + suffix
}

// zones remembers the zones that have been read, by name: to read one takes longer
// than all else that is done for a limit, and 4 KB. There are some 600. A zone is the
// same for as long as the process lives, whatever happens to its file.
var zones sync.Map

// zoneOf returns the zone of that name. Names that mean something else on each machine
// are refused, and so are those of the copies that count leap seconds.
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

// schedule finds the windows of a calendar. What it finds depends on nothing but the
// calendar, the zone and the time that it is asked for.
//
// A window begins at the first instant at which clocks in the zone show midnight of
// its first day or later: where they are put forward at midnight, the day begins at
// 01:00. So windows adjoin, and every instant is in one, whatever clocks do.
type schedule struct {
	calendar Calendar // with its defaults
	zone     *time.Location
	found    atomic.Pointer[boundaries] // of the window that was asked for last
}

// boundaries are those around a window, in µs since the epoch.
type boundaries struct {
	previous   int64 // where the window before begins
	begin, end int64 // of the window
	next       int64 // where the window after ends
	afterNext  int64 // and the one after that
}

// newSchedule returns the schedule of a calendar that has been checked.
func newSchedule(c Calendar) (*schedule, error) {
	zone, err := zoneOf(c.Zone)
	if err != nil {
		return nil, err
	}
	return &schedule{calendar: c, zone: zone}, nil
}

// around returns the boundaries around now. Nearly all ask for the same.
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
	// Where clocks are put back over midnight, it may be yesterday again.
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

// other returns the nearest boundary before or after one, as step is -1 or 1, looking
// from a day on. Where the date line was moved days are missing, and several windows
// begin at once: those without an instant are none.
func (s *schedule) other(day time.Time, step int, than int64) int64 {
	for {
		day = s.move(day, step)
		if at := s.begins(day); at != than && (at > than) == (step > 0) {
			return at
		}
	}
}

// first returns the first day of the window that the local day of t is in. A day is
// its midnight in UTC.
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

// move returns the first day of a window some windows further.
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
// day or later, in µs since the epoch. They are never a day ahead of UTC or behind it,
// and not changed twice in two days.
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

// longest returns the length of the longest window, but for changes of clocks.
func (c Calendar) longest() time.Duration {
	return time.Duration(periods[c.Every].longest) * 24 * time.Hour
}

// Length returns the length of the limit's windows: of a calendar's, that of the
// longest, but for changes of clocks.
func (p Params) Length() time.Duration {
	if p.Calendar.IsZero() {
		return p.Window
	}
	return p.Calendar.longest()
}

// Scheduled reports that the windows of the limit are found in a calendar. Its program
// needs boundaries beside the numbers of AppendNumbers.
func (l *Limit) Scheduled() bool { return !l.params.Calendar.IsZero() }

// AppendBoundaries appends to dst five boundaries of windows that follow each other:
// now is in the second of these windows, so that a clock may be up to a window
// behind, or as much ahead as is left of this one and the next. Like
// AppendNumbers it appends whole numbers from 0 to 2^53. Of a limit that is not
// Scheduled it appends nothing.
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
