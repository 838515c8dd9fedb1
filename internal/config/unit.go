package config

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// Unit is a unit of time, numbered as envoy.service.ratelimit.v3.RateLimitResponse.RateLimit.Unit.
type Unit int32

// The units.
const (
	UnitUnknown Unit = iota
	Second
	Minute
	Hour
	Day
	Month // 30 days; in current_limit also a calendar month
	Year  // 365 days; in current_limit also a calendar year
	Week
)

// unitNames are the names that rules use, by Unit.
var unitNames = [...]string{UnitUnknown: "unknown", Second: "second", Minute: "minute", Hour: "hour", Day: "day",
	Month: "month", Year: "year", Week: "week"}

var unitLengths = [...]time.Duration{Second: time.Second, Minute: time.Minute, Hour: time.Hour, Day: day,
	Month: 30 * day, Year: 365 * day, Week: 7 * day}

const day = 24 * time.Hour

// longestFirst are the units in the order in which Measure tries them.
var longestFirst = [...]Unit{Year, Month, Week, Day, Hour, Minute, Second}

// String returns the name that rules use, such as "minute".
func (u Unit) String() string {
	if u >= 0 && int(u) < len(unitNames) {
		return unitNames[u]
	}
	return fmt.Sprintf("unit(%d)", int32(u))
}

// Duration returns the length of the unit; 0 for UnitUnknown.
func (u Unit) Duration() time.Duration {
	if u > UnitUnknown && int(u) < len(unitLengths) {
		return unitLengths[u]
	}
	return 0
}

// ParseUnit returns the unit of a name, in any case; UnitUnknown if there is none.
func ParseUnit(name string) Unit {
	for _, u := range longestFirst {
		if strings.EqualFold(name, unitNames[u]) {
			return u
		}
	}
	return UnitUnknown
}

// Measure returns a window as a whole number of the longest unit that divides
// it; UnitUnknown and 1 when none does.
func Measure(window time.Duration) (Unit, uint32) {
	for _, u := range longestFirst {
		if n := window / unitLengths[u]; window%unitLengths[u] == 0 && n <= math.MaxUint32 {
			return u, uint32(n)
		}
	}
	return UnitUnknown, 1
}

// MeasureCalendar returns the length of a calendar's windows as current_limit reports it:
// a quarter is three months.
func MeasureCalendar(every algo.Period) (Unit, uint32) {
	switch every {
	case algo.EveryDay:
		return Day, 1
	case algo.EveryWeek:
		return Week, 1
	case algo.EveryMonth:
		return Month, 1
	case algo.EveryQuarter:
		return Month, 3
	case algo.EveryYear:
		return Year, 1
	}
	return UnitUnknown, 1
}

// FormatDuration returns the shortest text of d that rules accept as a window.
func FormatDuration(d time.Duration) string {
	if d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// FormatRate returns the shortest text of r that rules accept as a refill_rate.
func FormatRate(r algo.Rate) string {
	if unit, n := Measure(r.Per); n == 1 && unit != UnitUnknown {
		return fmt.Sprintf("%d/%s", r.Hits, unit)
	}
	return fmt.Sprintf("%d/%s", r.Hits, FormatDuration(r.Per))
}
