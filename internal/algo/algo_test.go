package algo_test

import (
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

var monthly = algo.Calendar{Every: algo.EveryMonth}

func TestNewSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		params algo.Params
		want   string
	}{
		{algo.Params{Algorithm: 7, Limit: 1, Window: time.Second}, "unknown algorithm 7"},
		{algo.Params{Limit: 1}, "a window of 0s is too short: use at least 1ms"},
		{algo.Params{Limit: 1, Window: -time.Hour}, "a window of -1h0m0s is too short"},
		{algo.Params{Limit: 1, Window: time.Millisecond - 1}, "too short"},
		{algo.Params{Limit: 1, Window: algo.MaxWindow + 1}, "is too long: use at most 8784h0m0s (366 days)"},
		{algo.Params{Limit: 1, Window: time.Second + 1}, "is not a whole number of microseconds"},
		{algo.Params{Limit: 1, Window: time.Second, DeniedHits: 4}, "unknown denied_hits 4"},
		{algo.Params{Limit: 1, Window: time.Second, Burst: 1}, "fixed_window has no burst"},
		{algo.Params{Algorithm: algo.SlidingLog, Limit: 1, Window: time.Second, Burst: 1}, "sliding_log has no burst"},
		{algo.Params{Algorithm: algo.TokenBucket, Limit: 1, Window: time.Second, Refill: algo.Rate{Hits: 1, Per: time.Second}}, "token_bucket has no refill rate of its own"},
		{algo.Params{Algorithm: algo.Hybrid, Limit: 1, Window: time.Second, Refill: algo.Rate{Per: time.Second}}, "a refill rate of 0 never refills"},
		{algo.Params{Algorithm: algo.Hybrid, Limit: 1, Window: time.Second, Refill: algo.Rate{Hits: 1}}, "a refill period of 0s is too short"},
		{algo.Params{Algorithm: algo.Hybrid, Limit: 0, Window: time.Second, Refill: algo.Rate{Hits: 1}}, "a refill period of 0s is too short"},
		{algo.Params{Algorithm: algo.TokenBucket, Limit: 1, Window: time.Second, Strict: true}, "token_bucket has no strict mode"},
		{algo.Params{Algorithm: algo.SlidingWindow, Limit: 1, Window: time.Second, SubWindows: 3}, "sub windows belong to strict mode"},
		{algo.Params{Algorithm: algo.SlidingWindow, Limit: 1, Window: time.Second, Strict: true, SubWindows: 61}, "61 sub windows: use 1 to 60"},
		{algo.Params{Algorithm: algo.SlidingWindow, Limit: 1, Window: time.Second, Strict: true, SubWindows: -1}, "-1 sub windows: use 1 to 60"},
		{algo.Params{Algorithm: algo.SlidingLog, Limit: algo.MaxLogLimit + 1, Window: time.Second}, "at most 65536, or use sliding_window with strict"},
		{algo.Params{Limit: 1, Window: time.Second, Calendar: monthly}, "a calendar and a length: write one of them"},
		{algo.Params{Algorithm: algo.TokenBucket, Limit: 1, Calendar: monthly}, "token_bucket has no calendar windows: remove it, or write algorithm: fixed_window"},
		{algo.Params{Limit: 1, Calendar: algo.Calendar{Every: 6}}, "unknown calendar 6: write day, week, month, quarter or year"},
		{algo.Params{Limit: 1, Calendar: algo.Calendar{Zone: "UTC"}}, "unknown calendar 0"},
		{algo.Params{Limit: 1, Calendar: algo.Calendar{Every: algo.EveryMonth, Zone: "Europe/Berln"}}, `unknown time zone "Europe/Berln": write a name of the IANA`},
		{algo.Params{Limit: 1, Calendar: algo.Calendar{Every: algo.EveryMonth, Starts: 29}}, "a month cannot start on day 29: write a day from 1 to 28"},
		{algo.Params{Limit: 1, Calendar: algo.Calendar{Every: algo.EveryWeek, Starts: 8}}, "a week cannot start on day 8: write a day of the week"},
		{algo.Params{Limit: 1, Calendar: algo.Calendar{Every: algo.EveryYear, Starts: 4}}, "a calendar year has no other start: remove it"},
		{algo.Params{Algorithm: algo.TokenBucket, Limit: 1, Window: 365 * 24 * time.Hour, Burst: 51}, "takes longer than 50 years to fill"},
		{algo.Params{Algorithm: algo.SlidingLog, Limit: 1, Window: time.Second, Hold: time.Minute}, "sliding_log can't hold: it remembers when each hit came, and what is settled came at no one time: use fixed_window, sliding_window, token_bucket, hybrid or concurrency"},
		{algo.Params{Algorithm: algo.LeakyBucket, Limit: 1, Window: time.Second, Hold: time.Minute}, "leaky_bucket can't hold: it spaces requests out"},
		{algo.Params{Algorithm: algo.Concurrency, Limit: 1, Window: time.Second, Hold: time.Minute}, "concurrency holds for its window"},
		{algo.Params{Algorithm: algo.Concurrency, Limit: algo.MaxHeld + 1, Window: time.Second}, "a concurrency of 1001"},
		{algo.Params{Limit: 1, Window: time.Second, Hold: time.Microsecond}, "a hold of 1µs is too short"},
	} {
		l, err := algo.New(c.params)
		if err == nil || l != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.params, err, c.want)
		}
	}
}

func TestNewTakesTheExtremes(t *testing.T) {
	const most = 4_294_967_295
	for _, p := range []algo.Params{
		{Limit: most, Window: algo.MinWindow},
		{Limit: 1, Window: algo.MaxWindow},
		{Algorithm: algo.SlidingLog, Limit: algo.MaxLogLimit, Window: algo.MaxWindow},
		{Algorithm: algo.TokenBucket, Limit: most, Window: algo.MaxWindow, Burst: most},
		{Algorithm: algo.TokenBucket, Limit: 1, Window: 366 * 24 * time.Hour, Burst: 50},
		{Algorithm: algo.LeakyBucket, Limit: most, Window: algo.MinWindow, Burst: most},
		{Algorithm: algo.Hybrid, Limit: most, Window: time.Second, Burst: 1, Refill: algo.Rate{Hits: 1, Per: algo.MaxWindow}},
		{Algorithm: algo.SlidingWindow, Limit: most, Window: algo.MinWindow, Strict: true, SubWindows: algo.MaxSubWindows},
	} {
		l := mustLimit(t, p)
		if l.Params() != p {
			t.Errorf("Params returns %+v, not %+v", l.Params(), p)
		}
	}
}

func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		params   algo.Params
		denied   algo.DeniedHits
		capacity int64
		words    int
	}{
		{algo.Params{Algorithm: algo.FixedWindow, Limit: 9}, algo.Count, 9, 2},
		{algo.Params{Algorithm: algo.SlidingWindow, Limit: 9}, algo.Drop, 9, 3},
		{algo.Params{Algorithm: algo.SlidingWindow, Limit: 9, Strict: true}, algo.Drop, 9, 13},
		{algo.Params{Algorithm: algo.SlidingLog, Limit: 9}, algo.Drop, 9, 0},
		{algo.Params{Algorithm: algo.TokenBucket, Limit: 9}, algo.Drop, 9, 4},
		{algo.Params{Algorithm: algo.TokenBucket, Limit: 9, Burst: 20, DeniedHits: algo.Drain}, algo.Drain, 20, 4},
		{algo.Params{Algorithm: algo.LeakyBucket, Limit: 9}, algo.Drop, 1, 4},
		{algo.Params{Algorithm: algo.LeakyBucket, Limit: 9, Burst: 4}, algo.Drop, 4, 4},
		{algo.Params{Algorithm: algo.Hybrid, Limit: 9}, algo.Drop, 9, 7},
		{algo.Params{Algorithm: algo.Hybrid, Limit: 9, Burst: 4}, algo.Drop, 4, 7},
		{algo.Params{Algorithm: algo.Hybrid, Limit: 9, Burst: 20, Strict: true, SubWindows: 4}, algo.Drop, 9, 11},
		{algo.Params{Algorithm: algo.Hybrid, Limit: 0}, algo.Drop, 0, 7},
	} {
		c.params.Window = time.Minute
		l := mustLimit(t, c.params)
		if l.DeniedHits() != c.denied || l.Capacity() != c.capacity || l.Words() != c.words {
			t.Errorf("%+v: denied hits %s, capacity %d, %d words", c.params, l.DeniedHits(), l.Capacity(), l.Words())
		}
	}
}

func TestNamesParseBack(t *testing.T) {
	for i, name := range algo.Algorithms() {
		if a, err := algo.ParseAlgorithm(name); err != nil || a != algo.Algorithm(i) || a.String() != name {
			t.Errorf("%q parses as %v, %v", name, a, err)
		}
	}
	for _, d := range []algo.DeniedHits{algo.Count, algo.Drop, algo.Drain} {
		if got, err := algo.ParseDeniedHits(d.String()); err != nil || got != d {
			t.Errorf("%q parses as %v, %v", d, got, err)
		}
	}
	if _, err := algo.ParseAlgorithm("gcra"); err == nil || !strings.Contains(err.Error(), "write one of fixed_window, sliding_window") {
		t.Errorf("gcra: %v", err)
	}
	for _, name := range []string{"default", "", "Count"} {
		if _, err := algo.ParseDeniedHits(name); err == nil || !strings.Contains(err.Error(), "write count, drop or drain") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A state of another algorithm or rule is no state.
func TestStatesOfAnotherLengthCountAsNeverUsed(t *testing.T) {
	bucket := mustLimit(t, algo.Params{Algorithm: algo.TokenBucket, Limit: 1, Window: time.Minute})
	used, _ := mustLimit(t, algo.Params{Algorithm: algo.SlidingWindow, Limit: 1, Window: time.Minute}).Step(nil, epoch, 1)
	if after, d := bucket.Step(used, epoch, 1); !d.Allowed || len(after) != bucket.Words() {
		t.Errorf("a window's state in a bucket: %s, leaving %v", show(d), after)
	}
}
