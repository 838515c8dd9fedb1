package algo

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Calendar selects the windows of a time zone's calendar in which a limit counts. The
// zero value means no calendar: the limit's windows are multiples of a fixed length.
type Calendar struct {
	// Every is how often a window begins. It begins at the first instant of a local day.
	Every Period
	// Zone is the name of the time zone in the IANA database, such as Europe/Berlin.
	// Empty means UTC.
	Zone string
	// Starts is the day on which a window begins: 1 to 28 of a month, or 1 (Monday)
	// to 7 (Sunday) of a week. 0 means 1. Other periods have no start.
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

// lastStart returns the highest Calendar.Starts of the period, or 0 if it has none, and
// the remedy for a wrong start.
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

// CheckZone returns an error if the name is not that of a time zone. The error is a
// *ParamError.
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

// withDefaults returns c with the defaults in place of its zero values.
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

// Weekday returns the day on which a week starts.
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

// longest returns the length of the longest window, changes of clocks left aside.
func (c Calendar) longest() time.Duration {
	return time.Duration(periods[c.Every].longest) * 24 * time.Hour
}

// Length returns the length of the limit's windows. For a calendar it is the length of
// the longest window, changes of clocks left aside.
func (p Params) Length() time.Duration {
	if p.Calendar.IsZero() {
		return p.Window
	}
	return p.Calendar.longest()
}
