package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// unitNames are the names that rules use, by Unit.
var unitNames = [...]string{UnitUnknown: "unknown", Second: "second", Minute: "minute", Hour: "hour", Day: "day",
	Month: "month", Year: "year", Week: "week"}

var unitLengths = [...]time.Duration{Second: time.Second, Minute: time.Minute, Hour: time.Hour, Day: day,
	Month: 30 * day, Year: 365 * day, Week: 7 * day}

const day = 24 * time.Hour

// longestFirst are the units in the order in which a window is measured in them.
var longestFirst = [...]Unit{Year, Month, Week, Day, Hour, Minute, Second}

const unitList = "second, minute, hour, day, week, month or year"

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

// parseUnit returns UnitUnknown for what is no unit. Case does not matter.
func parseUnit(name string) Unit {
	for _, u := range longestFirst {
		if strings.EqualFold(name, unitNames[u]) {
			return u
		}
	}
	return UnitUnknown
}

// measure returns a window as a whole number of the longest unit that divides
// it; UnitUnknown and 1 when none does.
func measure(window time.Duration) (Unit, uint32) {
	for _, u := range longestFirst {
		if n := window / unitLengths[u]; window%unitLengths[u] == 0 && n <= math.MaxUint32 {
			return u, uint32(n)
		}
	}
	return UnitUnknown, 1
}

// parseWindow reads a duration such as 90s, 1h30m, 250ms, 7d or 2w that
// algo can use as a window.
func parseWindow(text string) (window time.Duration, what, remedy string) {
	remedy = "write a duration with its unit, such as 90s, 1h30m or 7d"
	window, err := parseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Sprintf("%q is not a duration", abridge(text)), remedy
	case window == 0:
		return 0, "a window of zero", remedy
	case window < algo.MinWindow:
		return 0, fmt.Sprintf("a window of %v is too short", window), fmt.Sprintf("write at least %v", algo.MinWindow)
	case window > algo.MaxWindow:
		return 0, fmt.Sprintf("a window of %v is too long", window), fmt.Sprintf("write at most %dd", algo.MaxWindow/day)
	case window%time.Microsecond != 0:
		return 0, fmt.Sprintf("a window of %v is finer than a microsecond", window), "write whole microseconds"
	}
	return window, "", ""
}

// parseDuration is time.ParseDuration with days (d) and weeks (w) of 24 hours a
// day, which stand alone.
func parseDuration(text string) (time.Duration, error) {
	unit := time.Duration(0)
	switch {
	case strings.HasSuffix(text, "d"):
		unit = day
	case strings.HasSuffix(text, "w"):
		unit = 7 * day
	default:
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 63)
	return time.Duration(min(n, 1000)) * unit, err // more is beyond any window
}

// formatDuration is the shortest text that parseDuration reads as d.
func formatDuration(d time.Duration) string {
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

// parseRate reads a rate such as 2/s, 100/minute or 5/90s.
func parseRate(text string) (rate algo.Rate, what, remedy string) {
	remedy = "write hits per time, such as 2/s, 100/minute or 5/90s"
	hits, per, found := strings.Cut(text, "/")
	n, err := strconv.ParseUint(strings.TrimSpace(hits), 10, 32)
	if !found || err != nil {
		return rate, fmt.Sprintf("%q is not a rate", abridge(text)), remedy
	}
	if n == 0 {
		return rate, "a rate of zero never refills", remedy
	}
	per = strings.TrimSpace(per)
	rate = algo.Rate{Hits: uint32(n), Per: parseRateUnit(per)}
	if rate.Per == 0 {
		rate.Per, what, remedy = parseWindow(per)
	}
	return rate, what, remedy
}

// parseRateUnit returns the length of a unit, given by name or first letter
// (min for minute, m too); 0 for anything else.
func parseRateUnit(name string) time.Duration {
	switch name {
	case "s", "sec":
		return time.Second
	case "m", "min":
		return time.Minute
	case "h":
		return time.Hour
	case "d":
		return day
	case "w":
		return 7 * day
	}
	return parseUnit(name).Duration()
}

func formatRate(r algo.Rate) string {
	if unit, n := measure(r.Per); n == 1 && unit != UnitUnknown {
		return fmt.Sprintf("%d/%s", r.Hits, unit)
	}
	return fmt.Sprintf("%d/%s", r.Hits, formatDuration(r.Per))
}
