package backendtest

import (
	"context"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// testCalendar goes through a year's windows in three zones: one with daylight saving,
// one in the south with half an hour of it, and one with an odd offset. None of them
// changes its clocks at midnight, so time.Date returns when days begin.
func testCalendar(t *testing.T, factory Factory) {
	f := factory(t)
	for _, zone := range []string{"Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"} {
		location, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			calendar algo.Calendar
			windows  int
			begins   func(i int) time.Time
		}{
			{algo.Calendar{Every: algo.EveryDay, Zone: zone}, 365, func(i int) time.Time { return time.Date(2026, 1, 1+i, 0, 0, 0, 0, location) }},
			{algo.Calendar{Every: algo.EveryWeek, Zone: zone}, 52, func(i int) time.Time { return time.Date(2026, 1, 5+7*i, 0, 0, 0, 0, location) }},
			{algo.Calendar{Every: algo.EveryMonth, Zone: zone}, 12, func(i int) time.Time { return time.Date(2026, time.Month(1+i), 1, 0, 0, 0, 0, location) }},
			{algo.Calendar{Every: algo.EveryMonth, Zone: zone, Starts: 15}, 12, func(i int) time.Time { return time.Date(2026, time.Month(1+i), 15, 0, 0, 0, 0, location) }},
			{algo.Calendar{Every: algo.EveryQuarter, Zone: zone}, 4, func(i int) time.Time { return time.Date(2026, time.Month(1+3*i), 1, 0, 0, 0, 0, location) }},
			{algo.Calendar{Every: algo.EveryYear, Zone: zone}, 2, func(i int) time.Time { return time.Date(2026+i, 1, 1, 0, 0, 0, 0, location) }},
		} {
			limit := mustLimit(algo.Params{Limit: 3, Calendar: c.calendar, DeniedHits: algo.Drop})
			decide := func(now int64, want algo.Decision) {
				t.Helper()
				f.SetClock(now)
				req := backend.Request{Checks: checks(required(0, c.calendar.String(), limit, 1))}
				out := make([]algo.Decision, 1)
				if err := f.Backend.Decide(context.Background(), &req, out); err != nil {
					t.Fatal(err)
				}
				if out[0] != want {
					t.Errorf("%s, at %s:\n got %s\nwant %s", c.calendar, time.UnixMicro(now).In(location).Format(time.RFC3339Nano), describe(out[0]), describe(want))
				}
			}
			for i := range c.windows {
				begins, ends := c.begins(i).UnixMicro(), c.begins(i+1).UnixMicro()
				length, half := time.Duration(ends-begins)*time.Microsecond, (ends-begins)/2
				last := time.Microsecond
				decide(begins, algo.Decision{Allowed: true, Remaining: 2, ResetAfter: length})
				decide(begins+half, algo.Decision{Allowed: true, Remaining: 1, ResetAfter: length - time.Duration(half)*time.Microsecond})
				decide(ends-1, algo.Decision{Allowed: true, ResetAfter: last})
				decide(ends-1, algo.Decision{ResetAfter: last, RetryAfter: last})
			}
		}
	}
}
