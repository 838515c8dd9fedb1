package integration

import (
	"net/http"
	"testing"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

func TestFailureMode(t *testing.T) {
	t.Parallel()
	service, envoy := start(t, "failure-mode.yaml", example(t, "edge.yaml"))
	const open, closed = 10000, 10001
	ask := func(port int) harness.Answer {
		t.Helper()
		answer, err := envoy.Do(http.MethodGet, port, "/", "x-user", "alice")
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	limited := func(port int) bool {
		answer := ask(port)
		return answer.Status == http.StatusOK && answer.Header.Get("X-Ratelimit-Limit") != ""
	}
	for _, port := range []int{open, closed} {
		if !limited(port) {
			t.Fatalf("port %d: no limit while the service runs", port)
		}
	}
	service.Stop(t)
	for range 3 {
		if answer := ask(open); answer.Status != http.StatusOK || answer.Header.Get("X-Ratelimit-Limit") != "" {
			t.Errorf("open: status %d without the service, want 200 and no limit; %v", answer.Status, answer.Header)
		}
		if answer := ask(closed); answer.Status != http.StatusServiceUnavailable {
			t.Errorf("closed: status %d without the service, want 503; %v", answer.Status, answer.Header)
		}
	}
	service.Restart(t)
	for _, port := range []int{open, closed} {
		harness.Eventually(t, "Envoy reaches the service again", func() bool { return limited(port) })
	}
}
