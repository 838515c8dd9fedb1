package rulefile

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
)

// parseWindow reads a duration such as 90s, 1h30m, 250ms, 7d or 2w that
// algo can use as a window.
func parseWindow(text string) (window time.Duration, what, remedy string) {
	remedy = "write a duration with its unit, such as 90s, 1h30m or 7d"
	window, err := parseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Sprintf("%q is not a duration", yamlfile.Abridge(text)), remedy
	case window == 0:
		return 0, "a window of zero", remedy
	case window < algo.MinWindow:
		return 0, fmt.Sprintf("a window of %v is too short", window), fmt.Sprintf("write at least %v", algo.MinWindow)
	case window > algo.MaxWindow:
		return 0, fmt.Sprintf("a window of %v is too long", window), fmt.Sprintf("write at most %dd", algo.MaxWindow/config.Day.Duration())
	case window%time.Microsecond != 0:
		return 0, fmt.Sprintf("a window of %v is finer than a microsecond", window), "write whole microseconds"
	}
	return window, "", ""
}

// parseDuration is time.ParseDuration with days (d), of 24 hours, and weeks (w). These
// stand alone.
func parseDuration(text string) (time.Duration, error) {
	unit := time.Duration(0)
	switch {
	case strings.HasSuffix(text, "d"):
		unit = config.Day.Duration()
	case strings.HasSuffix(text, "w"):
		unit = config.Week.Duration()
	default:
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 63)
	return time.Duration(min(n, 1000)) * unit, err // more is beyond any window
}

// parseRate reads a rate such as 2/s, 100/minute or 5/90s.
func parseRate(text string) (rate algo.Rate, what, remedy string) {
	remedy = "write hits per time, such as 2/s, 100/minute or 5/90s"
	hits, per, found := strings.Cut(text, "/")
	n, err := strconv.ParseUint(strings.TrimSpace(hits), 10, 32)
	if !found || err != nil {
		return rate, fmt.Sprintf("%q is not a rate", yamlfile.Abridge(text)), remedy
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

// parseRateUnit returns the length of a unit, given by name or first letter, or by min for
// minute; 0 for anything else.
func parseRateUnit(name string) time.Duration {
	switch name {
	case "s", "sec":
		return time.Second
	case "m", "min":
		return time.Minute
	case "h":
		return time.Hour
	case "d":
		return config.Day.Duration()
	case "w":
		return config.Week.Duration()
	}
	return config.ParseUnit(name).Duration()
}

const unitList = "second, minute, hour, day, week, month or year"
