package limiter_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/stats"
)

func TestOverrideWithAnInvalidWindow(t *testing.T) {
	f := serve(t, perUser)
	for _, tt := range []struct {
		limit *ask
		says  string
	}{
		{times(override(desc("user=a"), 1, config.Hour), 0), "descriptors[1].limit.unit_multiplier: 0: use at least 1"},
		{times(override(desc("user=a"), 1, config.Day), 367), "descriptors[1].limit.unit_multiplier: 367 times DAY is longer than 366 days: use at most 366"},
		{times(override(desc("user=a"), 1, config.Second), 1<<32-1), "use at most 31622400"},
		{override(desc("user=a"), 1, config.UnitUnknown), "descriptors[1].limit.unit: UNKNOWN: use SECOND"},
		{times(override(desc("user=a"), 1, 99), 2), "descriptors[1].limit.unit: 99: use SECOND"},
	} {
		_, err := f.decide(context.Background(), "edge", desc("user=a"), tt.limit)
		if failureOf(err) != badRequest || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("got %v, want InvalidArgument with %q", err, tt.says)
		}
	}
	if got := f.left("user=a"); got != 2 {
		t.Errorf("a request that can't be decided was charged: %d left", got)
	}
}

// TestOverrideKeepsProportions of the other numbers of a rule to its limit.
func TestOverrideKeepsProportions(t *testing.T) {
	for _, tt := range []struct {
		name, rule string
		limit      uint32
		unit       config.Unit
		admitted   int           // at once
		after      time.Duration // a second one
		more       int
	}{
		{"a tenth", "algorithm: token_bucket, unit: hour, requests_per_unit: 50, burst: 5", 500, config.Hour, 50, 72 * time.Second, 10},
		{"rounded up", "algorithm: token_bucket, unit: hour, requests_per_unit: 50, burst: 5", 51, config.Hour, 6, 0, 0},
		{"at least 1", "algorithm: token_bucket, unit: hour, requests_per_unit: 1000, burst: 5", 2, config.Minute, 1, 30 * time.Second, 1},
		{"the whole limit by default", "algorithm: token_bucket, unit: hour, requests_per_unit: 5", 20, config.Hour, 20, 0, 0},
		{"more than the limit", "algorithm: token_bucket, unit: hour, requests_per_unit: 5, burst: 10", 7, config.Hour, 14, 0, 0},
		{"a queue", "algorithm: leaky_bucket, unit: hour, requests_per_unit: 60, burst: 3", 120, config.Hour, 6, 0, 0},
		{"no queue", "algorithm: leaky_bucket, unit: hour, requests_per_unit: 60", 3600, config.Hour, 1, time.Second, 1},
		{"no queue, written out", "algorithm: leaky_bucket, unit: hour, requests_per_unit: 60, burst: 1", 3600, config.Hour, 1, time.Second, 1},
		{"no proportion to 0", "algorithm: token_bucket, unit: hour, requests_per_unit: 0, burst: 4", 3, config.Hour, 3, 0, 0},
		// 100/min with a bucket of 10 at 2/s, which is 1.2 times the limit: 500/h with one of 50 at 600/h.
		{"the refill", "algorithm: hybrid, sliding_window: {unit: minute, requests_per_unit: 100}, token_bucket: {capacity: 10, refill_rate: 2/s}", 500, config.Hour, 50, time.Minute, 10},
		{"a slow refill", "algorithm: hybrid, sliding_window: {unit: hour, requests_per_unit: 1000}, token_bucket: {capacity: 1000, refill_rate: 1/h}", 10, config.Hour, 10, 100 * time.Hour, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {"+tt.rule+"}}\n")
			o := func() *ask { return override(desc("user=a"), tt.limit, tt.unit) }
			if got := f.admitted(tt.admitted+2, o()); got != tt.admitted {
				t.Errorf("%d admitted at once, want %d", got, tt.admitted)
			}
			f.advance(tt.after)
			if got := f.admitted(tt.more+2, o()); got != tt.more {
				t.Errorf("%d admitted after %v, want %d", got, tt.after, tt.more)
			}
		})
	}
}

func TestOverrideStaysStrict(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {algorithm: sliding_window, unit: minute, requests_per_unit: 9, strict: true, sub_windows: 2}}
`)
	o := func() *ask { return override(desc("user=a"), 2, config.Minute) }
	f.admitted(2, o())
	for _, tt := range []struct {
		after time.Duration
		want  int
	}{{59 * time.Second, 0}, {30 * time.Second, 0}, {time.Second, 2}} { // parts of 30 s: whole until 90 s
		f.advance(tt.after)
		if got := f.admitted(3, o()); got != tt.want {
			t.Errorf("%d admitted %v later, want %d", got, tt.after, tt.want)
		}
	}
}

// TestOverrideOfAllOrNothingDropsDeniedHits if no rule sets denied_hits.
func TestOverrideOfAllOrNothingDropsDeniedHits(t *testing.T) {
	f := serve(t, "domain: edge\nconsume: all_or_nothing\ndescriptors:\n  - {key: user, rate_limit: {unit: hour, requests_per_unit: 1}}\n")
	o := func(hits uint64) *ask {
		return withHits(override(desc("none=a"), 3, config.Hour), hits)
	}
	f.ask(o(4))
	if got := f.ask(o(0)).Statuses[0].LimitRemaining; got != 3 {
		t.Errorf("%d left after a refused call, want 3", got)
	}
}

func TestReplacedLimitIsNoQuota(t *testing.T) {
	for _, consume := range []string{"each", "all_or_nothing"} {
		t.Run(consume, func(t *testing.T) {
			f := serve(t, "domain: edge\nconsume: "+consume+`
descriptors:
  - {key: a, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 0}}
  - {key: b, quota_mode: true, rate_limit: {name: bb, unit: year, requests_per_unit: 5}}
  - {key: c, rate_limit: {unit: year, requests_per_unit: 5, replaces: [{name: bb}]}}
  - {key: free, quota_mode: true, rate_limit: {unlimited: true}}
`)
			if got := f.ask(desc("a=x"), desc("b=x"), desc("c=x")).OverallCode; got != over {
				t.Errorf("%v, want OVER_LIMIT: the only quota that is left is used up", got)
			}
			if got := f.ask(desc("a=x"), desc("free=x")).OverallCode; got != over {
				t.Errorf("%v beside unlimited, which is no quota", got)
			}
			if got := f.ask(desc("a=x"), desc("b=x")).OverallCode; got != ok {
				t.Errorf("%v with a quota that is not replaced", got)
			}
			left := int64(4)
			if consume == "all_or_nothing" {
				left = 5
			}
			if got := f.left("c=x"); got != left {
				t.Errorf("%d left of c, want %d", got, left)
			}
		})
	}
}

// TestGlobalQuotaModeCountsReplacedAndUnmatchedAsPassing, as envoyproxy/ratelimit
// does, in the store as in the answer.
func TestGlobalQuotaModeCountsReplacedAndUnmatchedAsPassing(t *testing.T) {
	for _, consume := range []string{"each", "all_or_nothing"} {
		f := serve(t, "domain: edge\nconsume: "+consume+`
descriptors:
  - {key: a, rate_limit: {unit: year, requests_per_unit: 0}}
  - {key: b, rate_limit: {name: bb, unit: year, requests_per_unit: 5}}
  - {key: c, rate_limit: {unit: year, requests_per_unit: 1, replaces: [{name: bb}]}}
  - {key: free, rate_limit: {unlimited: true}}
`, func(o *limiter.Options) { o.QuotaMode = true })
		for i := range 3 {
			if got := f.ask(desc("a=x"), desc("b=x"), desc("c=x")).OverallCode; got != ok {
				t.Errorf("%s: request %d: %v with a quota that is replaced", consume, i, got)
			}
		}
		if got := f.left("c=x"); got > 0 {
			t.Errorf("%s: what passes was not charged: %d left", consume, got)
		}
		if got := f.ask(desc("a=x"), desc("none=x")).OverallCode; got != ok {
			t.Errorf("%s: %v with a descriptor that no rule is for", consume, got)
		}
		if got := f.ask(desc("a=x"), desc("free=x")).OverallCode; got != over {
			t.Errorf("%s: %v with unlimited, which is no quota", consume, got)
		}
	}
}

// TestServiceAndStoreAgreeOnWhatIsRefused as a whole: a refused request has charged
// nothing, and one that passes was charged, whatever the modes.
func TestServiceAndStoreAgreeOnWhatIsRefused(t *testing.T) {
	const yaml = `
domain: edge
consume: all_or_nothing
descriptors:
  - {key: required, rate_limit: {unit: year, requests_per_unit: 4, name: required}}
  - {key: quota, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 1, name: quota}}
  - {key: other, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: both, quota_mode: true, rate_limits: [{unit: year, requests_per_unit: 3}, {unit: year, requests_per_unit: 4, name: quota}]}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: free, quota_mode: true, rate_limit: {unlimited: true}}
  - {key: replaces, rate_limit: {unit: year, requests_per_unit: 5, replaces: [{name: quota}, {name: required}]}}
`
	limited := []string{"required=x", "quota=x", "other=x", "both=x", "shadow=x", "replaces=x"}
	rapid.Check(t, func(r *rapid.T) {
		global := rapid.Bool().Draw(r, "quota mode for all")
		f := serve(t, yaml, func(o *limiter.Options) { o.QuotaMode = global })
		for range 12 {
			texts := rapid.SliceOfNDistinct(rapid.SampledFrom(append([]string{"free=x", "none=x"}, limited...)), 1, 5, rapid.ID).Draw(r, "descriptors")
			before := map[string]int64{}
			for _, text := range limited {
				before[text] = f.left(text)
			}
			var ds []*ask
			for _, text := range texts {
				ds = append(ds, desc(text))
			}
			resp := f.ask(ds...)
			for i, text := range texts {
				if resp.Statuses[i].CurrentLimit == nil {
					continue
				}
				charged, passes := before[text]-f.left(text), before[text] > 0
				if wanted := passes && resp.OverallCode == ok; (charged == 1) != wanted || charged != 0 && charged != 1 {
					r.Fatalf("%v of %v: %s is charged %d with %d left before", resp.OverallCode, texts, text, charged, before[text])
				}
			}
		}
	})
}

func TestStatisticsCountWhatWasCharged(t *testing.T) {
	f := serve(t, `
domain: edge
consume: all_or_nothing
descriptors:
  - {key: site, rate_limit: {unit: hour, requests_per_unit: 10}}
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 9}}
  - {key: free, rate_limit: {unlimited: true}}
`)
	f.admitted(109, desc("site=a"), desc("user=a"), desc("free=a"))
	for path, wanted := range map[string]stats.Counts{
		// Its own decision allowed all of them, but 100 were charged nothing.
		"site": {WithinLimit: 9, NearLimit: 1, DeniedHits: 100, Allowed: 109},
		"user": {WithinLimit: 9, NearLimit: 2, DeniedHits: 100, OverLimit: 100, Allowed: 9, Denied: 100},
		"free": {WithinLimit: 9, DeniedHits: 100, Allowed: 109},
	} {
		got := f.counts(path, "")
		if got != wanted || got.TotalHits() != 109 {
			t.Errorf("%s: %+v, want %+v", path, got, wanted)
		}
	}
}

// TestStatisticsCountDeniedHitsThatAreCharged, though the request is refused as a
// whole.
func TestStatisticsCountDeniedHitsThatAreCharged(t *testing.T) {
	f := serve(t, `
domain: edge
consume: all_or_nothing
descriptors:
  - {key: site, rate_limit: {unit: hour, requests_per_unit: 10, denied_hits: count}}
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 1}}
`)
	f.admitted(3, desc("site=a"), desc("user=a"))
	if got, wanted := f.counts("site", ""), (stats.Counts{WithinLimit: 3, Allowed: 3}); got != wanted || f.left("site=a") != 7 {
		t.Errorf("%+v with %d left, want %+v", got, f.left("site=a"), wanted)
	}
}

// TestRefusedRequestsChargeNothing where the whole service is set so, by one step of
// the store or by giving back.
func TestRefusedRequestsChargeNothing(t *testing.T) {
	for _, spread := range []bool{false, true} {
		t.Run(fmt.Sprintf("spread %v", spread), func(t *testing.T) {
			f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 1, denied_hits: drop}}
  - {key: tenant, rate_limit: {unit: hour, requests_per_unit: 10, denied_hits: drop}}
  - {key: counts, rate_limit: {unit: hour, requests_per_unit: 10, denied_hits: count}}
  - {key: bucket, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 10}}
  - {key: quota, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 1, denied_hits: drop}}
`, func(o *limiter.Options) { o.DropRefused, o.Spread = true, spread })
			for i := range 6 {
				resp := f.ask(desc("tenant=a"), desc("user=a"), desc("counts=a"), desc("bucket=a"))
				if (resp.OverallCode == ok) != (i == 0) {
					t.Errorf("request %d: %v", i, resp.OverallCode)
				}
				for at, left := range map[int]uint32{0: 9, 2: uint32(9 - i), 3: 9} {
					if st := resp.Statuses[at]; st.LimitRemaining != left || st.Code != ok {
						t.Errorf("request %d: %v, want %d left", i, st, left)
					}
				}
			}
			if got, wanted := f.counts("tenant", ""), (stats.Counts{WithinLimit: 1, DeniedHits: 5, Allowed: 6}); got != wanted {
				t.Errorf("counted %+v, want %+v", got, wanted)
			}
			f.ask(desc("quota=a"), desc("tenant=b"))
			f.ask(desc("quota=a"), desc("tenant=b"))
			if got := f.left("tenant=b"); got != 9 {
				t.Errorf("all quotas refuse: %d left, want 9", got)
			}
			f.ask(desc("user=b"), withHits(desc("tenant=c"), 11))
			if got := f.left("user=b"); got != 1 {
				t.Errorf("the first descriptor is charged for what the second refuses: %d left", got)
			}
		})
	}
}

// TestRefusalsOutOfMemorySayTheSame as those of the store.
func TestRefusalsOutOfMemorySayTheSame(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 360}}\n",
		func(o *limiter.Options) { o.Backend = &remembering{o.Backend, map[string]algo.Decision{}} })
	f.ask(withHits(desc("user=a"), 360))
	stored, remembered := f.ask(desc("user=a")), f.ask(desc("user=a"))
	if f.counts("user", "").OverLimitWithLocalCache != 1 {
		t.Fatal("it was not remembered")
	}
	want(t, remembered, stored)
}

// TestRefusalsThatNoWaitChangesSayAWindow: a limit of 0 never passes. Where its counter has
// no window that ends, a reset of 0 would have clients come back at once.
func TestRefusalsThatNoWaitChangesSayAWindow(t *testing.T) {
	for algorithm, want := range map[string]time.Duration{
		"fixed_window": time.Minute, "sliding_window": time.Minute, "sliding_log": time.Minute,
		"token_bucket": time.Minute, "leaky_bucket": time.Minute, "hybrid": time.Minute,
	} {
		f := serve(t, "domain: edge\ndescriptors:\n  - {key: none, rate_limit: {algorithm: "+algorithm+", unit: minute, requests_per_unit: 0}}\n  - {key: few, rate_limit: {algorithm: "+algorithm+", unit: minute, requests_per_unit: 5}}\n")
		if s := f.ask(desc("none=a")).Statuses[0]; s.Code != codeOf(true) || s.DurationUntilReset != want {
			t.Errorf("%s: %+v, want a reset of %v", algorithm, s, want)
		}
		f.hits = 6 // more than the limit ever holds
		if s := f.ask(desc("few=a")).Statuses[0]; s.Code != codeOf(true) || s.DurationUntilReset != want {
			t.Errorf("%s, asked for too much: %+v, want a reset of %v", algorithm, s, want)
		}
	}
}
