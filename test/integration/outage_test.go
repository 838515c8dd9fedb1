package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// used is charged before the outage, so that answers of Redis show at most what is left
// of the limit, and those without it more.
const (
	outageLimit = 1_000_000
	used        = 500_000
)

// sample is an answer: to which mode, when it came, how long it took, and whether Redis
// had decided.
type sample struct {
	mode   string
	at     time.Time
	took   time.Duration
	failed bool
	stored bool
}

// ask asks once for the key of a mode.
func ask(client rls.RateLimitServiceClient, mode string) sample {
	began := time.Now()
	answer, err := client.ShouldRateLimit(context.Background(), harness.Request("edge", 1, "mode", mode))
	s := sample{mode: mode, at: time.Now(), failed: err != nil}
	s.took = s.at.Sub(began)
	s.stored = err == nil && answer.GetOverallCode() == rls.RateLimitResponse_OK && answer.GetStatuses()[0].GetLimitRemaining() < outageLimit-used
	return s
}

// inARow is how many answers Redis must have decided, one after the other, for all to be
// normal again: one may be late on a busy machine at any time.
const inARow = 20

// normal returns how long after the end the first of that many answers came; false if
// there are fewer. The samples are in the order in which they came.
func normal(samples []sample, end time.Time) (after time.Duration, ok bool) {
	row := 0
	for _, s := range samples {
		switch {
		case s.at.Before(end) || !s.stored:
			row = 0
			continue
		case row == 0:
			after = s.at.Sub(end)
		}
		if row++; row == inARow {
			return after, true
		}
	}
	return 0, false
}

// TestOutageInEachMode has steady callers of each on_backend_error, 125 requests a second
// each, meet a Redis that is frozen and one that is killed, with all settings at their
// defaults: only error fails, no answer takes longer than its bound, and soon after the
// end Redis decides again. With OUTAGE_TABLE=FILE it is frozen for 8 s and writes a table.
func TestOutageInEachMode(t *testing.T) {
	// Not in parallel, because the test is about time.
	const (
		bound   = 250 * time.Millisecond // of an answer, by default
		again   = 200 * time.Millisecond // until Redis decides
		callers = 5                      // of a mode
		pace    = 40 * time.Millisecond
	)
	table := os.Getenv("OUTAGE_TABLE")
	frozen := 2 * time.Second
	if table != "" {
		frozen = 8 * time.Second
	}
	// What it has decided outlives a kill.
	server := redistest.Start(t, redistest.Config{Args: []string{"--appendonly", "yes", "--appendfsync", "no"}})
	modes := []string{"error", "allow", "deny", "local"}
	text := "domain: edge\ndescriptors:\n"
	for _, mode := range modes {
		text += fmt.Sprintf("  - {key: mode, value: %s, rate_limit: {unit: year, requests_per_unit: %d, on_backend_error: %[1]s}}\n", mode, outageLimit)
	}
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	service := harness.StartService(t, rules, "REDIS_URL=redis://"+server.Addr)
	for _, mode := range modes {
		service.Ask(t, harness.Request("edge", used, "mode", mode))
	}
	var rows strings.Builder
	for _, outage := range []struct {
		name         string
		lasts        time.Duration
		strike, heal func()
	}{
		{"frozen", frozen, server.Freeze, server.Thaw},
		{"killed, and started again", 2 * time.Second, server.Kill, server.Restart},
	} {
		t.Run(outage.name, func(t *testing.T) {
			var all sync.WaitGroup
			var mu sync.Mutex
			var samples []sample
			done := make(chan struct{})
			for i := range callers {
				for _, mode := range modes {
					client := rls.NewRateLimitServiceClient(service.Dial(t))
					all.Go(func() {
						time.Sleep(pace * time.Duration(i) / callers)
						for tick := time.NewTicker(pace); ; {
							select {
							case <-done:
								return
							case <-tick.C:
							}
							s := ask(client, mode)
							mu.Lock()
							samples = append(samples, s)
							mu.Unlock()
						}
					})
				}
			}
			var machine turns
			all.Go(func() { machine.measure(done) })
			time.Sleep(time.Second) // of traffic before
			struck := time.Now()
			outage.strike()
			time.Sleep(outage.lasts)
			outage.heal()
			healed := time.Now()
			time.Sleep(2 * time.Second) // of traffic after
			close(done)
			all.Wait()
			stall := machine.longest()
			slices.SortFunc(samples, func(a, b sample) int { return a.at.Compare(b.at) })
			for _, mode := range modes {
				own := slices.DeleteFunc(slices.Clone(samples), func(s sample) bool { return s.mode != mode })
				var during []time.Duration
				longest, failed, stored := time.Duration(0), 0, 0
				for _, s := range own {
					longest = max(longest, s.took)
					if s.failed && mode != "error" {
						t.Errorf("%s: a request failed", mode)
					}
					if s.at.After(struck) && s.at.Before(healed) {
						during = append(during, s.took)
						if s.failed {
							failed++
						}
						if s.stored {
							stored++
						}
					}
				}
				after, ok := normal(own, healed)
				if !ok {
					t.Errorf("%s: Redis never decides %d requests in a row after its end", mode, inARow)
				}
				slices.Sort(during)
				if len(during) == 0 {
					t.Fatalf("%s: nobody is answered", mode)
				}
				median := during[len(during)/2]
				t.Logf("%s: %d answers meanwhile, %d by Redis, median %v, longest %v, %d failed, normal after %v; the machine stalled for %v at most",
					mode, len(during), stored, median, longest, failed, after, stall)
				fmt.Fprintf(&rows, "| %s | `%s` | %d ms | %.1f ms | %d of %d | %d ms |\n", outage.name, mode,
					longest.Milliseconds(), float64(median.Microseconds())/1000, failed, len(during), after.Milliseconds())
				// The service and Redis wait for their turns, too, which nothing here sees.
				if longest > 2*bound+stall {
					t.Errorf("%s: an answer took %v, of a bound of %v", mode, longest, bound)
				}
				if after > 2*again+stall {
					t.Errorf("%s: Redis decides %v after the end, want at most %v", mode, after, again)
				}
				if mode == "error" && failed == 0 {
					t.Errorf("%s: no request failed", mode)
				}
			}
		})
	}
	if table != "" {
		if err := os.WriteFile(table, []byte(rows.String()), 0o600); err != nil {
			t.Error(err)
		}
	}
}
