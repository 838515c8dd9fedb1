package integration

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// TestStopAnswersWhatIsInFlight stops the service under load. The clients wait for
// a connection rather than fail for want of one, so that the one error they may see
// is the end of that wait; a request that the service had and did not answer would
// fail with Unavailable.
func TestStopAnswersWhatIsInFlight(t *testing.T) {
	t.Parallel()
	for _, front := range []string{"grpc-go", "lean"} {
		t.Run(front+"/memory", func(t *testing.T) { testStopAnswers(t, "--grpc-front", front) })
		t.Run(front+"/redis", func(t *testing.T) {
			testStopAnswers(t, patiently("REDIS_URL=redis://"+redistest.Start(t, redistest.Config{}).Addr, "--grpc-front", front)...)
		})
	}
}

func testStopAnswers(t *testing.T, settings ...string) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, rulesAllowing(1_000_000_000))
	service := harness.StartService(t, path, settings...)
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

// TestSignalsThatComeTogetherAreOne: what a graceful stop saves is saved.
func TestSignalsThatComeTogetherAreOne(t *testing.T) {
	service := harness.StartService(t, writeRules(t, rulesAllowing(1)), "--drain-delay", "100ms", "--snapshot", filepath.Join(t.TempDir(), "snapshot"))
	for range 5 {
		service.Signal(t, syscall.SIGTERM)
	}
	if err := service.AwaitEnd(t); err != nil || !service.Printed("counters saved") {
		t.Errorf("the service ended with %v", err)
	}
}

// TestSecondSignalStopsAtOnce has a service drain for longer than any test may
// take. It goes on answering meanwhile, and a second signal ends it.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "rules.yaml")
			write(t, path, rulesAllowing(1_000_000_000))
			service := harness.StartService(t, path, "--drain-delay", "1h")
			service.Signal(t, signal)
			harness.Eventually(t, "the service is draining", func() bool {
				return httpStatus(t, service.HTTP, "/healthcheck") == http.StatusServiceUnavailable
			})
			service.Ask(t, harness.Request("edge", 1, "user", "alice"))
			harness.Eventually(t, "another signal counts", func() bool { return service.Printed("another signal stops at once") })
			service.Signal(t, signal)
			ended := service.AwaitEnd(t)
			var exit *exec.ExitError
			if !errors.As(ended, &exit) {
				t.Fatalf("the service ended with %v, want the signal", ended)
			}
			if how, ok := exit.Sys().(syscall.WaitStatus); !ok || how.Signal() != signal {
				t.Errorf("the service ended with %v, want %v", ended, signal)
			}
		})
	}
}

// TestStartWithoutRedis starts the service when Redis is away. It serves, as each
// mode says, and with Redis once that is there; and it stops while Redis is away.
func TestStartWithoutRedis(t *testing.T) {
	t.Parallel()
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, rules, `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: year, requests_per_unit: 4, algorithm: sliding_log}}
  - {key: own, rate_limit: {unit: year, requests_per_unit: 4, on_backend_error: allow}}
`)
	const ok, over, unavailable = "OK ", "OVER_LIMIT ", "Unavailable "
	for _, mode := range []struct{ name, want string }{
		{"", unavailable + unavailable + unavailable},
		{"error", unavailable + unavailable + unavailable},
		{"allow", ok + ok + ok},
		{"deny", over + over + over},
		{"local", ok + ok + over}, // of two replicas
	} {
		t.Run("mode="+mode.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.Config{})
			server.Kill()
			settings := patiently("--replicas", "2", "--redis-url", "redis://"+server.Addr)
			if mode.name != "" {
				settings = append(settings, "--on-backend-error", mode.name)
			}
			service := harness.StartService(t, rules, settings...)
			client := rls.NewRateLimitServiceClient(service.Dial(t))
			ask := func(key string, n int) (text string) {
				for range n {
					answer, err := client.ShouldRateLimit(t.Context(), harness.Request("edge", 1, key, mode.name))
					if err != nil {
						text += status.Code(err).String() + " "
					} else {
						text += answer.OverallCode.String() + " "
					}
				}
				return text
			}
			if got := ask("user", 3); got != mode.want {
				t.Errorf("without Redis: %s, want %s", got, mode.want)
			}
			if got := ask("own", 6); got != ok+ok+ok+ok+ok+ok {
				t.Errorf("a rule with a mode of its own: %s", got)
			}
			service.Stop(t) // while Redis is away
			service.Restart(t)
			server.Restart()
			harness.Eventually(t, "Redis is connected", func() bool { return service.Metric(t, "ratelimit_redis_connected") == 1 })
			if got := ask("user", 5); got != ok+ok+ok+ok+over {
				t.Errorf("with Redis: %s", got)
			}
		})
	}
}

// TestStopDoesNotWaitForHandshakes stops the service while clients have connected and say
// nothing, or begin a handshake and leave it there. Ports are probed like that.
func TestStopDoesNotWaitForHandshakes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, rulesAllowing(1_000_000_000))
	for _, c := range []struct{ name, says, drain, front string }{
		{"silent", "", "10m", "grpc-go"}, // of which nothing must be needed
		{"half", "PRI * HTTP/2.0\r\n", "1s", "grpc-go"},
		{"silent, lean front", "", "10m", "lean"},
		{"half, lean front", "PRI * HTTP/2.0\r\n", "1s", "lean"},
	} {
		t.Run(c.name, func(t *testing.T) {
			service := harness.StartService(t, path, "--drain-timeout", c.drain, "--grpc-front", c.front)
			before := service.Metric(t, "ratelimit_grpc_connections")
			conn, err := net.Dial("tcp", service.GRPC)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, c.says); err != nil {
				t.Fatal(err)
			}
			harness.Eventually(t, "the service has the connection", func() bool { return service.Metric(t, "ratelimit_grpc_connections") > before })
			service.Stop(t)
		})
	}
}

// TestRollingUpdate replaces one replica after the other while clients go on, of an
// Envoy that refuses what it cannot have decided. As replicas.yaml asks, a replica
// goes on answering for longer than the interval of Envoy's health checks: without
// that, Envoy may have just connected to a listener that closes, which is neither a
// connect failure nor a refused stream, and so nothing that it retries.
func TestRollingUpdate(t *testing.T) {
	t.Parallel()
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
