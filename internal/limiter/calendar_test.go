package limiter_test

import (
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// setClock sets the fixture's clock.
func (f *fixture) setClock(text string) {
	f.t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		f.t.Fatal(err)
	}
	f.now.Store(at.UnixMicro())
}

// TestCurrentLimitOfACalendar: it has the unit of its windows, a quarter in months.
func TestCurrentLimitOfACalendar(t *testing.T) {
	for every, want := range map[string]struct {
		unit  config.Unit
		times uint32
	}{
		"day": {config.Day, 1}, "week": {config.Week, 1}, "month": {config.Month, 1}, "quarter": {config.Month, 3}, "year": {config.Year, 1},
	} {
		f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {window: {calendar: `+every+`}, requests_per_unit: 2}}
`)
		l := f.ask(desc("user=a")).Statuses[0].CurrentLimit
		if l.Unit != want.unit || l.UnitMultiplier != want.times || l.RequestsPerUnit != 2 {
			t.Errorf("%s: reported are %d per %d × %s", every, l.RequestsPerUnit, l.UnitMultiplier, l.Unit)
		}
	}
}

// TestMonthlyBudget checks the remaining hits and the reset over a change of clocks,
// beside a limit per second and one on a set of entries.
func TestMonthlyBudget(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limits:
      - {unit: second, requests_per_unit: 2}
      - {name: budget, window: {calendar: month, timezone: Europe/Berlin, starts: 15}, requests_per_unit: 3}
limits:
  - {name: all, match: {user: {}}, rate_limit: {window: {calendar: year, timezone: Asia/Kathmandu}, requests_per_unit: 1000}}
`)
	f.setClock("2026-03-28T12:00:00+01:00")
	if got := f.admitted(9, desc("user=a")); got != 2 {
		t.Errorf("%d pass in the first second, want 2", got)
	}
	f.advance(time.Second)
	if got := f.admitted(9, desc("user=a")); got != 1 {
		t.Errorf("%d pass in the next, want what is left of the budget: 1", got)
	}
	f.setClock("2026-04-14T23:00:00+02:00") // of a window of 31 days less an hour
	st := f.ask(desc("user=a")).Statuses[0]
	want(t, st.Code, over)
	want(t, st.CurrentLimit.Name, "budget")
	want(t, st.DurationUntilReset, time.Hour)
	f.advance(time.Hour)
	if got := f.admitted(1, desc("user=a")); got != 1 {
		t.Error("the budget does not begin anew on the 15th")
	}
}

// TestOverrideOfACalendarHasPlainWindows, of a counter of its own.
func TestOverrideOfACalendarHasPlainWindows(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {window: {calendar: month, timezone: Europe/Berlin}, requests_per_unit: 5}}
`)
	f.setClock("2026-03-28T12:00:00Z")
	st := f.ask(override(desc("user=a"), 2, config.Hour)).Statuses[0]
	want(t, st.CurrentLimit.Unit, config.Hour)
	want(t, st.LimitRemaining, uint32(1))
	want(t, st.DurationUntilReset, time.Hour)
	if left := f.ask(desc("user=a")).Statuses[0].LimitRemaining; left != 4 {
		t.Errorf("%d left of the rule's own, want 4", left)
	}
}

// TestCalendarInTheModes tests, at a boundary, shadow mode, quotas, hits that are given
// back, and requests that are all or nothing.
func TestCalendarInTheModes(t *testing.T) {
	f := serve(t, `
domain: edge
consume: all_or_nothing
descriptors:
  - {key: shadow, shadow_mode: true, rate_limit: {window: {calendar: day, timezone: America/Santiago}, requests_per_unit: 1}}
  - {key: quota, quota_mode: true, rate_limit: {window: {calendar: day, timezone: America/Santiago}, requests_per_unit: 1}}
  - {key: user, rate_limit: {window: {calendar: day, timezone: America/Santiago}, requests_per_unit: 2}}
  - {key: full, rate_limit: {window: {calendar: day, timezone: America/Santiago}, requests_per_unit: 0}}
`)
	f.setClock("2026-09-05T23:59:59.999999-04:00")
	if got := f.admitted(3, desc("shadow=a")); got != 3 {
		t.Errorf("shadow mode admits %d of 3", got)
	}
	if got := f.admitted(3, desc("quota=a")); got != 1 {
		t.Errorf("a quota of 1 admits %d", got)
	}
	want(t, f.ask(desc("user=a"), desc("full=a")).OverallCode, over)
	if got := f.admitted(3, desc("user=a")); got != 2 {
		t.Errorf("%d pass, want 2: the refused request charged nothing", got)
	}
	f.ask(negative(withHits(desc("user=a"), 1)))
	if got := f.admitted(3, desc("user=a")); got != 1 {
		t.Errorf("%d pass after one was given back, want 1", got)
	}
	f.advance(time.Microsecond) // the day begins at 01:00
	st := f.ask(desc("user=a")).Statuses[0]
	want(t, st.LimitRemaining, uint32(1))
	want(t, st.DurationUntilReset, 23*time.Hour)
}

// TestLocalShareOfACalendar: replicas that share no store keep to its limit together.
// If the limit is less than a hit for each, each has a hit in a longer window instead.
func TestLocalShareOfACalendar(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: ten, rate_limit: {window: {calendar: month}, requests_per_unit: 10, on_backend_error: local}}
  - {key: two, rate_limit: {window: {calendar: month}, requests_per_unit: 2, on_backend_error: local}}
`, func(o *limiter.Options) {
		o.Local, o.Backend, o.Replicas = o.Backend, broken{}, 4
	})
	f.setClock("2026-03-31T23:00:00Z")
	if got := f.admitted(5, desc("ten=a")); got != 2 {
		t.Errorf("%d pass on one of 4 replicas, want 2 of 10", got)
	}
	if got := f.admitted(5, desc("two=a")); got != 1 {
		t.Errorf("%d pass on one of 4 replicas, want 1 for a while", got)
	}
	f.advance(time.Hour)
	if got := f.admitted(5, desc("ten=a")); got != 2 {
		t.Errorf("%d pass in the next month, want 2", got)
	}
	if got := f.admitted(5, desc("two=a")); got != 0 {
		t.Errorf("%d pass in the next month, want none: 2 of 4 replicas must stay below it", got)
	}
}
