package stats_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/distlimiter/ratelimit/internal/stats"
)

// TestBindWhileCounting binds more rules than it does at once while requests count
// values of their own. Rules that go on keep their counters, and as many values
// find a place afterwards as before.
func TestBindWhileCounting(t *testing.T) {
	const most = 10
	s := stats.New(most)
	names := make([]stats.Name, 3000)
	for i := range names {
		names[i] = stats.Name{Domain: "edge", Path: fmt.Sprintf("user_%d", i)}
	}
	first := s.Bind(names, nil)
	done := make(chan struct{})
	var requests sync.WaitGroup
	for range 2 {
		requests.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					s.Detailed("edge", fmt.Appendf(nil, "user_0_%d", i%100), first[0], levels).Allow(stats.Usage{Hits: 1})
				}
			}
		})
	}
	for i := range 20 {
		s.Bind(names[i:], nil)
		s.Bind(names[:2000], nil)
	}
	close(done)
	requests.Wait()
	again := s.Bind(names, nil)
	for i := 20; i < 2000; i++ {
		if again[i] != first[i] {
			t.Fatalf("rule %d has new counters, though it was there all along", i)
		}
	}
	if again[2500] == first[2500] {
		t.Error("a rule that went and came back has its old counters")
	}
	own := 0
	for i := range 2 * most {
		if s.Detailed("edge", fmt.Appendf(nil, "user_1_%d", i), again[1], levels) != again[1] {
			own++
		}
	}
	if own != most {
		t.Errorf("%d values have counters of their own, want %d", own, most)
	}
	if got, want := len(s.Rules()), len(names)+most; got != want {
		t.Errorf("%d counters, want %d", got, want)
	}
}
