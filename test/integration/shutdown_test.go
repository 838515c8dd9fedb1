package integration

import (
	"context"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// TestStopAnswersWhatIsInFlight stops the service under load. The clients wait for
// a connection rather than fail for want of one, so that the one error they may see
// is the end of that wait; a request that the service had and did not answer would
// fail with Unavailable.
func TestStopAnswersWhatIsInFlight(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, rulesAllowing(1_000_000_000))
	service := harness.StartService(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	var clients sync.WaitGroup
	var answered atomic.Int64
	loaded := make(chan struct{})
	for range 8 {
		client := rls.NewRateLimitServiceClient(service.Dial(t))
		for range 8 {
			clients.Go(func() {
				for {
					answer, err := client.ShouldRateLimit(ctx, harness.Request("edge", 1, "user", "alice"), grpc.WaitForReady(true))
					if status.Code(err) == codes.Canceled {
						return
					}
					if err != nil || answer.GetOverallCode() != rls.RateLimitResponse_OK {
						t.Errorf("a request was lost: %v, error %v", answer, err)
						return
					}
					if answered.Add(1) == 1000 {
						close(loaded)
					}
				}
			})
		}
	}
	<-loaded
	service.Stop(t)
	cancel()
	clients.Wait()
	t.Logf("%d requests answered", answered.Load())
}

// TestRollingUpdate replaces one replica after the other while clients go on, of an
// Envoy that refuses what it cannot have decided. As replicas.yaml asks, a replica
// goes on answering for longer than the interval of Envoy's health checks: without
// that, Envoy may have just connected to a listener that closes, which is neither a
// connect failure nor a refused stream, and so nothing that it retries.
func TestRollingUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, rulesAllowing(1_000_000_000))
	start := func() *harness.Service { return harness.StartService(t, path, "--drain-delay", "3s") }
	replicas := []*harness.Service{start(), start()}
	envoy := harness.StartEnvoy(t, "replicas.yaml", replicas...)

	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				answer, err := envoy.Do(http.MethodGet, 10000, "/", "x-user", "alice")
				if err != nil || answer.Status != http.StatusOK {
					t.Errorf("status %d, error %v, %v", answer.Status, err, answer.Header)
					return
				}
			}
		})
	}
	defer clients.Wait()
	defer stop()
	for _, replica := range replicas {
		replica.Stop(t)
		replica.Restart(t)
		harness.Eventually(t, "Envoy asks the replica again", func() bool {
			return replica.Metric(t, `ratelimit_decisions_total{domain="edge",result="allowed",rule="user"}`) > 0
		})
	}
}
