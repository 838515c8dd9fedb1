package rulefile

import (
	"fmt"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/spell"
)

var calendarKeys = newKeys(false, "calendar", "timezone", "starts")

// rawCalendar is a calendar window as written.
type rawCalendar struct {
	n                     *yaml.Node
	every, zone, startsOn field[string]
}

// window reads a window: a duration, or a calendar.
func (d *decoder) window(raw *rawRate, n *yaml.Node) {
	raw.calendar = nil
	if yamlfile.Resolve(n).Kind != yaml.MappingNode {
		d.text(n, &raw.window)
		return
	}
	raw.window = field[string]{n: n}
	raw.calendar = &rawCalendar{n: n}
	raw.window.bad = !d.mapping(n, calendarKeys, func(key string, value *yaml.Node) {
		switch key {
		case "calendar":
			d.text(value, &raw.calendar.every)
		case "timezone":
			d.text(value, &raw.calendar.zone)
		case "starts":
			d.text(value, &raw.calendar.startsOn)
		}
	})
}

// calendar validates a calendar window.
func (d *decoder) calendar(raw *rawCalendar, l *config.Limit, p *algo.Params) {
	d.push("window")
	defer d.pop()
	if !p.Algorithm.Takes(algo.TakesCalendar) {
		d.problem(raw.n, fmt.Sprintf("windows of a calendar do not belong to %s", p.Algorithm),
			fmt.Sprintf("write algorithm: %s, or a duration such as 30d", algo.AlgorithmsWith(algo.TakesCalendar)))
	}
	var c algo.Calendar
	switch every := raw.every; {
	case every.bad: // reported already
	case !every.present():
		d.problemIn("calendar", raw.n, "the calendar is missing", "write calendar: day, week, month, quarter or year")
	default:
		var err error
		if c.Every, err = algo.ParsePeriod(every.v); err != nil {
			d.problemIn("calendar", every.n, fmt.Sprintf("unknown calendar %q", yamlfile.Abridge(every.v)), spell.Suggest(every.v, algo.Periods()))
		}
	}
	if zone := raw.zone; zone.present() {
		c.Zone = zone.v
		d.problemFrom("timezone", zone.n, algo.CheckZone(zone.v))
	}
	if starts := raw.startsOn; starts.present() && c.Every != algo.NoCalendar {
		var err error
		c.Starts, err = c.Every.ParseStarts(starts.v)
		d.problemFrom("starts", starts.n, err)
	}
	p.Calendar = c
	l.Unit, l.UnitMultiplier = config.MeasureCalendar(c.Every)
}
