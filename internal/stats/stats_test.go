package stats_test

import (
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/stats"
)

// TestValuesCountForTheirOwnRule has clients choose values that make the path of
// another rule, or of another rule's value: they count for the rule that they met.
func TestValuesCountForTheirOwnRule(t *testing.T) {
	s := stats.New(0)
	rules := s.Bind([]stats.Name{{Domain: "edge", Path: "user"}, {Domain: "edge", Path: "user_x.plan_gold"}, {Domain: "edge", Path: "route"}}, nil)
	user, gold, route := rules[0], rules[1], rules[2]
	if got := s.Detailed("edge", []byte("user_alice"), user, levels); got == user || got.Name.Path != "user_alice" {
		t.Errorf("a value counts as %q", got.Name.Path)
	}
	for path, fallback := range map[string]*stats.Rule{"user_x.plan_gold": user, "user_alice": route} {
		for range 2 {
			if got := s.Detailed("edge", []byte(path), fallback, levels); got != fallback {
				t.Errorf("a value of %s counts as %q", fallback.Name.Path, got.Name.Path)
			}
		}
	}
	if got := s.Detailed("edge", []byte("user_x.plan_gold"), gold, levels); got != gold {
		t.Errorf("a rule's own path counts as %q", got.Name.Path)
	}
	if n := s.Folded.Load(); n != 4 {
		t.Errorf("%d calls folded, want 4", n)
	}
}

// TestSeriesAreBounded counts ever new values of a client.
func TestSeriesAreBounded(t *testing.T) {
	const most = 10
	s := stats.New(most)
	user := s.Bind([]stats.Name{{Domain: "edge", Path: "user"}}, nil)[0]
	for i := range 1000 {
		s.Detailed("edge", []byte{'u', byte(i), byte(i >> 8)}, user, levels).Allow(stats.Usage{Hits: 1, Limit: 10, Near: 8})
	}
	if n := len(s.Rules()); n != most+1 {
		t.Errorf("%d series, want %d", n, most+1)
	}
	if n := s.Folded.Load(); n != 1000-most {
		t.Errorf("%d calls folded, want %d", n, 1000-most)
	}
}

// TestLongValuesHaveNoSeries: ten thousand headers of 60 KiB would make metrics of a gigabyte.
func TestLongValuesHaveNoSeries(t *testing.T) {
	s := stats.New(10)
	user := s.Bind([]stats.Name{{Domain: "edge", Path: "user"}}, nil)[0]
	if got := s.Detailed("edge", []byte("user_"+strings.Repeat("x", 255)), user, levels); got == user {
		t.Error("a value of 255 bytes has no series")
	}
	if got := s.Detailed("edge", []byte("user_"+strings.Repeat("x", 257)), user, levels); got != user || s.Folded.Load() != 1 {
		t.Errorf("a value of 257 bytes has a series of its own, or is not counted as folded: %d", s.Folded.Load())
	}
}

// levels are those of values that these tests do not look at.
func levels() (first, second string) { return "user", "" }
