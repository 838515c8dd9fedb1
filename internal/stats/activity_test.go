package stats_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/stats"
)

func all(stats.Name) bool { return true }

func allow(r *stats.Rule, n uint64) {
	for range n {
		r.Allow(stats.Usage{Hits: 1, Near: math.MaxInt64})
	}
}

// TestActivity compares rates and history with what a list of all seconds says.
func TestActivity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := stats.New(0)
		names := []stats.Name{{Domain: "edge", Path: "a"}, {Domain: "edge", Path: "b"}}
		rules := s.Bind(names, nil)
		now := time.Unix(1_700_000_000, 0)
		seconds := make([][]stats.Calls, len(rules))
		for range rapid.IntRange(1, 4).Draw(t, "stretches") {
			busy := rapid.Bool().Draw(t, "busy")
			for range rapid.IntRange(1, 1500).Draw(t, "seconds") {
				for i, r := range rules {
					var c stats.Calls
					if busy {
						c = stats.Calls{Allowed: uint64((len(seconds[i]) * 7) % 5), Denied: uint64(len(seconds[i]) % 3), ShadowDenied: 1, Errors: uint64(i)}
					}
					allow(r, c.Allowed)
					for range c.Denied {
						r.Deny(stats.Usage{Hits: 1}, now, false)
					}
					for range c.ShadowDenied {
						r.Deny(stats.Usage{Hits: 1}, now, true)
					}
					for range c.Errors {
						r.Fail()
					}
					seconds[i] = append(seconds[i], c)
				}
				now = now.Add(time.Second)
				s.Tick(now)
			}
		}
		got, at := s.Activities(true, all)
		if !at.Equal(now) || len(got) != 2 {
			t.Fatalf("%d activities at %v, want 2 at %v", len(got), at, now)
		}
		for i, n := range names {
			a, list := got[n], seconds[i]
			inMinute := (len(list)-1)%60 + 1
			for _, w := range []struct {
				of   string
				got  stats.Rates
				last int
			}{{"second", a.Second, 1}, {"minute", a.Minute, 60}, {"hour", a.Hour, 59*60 + inMinute}} {
				if want := rates(list[len(list)-min(len(list), w.last):]); !near(w.got, want) {
					t.Fatalf("%s, last %s: %+v, want %+v", n.Path, w.of, w.got, want)
				}
			}
			for back, c := range a.History {
				want := stats.Calls{}
				if at := len(list) - len(a.History) + back; at >= 0 {
					want = list[at]
				}
				if c != want {
					t.Fatalf("%s, history[%d]: %+v, want %+v", n.Path, back, c, want)
				}
			}
		}
	})
}

func rates(list []stats.Calls) (r stats.Rates) {
	for _, c := range list {
		r.Allowed += float64(c.Allowed)
		r.Denied += float64(c.Denied)
		r.ShadowDenied += float64(c.ShadowDenied)
		r.Errors += float64(c.Errors)
	}
	n := float64(len(list))
	return stats.Rates{Allowed: r.Allowed / n, Denied: r.Denied / n, ShadowDenied: r.ShadowDenied / n, Errors: r.Errors / n}
}

func near(a, b stats.Rates) bool {
	same := func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }
	return same(a.Allowed, b.Allowed) && same(a.Denied, b.Denied) && same(a.ShadowDenied, b.ShadowDenied) && same(a.Errors, b.Errors)
}

// TestActivityOfParts holds that a rule's activity has what is counted apart, for
// values and overrides, also after a reload has forgotten those.
func TestActivityOfParts(t *testing.T) {
	s := stats.New(0)
	name := stats.Name{Domain: "edge", Path: "user"}
	rule := s.Bind([]stats.Name{name}, nil)[0]
	alice := s.Detailed("edge", []byte("user_alice"), rule, levels)
	override := s.Detailed("edge", []byte("user_alice!"), alice, levels)
	last := time.Unix(1_700_000_000, 0)
	allow(rule, 1)
	allow(alice, 2)
	allow(override, 3)
	override.Deny(stats.Usage{Hits: 1}, last, false)
	s.Tick(last)
	for range 3 { // before, and after reloads
		got, _ := s.Activities(false, all)
		a := got[name]
		if len(got) != 1 || a.Allowed != 6 || a.Denied != 1 || a.Second.Allowed != 6 || !a.LastDenied.Equal(last) || a.History != nil {
			t.Errorf("%+v", got)
		}
		s.Bind([]stats.Name{name}, nil)
	}
	allow(rule, 4)
	s.Tick(last.Add(time.Second))
	got, _ := s.Activities(true, all)
	if a := got[name]; a.Allowed != 10 || a.Second.Allowed != 4 || a.Minute.Allowed != 5 || a.History[58].Allowed != 6 {
		t.Errorf("%+v", a)
	}
	if n := rule.Counts().Allowed; n != 5 {
		t.Errorf("the rule's own count is %d, want 5: it must not jump at a reload", n)
	}
	if got, _ := s.Activities(false, func(stats.Name) bool { return false }); len(got) != 0 {
		t.Errorf("what nobody wanted: %v", got)
	}
}

// TestHottestBounds holds space-saving to its promise over a stream in which
// every request is looked at: no estimate is below the truth, none is further
// above than it says, and no counter that is hot enough is missing.
func TestHottestBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := stats.New(0)
		rule := s.Bind([]stats.Name{{Domain: "edge", Path: "user"}}, nil)[0]
		now := time.Unix(1_700_000_000, 0)
		keys := rapid.IntRange(1, 100).Draw(t, "keys")
		truth := map[string]int64{}
		total := int64(0)
		for range rapid.IntRange(1, 3).Draw(t, "stretches") {
			skew := rapid.IntRange(1, 3).Draw(t, "skew")
			for range 300 {
				n := rapid.IntRange(0, keys-1).Draw(t, "key")
				for range skew {
					n = n * n / keys
				}
				key := fmt.Sprintf("key%d", n)
				rule.CountKey([]byte(key), 1, now)
				truth[key]++
				total++
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 19).Draw(t, "pause")) * time.Second)
		}
		hottest := s.Hottest(rule.Name, now)
		if len(hottest.Counters) > 10 || len(hottest.Counters) < min(10, len(truth)) {
			t.Fatalf("%d counters of %d", len(hottest.Counters), len(truth))
		}
		found := map[string]bool{}
		last := int64(math.MaxInt64)
		for _, c := range hottest.Counters {
			if c.Calls > last {
				t.Fatalf("not in order: %+v", hottest.Counters)
			}
			last, found[c.Key] = c.Calls, true
			if c.Calls < truth[c.Key]-c.Error || c.Calls > truth[c.Key]+c.Error || len(truth) <= 32 && c.Error != 0 {
				t.Fatalf("%s: %d ± %d, truth %d", c.Key, c.Calls, c.Error, truth[c.Key])
			}
		}
		for key, n := range truth {
			if n > total/10+2*total/32 && !found[key] {
				t.Fatalf("%s is missing, with %d of %d", key, n, total)
			}
		}
	})
}

// TestHottestForgets holds that what was hot is forgotten in two minutes at most.
func TestHottestForgets(t *testing.T) {
	s := stats.New(0)
	rule := s.Bind([]stats.Name{{Domain: "edge", Path: "user"}}, nil)[0]
	start := time.Unix(1_700_000_000, 0)
	at := func(after time.Duration) string {
		text := ""
		for _, c := range s.Hottest(rule.Name, start.Add(after)).Counters {
			text += fmt.Sprintf("%s:%d ", c.Key, c.Calls)
		}
		return text
	}
	rule.CountKey([]byte("old"), 1, start)
	rule.CountKey([]byte("new"), 1, start.Add(59*time.Second))
	for _, tt := range []struct {
		after time.Duration
		want  string
	}{{59 * time.Second, "new:1 old:1 "}, {61 * time.Second, "new:1 old:1 "}, {119 * time.Second, "new:1 old:1 "}, {122 * time.Second, ""}} {
		if got := at(tt.after); got != tt.want {
			t.Errorf("after %v: %q, want %q", tt.after, got, tt.want)
		}
	}
	rule.CountKey(make([]byte, 10000), 1, start.Add(time.Hour))
	if got := s.Hottest(rule.Name, start.Add(time.Hour)).Counters; len(got) != 1 || !got[0].Abridged || len(got[0].Key) > 1000 {
		t.Errorf("a long key is kept as %d bytes: %v", len(got[0].Key), got[0].Abridged)
	}
}

// TestSampling sends many requests in few seconds of a clock of its own: few are
// looked at, and the estimates are right all the same.
func TestSampling(t *testing.T) {
	s := stats.New(0)
	rule := s.Bind([]stats.Name{{Domain: "edge", Path: "user"}}, nil)[0]
	var samplers [4]stats.Sampler
	start := time.Unix(1_700_000_000, 0)
	const perSecond, seconds = 200_000, 5
	truth, looks := map[string]int64{}, 0
	for i := range perSecond * seconds {
		now := start.Add(time.Duration(i) * time.Second / perSecond)
		key := []string{"hot", "warm", "warm", "hot", "hot", "cool", "hot", "hot"}[i%8]
		truth[key]++
		if weight := s.Sample(&samplers[i%4], now); weight > 0 {
			rule.CountKey([]byte(key), weight, now)
			looks++
		}
	}
	if looks > 20_000 || looks < 2_000 {
		t.Errorf("%d looks", looks)
	}
	end := start.Add(seconds * time.Second)
	hottest := s.Hottest(rule.Name, end)
	if hottest.Sampled < 100 || len(hottest.Counters) != 3 {
		t.Errorf("%+v", hottest)
	}
	for _, c := range hottest.Counters {
		if off := c.Calls - truth[c.Key]; max(off, -off) > 3*c.Error || c.Error > truth[c.Key]/3 {
			t.Errorf("%s: %d ± %d, truth %d", c.Key, c.Calls, c.Error, truth[c.Key])
		}
	}
	// When it is quiet again, a few requests show.
	for i := range 30 {
		s.Tick(end.Add(time.Duration(i) * time.Second))
	}
	later := end.Add(30 * time.Second)
	for i := range 20 {
		if weight := s.Sample(&samplers[i%4], later); weight > 0 {
			rule.CountKey([]byte("late"), weight, later)
		}
	}
	for _, c := range s.Hottest(rule.Name, later).Counters {
		if c.Key == "late" && (c.Calls != 20 || c.Error != 0) {
			t.Errorf("late: %d ± %d, want 20", c.Calls, c.Error)
		}
	}
	if n := len(s.Hottest(rule.Name, later).Counters); n != 4 {
		t.Errorf("%d counters, want 4", n)
	}
}

// BenchmarkSample is what looking for hot counters costs a request.
func BenchmarkSample(b *testing.B) {
	s := stats.New(0)
	rule := s.Bind([]stats.Name{{Domain: "edge", Path: "user"}}, nil)[0]
	var sampler stats.Sampler
	key := []byte("4:edge|4:user=5:alice|fw:1m")
	now := time.Now()
	for i := 0; b.Loop(); i++ {
		if i%4096 == 0 {
			now = time.Now()
		}
		if weight := s.Sample(&sampler, now); weight > 0 {
			rule.CountKey(key, weight, now)
		}
	}
}
