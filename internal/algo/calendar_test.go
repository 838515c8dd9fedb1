package algo_test

import (
	"fmt"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// zones are some with clock changes that are hard to get right.
var zones = []string{
	"UTC", "Europe/Berlin", "America/New_York",
	"Australia/Lord_Howe",  // half an hour of daylight saving, in the south
	"Asia/Kathmandu",       // 5:45
	"America/Santiago",     // put forward at midnight: a day begins at 01:00
	"Asia/Beirut",          // the same
	"America/Havana",       // put back at 01:00: midnight comes twice
	"Africa/Casablanca",    // changes with the moon
	"Pacific/Kiritimati",   // 14 hours ahead
	"Pacific/Pago_Pago",    // 11 hours behind
	"Antarctica/Troll",     // two hours of daylight saving
	"Atlantic/Azores",      // put back at 01:00
	"America/Scoresbysund", // put forward just before midnight
	"Pacific/Chatham",      // 12:45 and daylight saving
	"Asia/Gaza", "Asia/Tehran", "Africa/Cairo", "America/Asuncion", "Europe/Dublin",
}

func drawCalendar(t *rapid.T) algo.Calendar {
	c := algo.Calendar{
		Every: rapid.SampledFrom([]algo.Period{algo.EveryDay, algo.EveryWeek, algo.EveryMonth, algo.EveryQuarter, algo.EveryYear}).Draw(t, "calendar"),
		Zone:  rapid.SampledFrom(zones).Draw(t, "zone"),
	}
	switch c.Every {
	case algo.EveryWeek:
		c.Starts = rapid.IntRange(1, 7).Draw(t, "starts")
	case algo.EveryMonth:
		c.Starts = rapid.IntRange(1, 28).Draw(t, "starts")
	}
	return c
}

// calendarModel is the count of the calendar's window that was in force when it began.
type calendarModel struct {
	calendar   algo.Calendar
	limit      int64
	now, end   int64
	ends, next int64 // the window of now and the one after end there
	count      int64
}

func (m *calendarModel) retuned(p algo.Params) model {
	m.limit = int64(p.Limit)
	return m
}

func (m *calendarModel) settle(now int64) {
	m.now = now
	if now >= m.ends || m.ends == 0 || now < m.end {
		m.ends, m.next = slowly(m.calendar, now)
	}
	if m.end > m.next {
		m.end = m.ends
	}
	if now >= m.end {
		m.count = 0
	}
	m.restart()
}

func (m *calendarModel) restart() {
	if m.count == 0 {
		m.end = m.ends
	}
}

func (m *calendarModel) room() *big.Rat { return rat(m.limit - m.count) }
func (m *calendarModel) charge(n int64) { m.count = saturate(rat(m.count), n, rat(maxCount)) }
func (m *calendarModel) refund(n int64) { m.count -= min(m.count, n); m.restart() }
func (m *calendarModel) fresh() bool    { return m.count == 0 }
func (m *calendarModel) clone() model   { c := *m; return &c }

// slowly returns when the window of now ends and when the next one ends. It reads the
// zone's clock every quarter of an hour, because clocks of our time change only at
// such times.
func slowly(c algo.Calendar, now int64) (ends, next int64) {
	zone := mustZone(c.Zone)
	day := time.UnixMicro(now).In(zone)
	day = time.Date(day.Year(), day.Month(), day.Day()-2, 0, 0, 0, 0, time.UTC)
	for {
		if startsWindow(c, day) {
			switch at := midnight(zone, day); {
			case at <= now:
			case ends == 0:
				ends = at
			case at > ends:
				return ends, at
			}
		}
		day = day.AddDate(0, 0, 1)
	}
}

func startsWindow(c algo.Calendar, day time.Time) bool {
	switch c.Every {
	case algo.EveryWeek:
		return int(day.Weekday()+6)%7+1 == max(c.Starts, 1)
	case algo.EveryMonth:
		return day.Day() == max(c.Starts, 1)
	case algo.EveryQuarter:
		return day.Day() == 1 && slices.Contains([]time.Month{1, 4, 7, 10}, day.Month())
	case algo.EveryYear:
		return day.YearDay() == 1
	}
	return true
}

var midnights sync.Map // a cache, by day and zone

func midnight(zone *time.Location, day time.Time) int64 {
	key := fmt.Sprint(zone, day)
	if at, known := midnights.Load(key); known {
		return at.(int64)
	}
	at := day.Add(-24 * time.Hour)
	for {
		y, m, d := at.In(zone).Date()
		if !time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Before(day) {
			midnights.Store(key, at.UnixMicro())
			return at.UnixMicro()
		}
		at = at.Add(15 * time.Minute)
	}
}

func mustZone(name string) *time.Location {
	zone, err := time.LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return zone
}

// windowOf returns the boundaries around now that programs get.
func windowOf(t tester, c algo.Calendar, now int64) (b [5]int64) {
	t.Helper()
	l := mustLimit(t, algo.Params{Limit: 1, Calendar: c})
	for i, n := range l.AppendBoundaries(nil, now) {
		b[i] = int64(n)
	}
	return b
}

func at(t tester, text string) int64 {
	t.Helper()
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return when.UnixMicro()
}

// The year's boundaries, from tables of the zones. The hours between them follow the
// local calendar: 23 and 25 on the days on which clocks change.
func TestYearsBoundariesInThreeZones(t *testing.T) {
	for _, c := range []struct {
		calendar algo.Calendar
		from     string
		want     []string
	}{
		{algo.Calendar{Every: algo.EveryMonth, Zone: "Europe/Berlin"}, "2026-01-01T12:00:00+01:00", []string{
			"2026-01-01T00:00:00+01:00", "2026-02-01T00:00:00+01:00", "2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00",
			"2026-05-01T00:00:00+02:00", "2026-06-01T00:00:00+02:00", "2026-07-01T00:00:00+02:00", "2026-08-01T00:00:00+02:00",
			"2026-09-01T00:00:00+02:00", "2026-10-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00", "2027-01-01T00:00:00+01:00",
		}},
		{algo.Calendar{Every: algo.EveryMonth, Zone: "Europe/Berlin", Starts: 15}, "2026-03-14T23:59:59+01:00", []string{
			"2026-02-15T00:00:00+01:00", "2026-03-15T00:00:00+01:00", "2026-04-15T00:00:00+02:00",
		}},
		{algo.Calendar{Every: algo.EveryMonth, Zone: "Australia/Lord_Howe"}, "2026-01-31T23:59:59+11:00", []string{
			"2026-01-01T00:00:00+11:00", "2026-02-01T00:00:00+11:00", "2026-03-01T00:00:00+11:00", "2026-04-01T00:00:00+11:00",
			"2026-05-01T00:00:00+10:30", "2026-06-01T00:00:00+10:30", "2026-07-01T00:00:00+10:30", "2026-08-01T00:00:00+10:30",
			"2026-09-01T00:00:00+10:30", "2026-10-01T00:00:00+10:30", "2026-11-01T00:00:00+11:00", "2026-12-01T00:00:00+11:00", "2027-01-01T00:00:00+11:00",
		}},
		{algo.Calendar{Every: algo.EveryDay, Zone: "Australia/Lord_Howe"}, "2026-04-05T00:00:00+11:00", []string{ // a day of 24½ hours
			"2026-04-05T00:00:00+11:00", "2026-04-06T00:00:00+10:30", "2026-04-07T00:00:00+10:30",
		}},
		{algo.Calendar{Every: algo.EveryMonth, Zone: "Asia/Kathmandu"}, "2026-01-01T00:00:00+05:45", []string{
			"2026-01-01T00:00:00+05:45", "2026-02-01T00:00:00+05:45", "2026-03-01T00:00:00+05:45", "2026-04-01T00:00:00+05:45",
			"2026-05-01T00:00:00+05:45", "2026-06-01T00:00:00+05:45", "2026-07-01T00:00:00+05:45", "2026-08-01T00:00:00+05:45",
			"2026-09-01T00:00:00+05:45", "2026-10-01T00:00:00+05:45", "2026-11-01T00:00:00+05:45", "2026-12-01T00:00:00+05:45", "2027-01-01T00:00:00+05:45",
		}},
		{algo.Calendar{Every: algo.EveryDay, Zone: "Europe/Berlin"}, "2026-03-29T01:59:59+01:00", []string{ // 23 hours
			"2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", "2026-03-31T00:00:00+02:00",
		}},
		{algo.Calendar{Every: algo.EveryDay, Zone: "Europe/Berlin"}, "2026-10-25T02:30:00+01:00", []string{ // 25 hours
			"2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00", "2026-10-27T00:00:00+01:00",
		}},
		{algo.Calendar{Every: algo.EveryWeek, Zone: "Europe/Berlin"}, "2026-03-29T23:00:00+02:00", []string{
			"2026-03-23T00:00:00+01:00", "2026-03-30T00:00:00+02:00", "2026-04-06T00:00:00+02:00",
		}},
		{algo.Calendar{Every: algo.EveryWeek, Zone: "America/New_York", Starts: 7}, "2026-11-07T12:00:00-05:00", []string{
			"2026-11-01T00:00:00-04:00", "2026-11-08T00:00:00-05:00", "2026-11-15T00:00:00-05:00",
		}},
		{algo.Calendar{Every: algo.EveryQuarter, Zone: "America/New_York"}, "2026-12-31T23:59:59-05:00", []string{
			"2026-10-01T00:00:00-04:00", "2027-01-01T00:00:00-05:00", "2027-04-01T00:00:00-04:00", "2027-07-01T00:00:00-04:00",
		}},
		{algo.Calendar{Every: algo.EveryYear}, "2028-02-29T00:00:00Z", []string{
			"2028-01-01T00:00:00Z", "2029-01-01T00:00:00Z", "2030-01-01T00:00:00Z",
		}},
		// Days without a midnight.
		{algo.Calendar{Every: algo.EveryDay, Zone: "America/Santiago"}, "2026-09-05T23:59:59-04:00", []string{
			"2026-09-05T00:00:00-04:00", "2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00",
		}},
		{algo.Calendar{Every: algo.EveryDay, Zone: "Asia/Beirut"}, "2026-03-28T12:00:00+02:00", []string{
			"2026-03-28T00:00:00+02:00", "2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00",
		}},
		// Midnight comes twice, and the second is no boundary.
		{algo.Calendar{Every: algo.EveryDay, Zone: "America/Havana"}, "2026-11-01T00:30:00-05:00", []string{
			"2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00",
		}},
		// A minute after midnight it was yesterday again.
		{algo.Calendar{Every: algo.EveryDay, Zone: "America/St_Johns"}, "2010-11-06T23:30:00-03:30", []string{
			"2010-11-07T00:00:00-02:30", "2010-11-08T00:00:00-03:30",
		}},
		// The date line was moved: there was no 30 December.
		{algo.Calendar{Every: algo.EveryDay, Zone: "Pacific/Apia"}, "2011-12-29T23:59:59-10:00", []string{
			"2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00",
		}},
	} {
		now := at(t, c.from)
		for i, want := range c.want {
			b := windowOf(t, c.calendar, now)
			if b[1] != at(t, want) {
				t.Errorf("%s: window %d begins at %s, want %s", c.calendar, i, time.UnixMicro(b[1]).In(mustZone(windowZone(c.calendar))).Format(time.RFC3339), want)
			}
			now = b[2]
		}
	}
}

func windowZone(c algo.Calendar) string {
	if c.Zone == "" {
		return "UTC"
	}
	return c.Zone
}

// Every instant is in one window, and windows adjoin without a gap.
func FuzzSchedule(f *testing.F) {
	for i := range zones {
		f.Add(uint8(i), uint8(i), uint8(i), int64(1_800_000_000+i*7_654_321))
	}
	f.Add(uint8(0), uint8(1), uint8(2), int64(0))
	f.Fuzz(func(t *testing.T, zone, every, starts uint8, seconds int64) {
		c := algo.Calendar{Every: algo.EveryDay + algo.Period(every%5), Zone: zones[int(zone)%len(zones)]}
		switch c.Every {
		case algo.EveryWeek:
			c.Starts = 1 + int(starts)%7
		case algo.EveryMonth:
			c.Starts = 1 + int(starts)%28
		}
		now := (seconds&(1<<32-1))*1e6 + seconds&0xfffff // until 2106
		b := windowOf(t, c, now)
		if now < b[1] || now >= b[2] || b[0] > b[1] || b[2] >= b[3] || b[3] >= b[4] {
			t.Fatalf("%s: the boundaries around %d are %v", c, now, b)
		}
		if b[1] == 0 { // it began before the epoch
			return
		}
		for i, before := range []int64{b[1] - 1, b[2] - 1, b[3] - 1} {
			if got := windowOf(t, c, before); got[1] != b[i] && b[i] != 0 || got[2] != b[i+1] {
				t.Fatalf("%s: %d is in the window from %d to %d, want %d to %d", c, before, got[1], got[2], b[i], b[i+1])
			}
		}
		if got := windowOf(t, c, b[2]); got[1] != b[2] || got[2] != b[3] || got[3] != b[4] {
			t.Fatalf("%s: after %v come %v", c, b, got)
		}
		local := time.UnixMicro(b[1]).In(mustZone(c.Zone))
		before := time.UnixMicro(b[1] - 1).In(local.Location())
		if local.Day() == before.Day() || local.Sub(before).Hours() > 1 {
			t.Fatalf("%s: a window begins at %v, within a day", c, local)
		}
	})
}

// A zone has one name, and is the same on every machine.
func TestZonesOfNoMachineAreRefused(t *testing.T) {
	for _, name := range []string{"Local", "local", "localtime", "posixrules", "posix/Europe/Berlin", "right/Europe/Berlin",
		"../zoneinfo/Europe/Berlin", "Europe//Berlin", "./UTC", "", "Europe", "UTC+2", "CEST", "Europe/Berlin\x00", "tzdata.zi"} {
		if err := algo.CheckZone(name); err == nil {
			t.Errorf("%q is taken for a zone", name)
		}
	}
	for _, name := range append([]string{"Etc/GMT-3", "CET", "EST5EDT"}, zones...) {
		if err := algo.CheckZone(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestCalendarsSayWhatTheyAre(t *testing.T) {
	for want, c := range map[string]algo.Calendar{
		"none":                                         {},
		"calendar day (UTC)":                           {Every: algo.EveryDay},
		"calendar week (Asia/Kathmandu)":               {Every: algo.EveryWeek, Zone: "Asia/Kathmandu", Starts: 1},
		"calendar week (UTC, from Sunday)":             {Every: algo.EveryWeek, Starts: 7},
		"calendar month (Europe/Berlin, from the 2nd)": {Every: algo.EveryMonth, Zone: "Europe/Berlin", Starts: 2},
		"calendar month (UTC, from the 11th)":          {Every: algo.EveryMonth, Starts: 11},
		"calendar month (UTC, from the 23rd)":          {Every: algo.EveryMonth, Starts: 23},
		"calendar quarter (UTC)":                       {Every: algo.EveryQuarter},
		"calendar year (UTC)":                          {Every: algo.EveryYear},
	} {
		if got := c.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	same := mustLimit(t, algo.Params{Limit: 1, Calendar: monthly}).Params() ==
		mustLimit(t, algo.Params{Limit: 1, Calendar: algo.Calendar{Every: algo.EveryMonth, Zone: "UTC", Starts: 1}}).Params()
	if !same {
		t.Error("defaults that are written out make another limit")
	}
}

func TestParseStarts(t *testing.T) {
	for _, c := range []struct {
		every algo.Period
		text  string
		want  int
		err   string
	}{
		{algo.EveryMonth, "28", 28, ""},
		{algo.EveryMonth, "29", 0, `a month cannot start on "29": write a day from 1 to 28, which every month has`},
		{algo.EveryMonth, "0", 0, `a month cannot start on "0": write a day from 1 to 28, which every month has`},
		{algo.EveryMonth, "monday", 0, `a month cannot start on "monday": write a day from 1 to 28, which every month has`},
		{algo.EveryWeek, "monday", 1, ""},
		{algo.EveryWeek, "Sunday", 7, ""},
		{algo.EveryWeek, "1", 0, `a week cannot start on "1": write a day of the week, such as monday`},
		{algo.EveryDay, "1", 0, `a calendar day has no other start: remove it: only a week and a month can start on another day`},
		{algo.EveryYear, "april", 0, `a year cannot start on "april": remove it: only a week and a month can start on another day`},
	} {
		got, err := c.every.ParseStarts(c.text)
		if text := fmt.Sprint(err); got != c.want && c.err == "" || c.err != "" && text != c.err || c.err == "" && err != nil {
			t.Errorf("%s %q: got %d, %v, want %d, %s", c.every, c.text, got, err, c.want, c.err)
		}
	}
}

// A counter of a calendar costs no allocation, wherever the clock is in the window.
func TestCalendarAllocatesNothing(t *testing.T) {
	l := mustLimit(t, algo.Params{Limit: 1000, Calendar: algo.Calendar{Every: algo.EveryMonth, Zone: "Europe/Berlin"}})
	now := at(t, "2026-03-15T12:00:00Z")
	state := l.Settle(nil, now, nil)
	if n := testing.AllocsPerRun(1000, func() {
		now++
		state, _ = l.Decide(l.Settle(state, now, nil), now, 1)
	}); n != 0 {
		t.Errorf("%v allocations for a decision", n)
	}
}
