package limiter_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/stats"
)

func TestLook(t *testing.T) {
	f := serve(t, `domain: edge
descriptors:
  - key: user
    detailed_metric: true
    rate_limits: [{unit: minute, requests_per_unit: 2}, {unlimited: false, unit: day, requests_per_unit: 3, algorithm: token_bucket}]
  - {key: strict, rate_limit: {unit: minute, requests_per_unit: 2}}
  - {key: blocked, rate_limit: {unit: minute, requests_per_unit: 0}}
  - {key: free, rate_limit: {unlimited: true}}
`)
	look := func(text string) string {
		t.Helper()
		var entries descriptor.Entries
		if err := entries.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		rule, counters, err := f.Look(context.Background(), "edge", entries)
		if err != nil {
			t.Fatal(err)
		}
		if rule == nil {
			return "none"
		}
		out := rule.Path
		for _, c := range counters {
			out += fmt.Sprintf(" %s %s %d %v", c.Check.Key, c.Limit.Unit, c.Decision.Remaining, c.Decision.Allowed)
		}
		return out
	}
	for range 3 { // again and again: nothing is charged
		if got, want := look("user=a"), "user 4:edge|4:user=1:a|fw:1m minute 2 true 4:edge|4:user=1:a|tb day 3 true"; got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	if n := len(f.stats.Rules()); n != 4 {
		t.Errorf("looking has made statistics: %d rules", n)
	}
	f.admitted(2, desc("user=a"))
	f.advance(time.Second)
	if got, want := look("user=a"), "user 4:edge|4:user=1:a|fw:1m minute 0 false 4:edge|4:user=1:a|tb day 1 true"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	for text, want := range map[string]string{"user=b": "user 4:edge|4:user=1:b|fw:1m minute 2 true 4:edge|4:user=1:b|tb day 3 true", "free=x": "free", "nothing=x": "none"} {
		if got := look(text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	// Limits that count denied hits: used up, then exceeded, and never open.
	for _, hits := range []int{2, 1} {
		f.admitted(hits, desc("strict=a"))
		_, counters, err := f.Look(context.Background(), "edge", []descriptor.Entry{{Key: "strict", Value: "a"}})
		if err != nil || counters[0].Decision.Allowed || counters[0].Decision.RetryAfter != 59*time.Second {
			t.Errorf("%+v, error %v", counters, err)
		}
	}
	_, counters, err := f.Look(context.Background(), "edge", []descriptor.Entry{{Key: "blocked"}})
	if err != nil || counters[0].Decision.Allowed || counters[0].Decision.RetryAfter != algo.Never {
		t.Errorf("%+v, error %v", counters, err)
	}
	if rule, _, err := f.Look(context.Background(), "nowhere", nil); rule != nil || err != nil {
		t.Errorf("an unknown domain: %v, %v", rule, err)
	}
	empty := limiter.New(limiter.Options{Backend: memory.New(memory.Options{}), Log: zaptest.NewLogger(t), Stats: stats.New(0)})
	if _, _, err := empty.Look(context.Background(), "edge", nil); !errors.Is(err, limiter.ErrNoRules) {
		t.Errorf("before there are rules: %v", err)
	}
}
