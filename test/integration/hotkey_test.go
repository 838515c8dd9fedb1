package integration

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// longestStall returns for how long, until done, the machine let this process wait for
// its turn. What is late while it does proves nothing of the service.
func longestStall(done <-chan struct{}) (most time.Duration) {
	const pace = 5 * time.Millisecond
	for last := time.Now(); ; last = time.Now() {
		select {
		case <-done:
			return most
		case <-time.After(pace):
			most = max(most, time.Since(last)-pace)
		}
	}
}

// TestHotKeyOfThreeReplicas has 16 clients of each of three replicas ask for one key as
// fast as they are answered, with all settings at their defaults: no call fails, and
// the limit is met exactly.
func TestHotKeyOfThreeReplicas(t *testing.T) {
	const (
		replicas, clients, calls = 3, 16, 200
		limit                    = 1000
		bound                    = 250 * time.Millisecond // of an answer, by default
	)
	server := redistest.Start(t, redistest.Config{})
	t.Setenv("REDIS_URL", "redis://"+server.Addr)
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	const text = "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: year, requests_per_unit: 1000, algorithm: token_bucket}}\n"
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var admitted, failed atomic.Int64
	var longest atomic.Int64 // ns
	var wait sync.WaitGroup
	for range replicas {
		service := harness.StartService(t, rules)
		for range clients {
			client := rls.NewRateLimitServiceClient(service.Dial(t))
			wait.Go(func() {
				for range calls {
					began := time.Now()
					answer, err := client.ShouldRateLimit(context.Background(), harness.Request("edge", 1, "user", "hot"))
					took := int64(time.Since(began))
					for last := longest.Load(); took > last && !longest.CompareAndSwap(last, took); last = longest.Load() {
					}
					switch {
					case err != nil:
						failed.Add(1)
					case answer.GetOverallCode() == rls.RateLimitResponse_OK:
						admitted.Add(1)
					}
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	stall := longestStall(done)
	took := time.Duration(longest.Load())
	t.Logf("%d calls, the longest %v, %d failed; the machine stalled for %v at most", replicas*clients*calls, took, failed.Load(), stall)
	if n := failed.Load(); n > 0 && stall < bound/2 {
		t.Errorf("%d of %d calls failed; the longest took %v, of a bound of %v", n, replicas*clients*calls, took, bound)
	}
	if n := admitted.Load(); n > limit || failed.Load() == 0 && n < limit {
		t.Errorf("%d are admitted, want the limit of %d", n, limit)
	}
}
