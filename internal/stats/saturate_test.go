package stats_test

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/stats"
)

// TestHitsSaturate: one call may bring 2^63-1 hits, and a count that began again
// would look like a restart.
func TestHitsSaturate(t *testing.T) {
	s := stats.New(0)
	rule := s.Bind([]stats.Name{{Domain: "edge", Path: "user"}}, nil)[0]
	const huge = math.MaxInt64
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			rule.Allow(stats.Usage{Hits: huge, After: huge})
			rule.Deny(stats.Usage{Hits: huge, Limit: 10}, time.Now(), true)
			rule.DenyLocally(huge)
		})
	}
	calls.Wait()
	rule.Allow(stats.Usage{Hits: 1, After: 1})
	c := rule.Counts()
	c.LastDenied = time.Time{}
	const most = math.MaxUint64
	want := stats.Counts{WithinLimit: most, DeniedHits: most, OverLimit: most, NearLimit: most, ShadowMode: most, OverLimitWithLocalCache: most, Allowed: 9, ShadowDenied: 8}
	if c != want || c.TotalHits() != most {
		t.Errorf("got %+v with %d hits in all, want %+v", c, c.TotalHits(), want)
	}
	activities, _ := s.Activities(false, func(stats.Name) bool { return true })
	if got := activities[rule.Name].WithinLimit; got != most {
		t.Errorf("the sum over a rule's parts is %d", got)
	}
}

// TestCandidatesAreCountedApart from the rule that they belong to.
func TestCandidatesAreCountedApart(t *testing.T) {
	s := stats.New(0)
	names := []stats.Name{{Domain: "edge", Path: "user"}, {Domain: "edge", Path: "user", Limit: "b"}, {Domain: "edge", Path: "user", Limit: "a"}}
	counters := s.Bind(names, nil)
	counters[0].Allow(stats.Usage{Hits: 2, Limit: 5, Near: 4, After: 2})
	if over := counters[1].Deny(stats.Usage{Hits: 2, Limit: 1}, time.Now(), true); over != 2 {
		t.Errorf("%d hits over the limit, want 2", over)
	}
	counters[0].LetThrough(2)
	if got := s.Rules(); len(got) != 1 || got[0] != counters[0] {
		t.Errorf("%d rules", len(got))
	}
	if got := s.Candidates(); len(got) != 2 || got[0] != counters[2] || got[1] != counters[1] {
		t.Errorf("candidates %v", got)
	}
	if c := counters[0].Counts(); c.WithinLimit != 2 || c.ShadowMode != 2 || c.Allowed != 1 || c.ShadowDenied != 0 || c.TotalHits() != 2 {
		t.Errorf("the rule: %+v", c)
	}
	if c := counters[1].Counts(); c.ShadowDenied != 1 || c.OverLimit != 2 || c.WithinLimit != 0 {
		t.Errorf("the candidate: %+v", c)
	}
	if again := s.Bind(names[:2], nil); again[1] != counters[1] || len(s.Candidates()) != 1 {
		t.Error("a candidate does not survive a reload, or one that is gone does")
	}
}
