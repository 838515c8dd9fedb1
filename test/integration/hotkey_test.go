package integration

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// TestHotKeyOfThreeReplicas has 16 clients of each of three replicas ask for one key as
// fast as they are answered, with all settings at their defaults: no call fails, and
// the limit is met exactly.
func TestHotKeyOfThreeReplicas(t *testing.T) {
	// Not in parallel, because the test is about time.
	const (
		replicas, clients, calls = 3, 16, 200
		limit                    = 1000
		bound                    = 250 * time.Millisecond // of an answer, by default
		suspended                = 200 * time.Millisecond // for which calls may fail that come after late ones
		hops                     = 3                      // of a call: the service, Redis, the service
	)
	server := redistest.Start(t, redistest.Config{})
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	const text = "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: year, requests_per_unit: 1000, algorithm: token_bucket}}\n"
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	type failure struct {
		began, ended time.Time
		err          error
	}
	var mu sync.Mutex
	var admitted int
	var longest time.Duration
	var failures []failure
	var wait sync.WaitGroup
	for range replicas {
		service := harness.StartService(t, rules, "REDIS_URL=redis://"+server.Addr)
		for range clients {
			client := rls.NewRateLimitServiceClient(service.Dial(t))
			wait.Go(func() {
				for range calls {
					began := time.Now()
					answer, err := client.ShouldRateLimit(context.Background(), harness.Request("edge", 1, "user", "hot"))
					ended := time.Now()
					mu.Lock()
					longest = max(longest, ended.Sub(began))
					switch {
					case err != nil:
						failures = append(failures, failure{began, ended, err})
					case answer.GetOverallCode() == rls.RateLimitResponse_OK:
						admitted++
					}
					mu.Unlock()
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	var machine turns
	machine.measure(done)
	t.Logf("%d calls, the longest %v, %d failed; this process waited for its turn for %v at most", replicas*clients*calls, longest, len(failures), machine.longest())
	for _, f := range failures {
		// Where this process waits for a third of the bound, a call may wait for all of it on
		// its way through three.
		if lost := machine.lost(f.began.Add(-bound-suspended), f.ended); lost < bound/hops {
			t.Errorf("a call failed after %v, and the machine had time for it, but for %v: %v", f.ended.Sub(f.began), lost, f.err)
		}
	}
	if admitted > limit || admitted+len(failures) < limit {
		t.Errorf("%d are admitted, want the limit of %d", admitted, limit)
	}
}
