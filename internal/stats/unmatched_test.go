package stats_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/distlimiter/ratelimit/internal/stats"
)

// TestUnmatchedIsBounded: a client that makes up domains adds a hundred names, and no
// call is lost.
func TestUnmatchedIsBounded(t *testing.T) {
	s := stats.New(0)
	const each = 300
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for i := range each {
				s.UnknownDomain(fmt.Sprint("made-up-", i)).CountUnmatched(1, time.Now(), time.Hour)
			}
		})
	}
	clients.Wait()
	s.UnknownDomain(strings.Repeat("x", 256)).CountUnmatched(1, time.Now(), time.Hour)
	unknown, known := s.Unmatched()
	total := uint64(0)
	for _, m := range unknown {
		total += m.Count
	}
	if len(unknown) != stats.MaxUnknownDomains+1 || unknown[len(unknown)-1].Domain != stats.OtherDomains || total != 4*each+1 || known != nil {
		t.Errorf("%d domains with %d requests, %v", len(unknown), total, known)
	}
}

// TestADomainMayHaveTheNameOfTheOthers: two series with its labels would fail every scrape.
func TestADomainMayHaveTheNameOfTheOthers(t *testing.T) {
	s := stats.New(0)
	for _, name := range []string{stats.OtherDomains, strings.Repeat("x", 256)} {
		s.UnknownDomain(name).CountUnmatched(1, time.Now(), time.Hour)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(s)
	if _, err := registry.Gather(); err != nil {
		t.Error(err)
	}
	if unknown, _ := s.Unmatched(); len(unknown) != 1 || unknown[0].Count != 2 {
		t.Errorf("got %v", unknown)
	}
}

// TestDomainsComeAndGo: a domain that gets rules is unknown no more, and counts of
// descriptors outlive a reload.
func TestDomainsComeAndGo(t *testing.T) {
	s := stats.New(0)
	at := time.Unix(1_700_000_000, 0)
	s.BindDomains([]string{"edge"})["edge"].CountUnmatched(2, at, time.Hour)
	s.UnknownDomain("shop").CountUnmatched(1, at, time.Hour)
	known := s.BindDomains([]string{"edge", "shop"})
	known["edge"].CountUnmatched(1, at.Add(time.Second), time.Hour)
	unknown, missed := s.Unmatched()
	if len(unknown) != 0 || len(missed) != 1 || missed[0] != (stats.UnmatchedCount{Domain: "edge", Count: 3, Last: at.Add(time.Second)}) {
		t.Errorf("unknown %v, missed %v", unknown, missed)
	}
}

func TestUnmatchedIsReportedAtIntervals(t *testing.T) {
	d := stats.New(0).UnknownDomain("shop")
	at := time.Unix(1_700_000_000, 0)
	for i, want := range []bool{true, false, false, true, false} {
		if got := d.CountUnmatched(1, at.Add(time.Duration(i)*20*time.Second), time.Minute); got != want {
			t.Errorf("after %d s: %v", i*20, got)
		}
	}
}

// TestUnmatchedMetrics has envoyproxy/ratelimit's name for each unknown domain, of which
// two may become one.
func TestUnmatchedMetrics(t *testing.T) {
	s := stats.New(0)
	s.BindDomains([]string{"edge"})["edge"].CountUnmatched(2, time.Now(), time.Hour)
	s.UnknownDomain("a.b").CountUnmatched(1, time.Now(), time.Hour)
	s.UnknownDomain("a/b").CountUnmatched(3, time.Now(), time.Hour)
	registry := prometheus.NewRegistry()
	registry.MustRegister(s)
	want := `# HELP ratelimit_service_rate_limit_a_b_domain_not_found Requests for a domain without rules, under envoyproxy/ratelimit's name.
# TYPE ratelimit_service_rate_limit_a_b_domain_not_found counter
ratelimit_service_rate_limit_a_b_domain_not_found 4
# HELP ratelimit_unmatched_total What met no rule, by domain: requests whose domain has none, or descriptors.
# TYPE ratelimit_unmatched_total counter
ratelimit_unmatched_total{domain="a.b",what="domain"} 1
ratelimit_unmatched_total{domain="a/b",what="domain"} 3
ratelimit_unmatched_total{domain="edge",what="descriptor"} 2
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "ratelimit_unmatched_total", "ratelimit_service_rate_limit_a_b_domain_not_found"); err != nil {
		t.Error(err)
	}
}
