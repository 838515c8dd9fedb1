package live_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/live"
)

func decision(domain string) func() live.Decision {
	return func() live.Decision { return live.Decision{Domain: domain, Time: time.Now()} }
}

func watch(t *testing.T, f *live.Feed, filter live.Filter) *live.Watcher {
	t.Helper()
	w, err := f.Watch(filter)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWatchersSeeWhatTheirFiltersAskFor(t *testing.T) {
	var f live.Feed
	if f.Watchers() != nil {
		t.Fatal("somebody watches a new feed")
	}
	var refused live.Verdicts
	if err := refused.UnmarshalText([]byte("over,shadow")); err != nil {
		t.Fatal(err)
	}
	watchers := map[string]*live.Watcher{
		"all":     watch(t, &f, live.Filter{}),
		"domain":  watch(t, &f, live.Filter{Domain: "edge"}),
		"path":    watch(t, &f, live.Filter{Rule: "user"}),
		"limit":   watch(t, &f, live.Filter{Rule: "per_day"}),
		"refused": watch(t, &f, live.Filter{Verdicts: refused}),
	}
	for _, s := range []live.Subject{
		{Domain: "edge", Rule: "user", Limit: "per_day", Verdict: live.OK},
		{Domain: "edge", Rule: "user", Verdict: live.Over},
		{Domain: "other", Rule: "path", Verdict: live.Shadow},
		{Domain: "other", Verdict: live.Unmatched},
	} {
		f.Watchers().Offer(&s, decision(s.Domain))
	}
	for name, want := range map[string]int{"all": 4, "domain": 2, "path": 2, "limit": 1, "refused": 2} {
		if got := len(watchers[name].Events()); got != want {
			t.Errorf("%s: %d decisions, want %d", name, got, want)
		}
		watchers[name].Close()
	}
	if f.Watchers() != nil {
		t.Error("the feed has watchers after all have left")
	}
}

// TestSlowWatchersLearnHowMuchTheyLost: all that was described for a watcher that does
// not read is either there or counted, and what was sampled stands for all there was.
func TestSlowWatchersLearnHowMuchTheyLost(t *testing.T) {
	var f live.Feed
	w := watch(t, &f, live.Filter{})
	const all = 200_000
	described := 0
	at := time.Unix(1_700_000_000, 0)
	for range all {
		f.Watchers().Offer(&live.Subject{}, func() live.Decision {
			described++
			return live.Decision{Time: at}
		})
	}
	lost := int(w.Lost())
	if lost == 0 || len(w.Events())+lost != described {
		t.Errorf("%d of %d described were lost, and %d arrived", lost, described, len(w.Events()))
	}
	if described > 20*live.PerSecond {
		t.Errorf("%d of %d in a second were described", described, all)
	}
	if again := w.Lost(); again != 0 {
		t.Errorf("%d are told as lost twice", again)
	}
	var first, last live.Event
	for range len(w.Events()) {
		last = <-w.Events()
		if first.Decision == nil {
			first = last
		}
	}
	if first.Sampled != 1 || last.Sampled < 2 {
		t.Errorf("the first stands for %d, one under load for %d", first.Sampled, last.Sampled)
	}
}

func TestFeedEnds(t *testing.T) {
	var f live.Feed
	var watchers []*live.Watcher
	for range live.MaxWatchers {
		watchers = append(watchers, watch(t, &f, live.Filter{}))
	}
	if _, err := f.Watch(live.Filter{}); !errors.Is(err, live.ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	watchers[0].Close()
	watchers[0] = watch(t, &f, live.Filter{})
	f.Close()
	for _, w := range watchers {
		<-w.Done()
	}
	if f.Watchers() != nil {
		t.Error("a closed feed has watchers")
	}
	if _, err := f.Watch(live.Filter{}); !errors.Is(err, live.ErrClosed) {
		t.Errorf("watching a closed feed: %v", err)
	}
	watchers[0].Close()
	f.Close()
}

func TestLongRequestsAreAbridged(t *testing.T) {
	long := strings.Repeat("v", 900)
	var d live.Decision
	d.SetRequest("edge", []descriptor.Entry{{Key: "a", Value: long}, {Key: "b", Value: long}, {Key: "c"}})
	size := 0
	for _, e := range d.Entries {
		size += len(e.Key) + len(e.Value)
	}
	if !d.Abridged || size != 1024 || len(d.Entries) != 2 || d.Entries[0].Value != long {
		t.Errorf("%d bytes in %d entries, abridged: %v", size, len(d.Entries), d.Abridged)
	}
	d = live.Decision{}
	d.SetRequest("edge", []descriptor.Entry{{Key: "a", Value: "b"}})
	if d.Abridged {
		t.Error("a short request is abridged")
	}
}

func TestUnknownVerdict(t *testing.T) {
	var s live.Verdicts
	err := s.UnmarshalText([]byte("over,unmached"))
	if err == nil || !strings.Contains(err.Error(), `"unmatched"`) {
		t.Errorf("%v", err)
	}
	if err := s.UnmarshalText(nil); err != nil || s != live.AllVerdicts {
		t.Errorf("none: %v, %v", s, err)
	}
}

// TestOffersThatNobodyTakesDoNotAllocate offers decisions that no filter matches.
func TestOffersThatNobodyTakesDoNotAllocate(t *testing.T) {
	var f live.Feed
	watch(t, &f, live.Filter{Domain: "other"})
	left := int64(math.MaxInt64)
	allocations := testing.AllocsPerRun(100, func() {
		s := live.Subject{Domain: "edge"}
		f.Watchers().Offer(&s, func() live.Decision { return live.Decision{Domain: s.Domain, Left: &left} })
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}
