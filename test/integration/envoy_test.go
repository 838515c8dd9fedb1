package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

func TestEveryConfigurationIsValid(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(harness.Config(t, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			out, err := exec.Command(harness.Tool(t, "envoy"), "--mode", "validate", "--config-path", file).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestUserAddressAndPath(t *testing.T) {
	t.Parallel()
	_, envoy := start(t, "http.yaml", example(t, "edge.yaml"))
	requests := 0 // each of them counts for the address, refused or not
	ask := func(status int, path string, headers ...string) {
		t.Helper()
		requests++
		if answer := envoy.Get(t, path, headers...); answer.Status != status {
			t.Fatalf("request %d, to %s: status %d, want %d; %v", requests, path, answer.Status, status, answer.Header)
		}
	}
	for range 10 {
		ask(http.StatusOK, "/", "x-user", "alice")
	}
	ask(http.StatusTooManyRequests, "/", "x-user", "alice")
	ask(http.StatusOK, "/", "x-user", "bob")

	for i := range 30 {
		ask(http.StatusOK, fmt.Sprintf("/login?attempt=%d", i))
	}
	for _, path := range []string{"//login", "/a/../login", "/%6Cogin", "/%2flogin", "/login/", "/login;x"} { // to many servers
		ask(http.StatusTooManyRequests, path)
	}
	ask(http.StatusOK, "/logout")

	for requests < 300 {
		ask(http.StatusOK, "/")
	}
	ask(http.StatusTooManyRequests, "/")
	ask(http.StatusTooManyRequests, "/", "x-user", "carol")
}

func TestNestedDescriptors(t *testing.T) {
	t.Parallel()
	_, envoy := start(t, "nested.yaml", example(t, "edge.yaml"))
	post := func(status int, headers ...string) {
		t.Helper()
		answer, err := envoy.Do(http.MethodPost, 10000, "/", headers...)
		if err != nil || answer.Status != status {
			t.Fatalf("POST with %v: status %d, want %d; %v, error %v", headers, answer.Status, status, answer.Header, err)
		}
	}
	// A user's writes have the least room, then all of the user's requests.
	for range 2 {
		post(http.StatusOK, "x-plan", "free", "x-user", "alice")
	}
	post(http.StatusTooManyRequests, "x-plan", "free", "x-user", "alice")
	exhaust(t, envoy, 10-3, "x-plan", "free", "x-user", "alice")
	remaining(t, get(t, envoy, http.StatusOK, "x-plan", "free", "x-user", "bob"), 9)
	// The same user on another plan has another counter, and no limit on writes.
	remaining(t, get(t, envoy, http.StatusOK, "x-plan", "pro", "x-user", "alice"), 599)
	for range 3 {
		post(http.StatusOK, "x-plan", "pro", "x-user", "alice")
	}
	// All free users together: 12 requests so far.
	remaining(t, get(t, envoy, http.StatusOK, "x-plan", "free"), 1000-13)
	// A plan that no rule names is not limited.
	if answer := get(t, envoy, http.StatusOK, "x-plan", "gold", "x-user", "alice"); answer.Header.Get("X-Ratelimit-Limit") != "" {
		t.Errorf("a limit where no rule gives one: %v", answer.Header)
	}
}

func TestAddressesBehindLoadBalancer(t *testing.T) {
	t.Parallel()
	service, envoy := start(t, "per-address.yaml", example(t, "edge.yaml"))
	const client, neighbour, stranger = "192.0.2.7", "192.0.2.8", "198.51.100.1"
	exhaust(t, envoy, 300, "x-forwarded-for", client)
	// What the client says of itself does not help it.
	get(t, envoy, http.StatusTooManyRequests, "x-forwarded-for", stranger+", "+client)
	get(t, envoy, http.StatusOK, "x-forwarded-for", neighbour)
	get(t, envoy, http.StatusOK, "x-forwarded-for", stranger)

	service.Ask(t, harness.Request("edge", 3000-20, "masked_remote_address", "2001:db8:1:2::/64"))
	for i := range 20 {
		get(t, envoy, http.StatusOK, "x-forwarded-for", fmt.Sprintf("2001:db8:1:2::%x", i+1))
	}
	get(t, envoy, http.StatusTooManyRequests, "x-forwarded-for", "2001:db8:1:2:ffff::1")
	get(t, envoy, http.StatusOK, "x-forwarded-for", "2001:db8:1:3::1")
}

func TestDryRunRefusesNobodyUntilEnforced(t *testing.T) {
	t.Parallel()
	_, envoy := start(t, "dry-run.yaml", example(t, "edge.yaml"))
	for range 10 {
		if answer := get(t, envoy, http.StatusOK, "x-user", "alice"); answer.Header.Get("X-Envoy-Ratelimited") != "" {
			t.Fatalf("within the limit, but marked as over it: %v", answer.Header)
		}
	}
	if answer := get(t, envoy, http.StatusOK, "x-user", "alice"); answer.Header.Get("X-Envoy-Ratelimited") != "true" {
		t.Errorf("over the limit, but not marked as such: %v", answer.Header)
	}
	stats, err := envoy.Do(http.MethodGet, 9901, "/stats?filter=upstream.ratelimit")
	if err != nil || !strings.Contains(stats.Body, "cluster.upstream.ratelimit.over_limit: 1\n") {
		t.Errorf("Envoy counts %q, error %v; want over_limit: 1", stats.Body, err)
	}
	if _, err := envoy.Do(http.MethodPost, 9901, "/runtime_modify?ratelimit.enforced=100"); err != nil {
		t.Fatal(err)
	}
	get(t, envoy, http.StatusTooManyRequests, "x-user", "alice")
}

// TestSoftLimitMarksWhatPasses: the service behind Envoy sees the mark of a limit in
// shadow mode, and none that a client has set.
func TestSoftLimitMarksWhatPasses(t *testing.T) {
	t.Parallel()
	_, envoy := start(t, "soft-limit.yaml", `
domain: edge
descriptors:
  - key: user
    rate_limits:
      - {unit: year, requests_per_unit: 3}
      - {unit: year, requests_per_unit: 1, shadow_mode: true, request_headers: {X-Over-Limit: soft}}
`)
	for i, want := range []string{"", "soft", "soft"} {
		if got := get(t, envoy, http.StatusOK, "x-user", "alice", "x-over-limit", "forged").Header.Values("X-Upstream-Saw"); strings.Join(got, " ") != want {
			t.Errorf("request %d: the service saw %q, want %q", i+1, got, want)
		}
	}
	get(t, envoy, http.StatusTooManyRequests, "x-user", "alice")
}

// TestAccessLogSaysWhichRule refused a request, and which would have but for shadow mode.
func TestAccessLogSaysWhichRule(t *testing.T) {
	t.Parallel()
	_, envoy := start(t, "access-log.yaml", `
domain: edge
descriptors:
  - {key: user, rate_limit: {name: per_user, unit: year, requests_per_unit: 1}}
  - {key: plan, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 1}}
`, "--why-metadata")
	get(t, envoy, http.StatusOK, "x-user", "alice", "x-plan", "free")
	get(t, envoy, http.StatusTooManyRequests, "x-user", "alice", "x-plan", "free")
	var lines []map[string]any
	harness.Eventually(t, "two lines of the access log", func() bool {
		lines = nil
		for line := range strings.Lines(envoy.Output()) {
			var fields map[string]any
			if json.Unmarshal([]byte(line), &fields) == nil && fields["path"] == "/" {
				lines = append(lines, fields)
			}
		}
		return len(lines) == 2
	})
	for field, want := range map[string]any{
		"status": 200.0, "rule": nil, "limit": nil, "descriptor": nil, "left": nil, "shadow_rule": nil,
	} {
		if got := lines[0][field]; got != want {
			t.Errorf("passed: %s: %v, want %v", field, got, want)
		}
	}
	for field, want := range map[string]any{
		"status": 429.0, "flags": "RL", "rule": "user", "limit": "per_user: fixed_window, 1 per year", "descriptor": "user=alice", "left": 0.0,
		"shadow_rule": "plan", "shadow_limit": "fixed_window, 1 per year",
	} {
		if got := lines[1][field]; got != want {
			t.Errorf("refused: %s: %v, want %v", field, got, want)
		}
	}
	if wait, ok := lines[1]["retry_after_seconds"].(float64); !ok || wait < 1 {
		t.Errorf("refused: retry_after_seconds: %v", lines[1]["retry_after_seconds"])
	}
}
