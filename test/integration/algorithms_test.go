package integration

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

const year = 365 * 24 * 60 * 60 // s

// Five requests a year by each algorithm; the user's name picks it.
const algorithmRules = `
domain: edge
descriptors:
  - key: user
    value: fixed_window
    rate_limit: {algorithm: fixed_window, unit: year, requests_per_unit: 5}
  - key: user
    value: sliding_window
    rate_limit: {algorithm: sliding_window, unit: year, requests_per_unit: 5}
  - key: user
    value: strict
    rate_limit: {algorithm: sliding_window, unit: year, requests_per_unit: 5, strict: true}
  - key: user
    value: sliding_log
    rate_limit: {algorithm: sliding_log, unit: year, requests_per_unit: 5}
  - key: user
    value: token_bucket
    rate_limit: {algorithm: token_bucket, unit: year, requests_per_unit: 5}
  - key: user
    value: leaky_bucket
    rate_limit: {algorithm: leaky_bucket, unit: year, requests_per_unit: 5, burst: 5}
  - key: user
    value: spaced
    rate_limit: {algorithm: leaky_bucket, unit: year, requests_per_unit: 5}
  - key: user
    value: hybrid
    rate_limit:
      algorithm: hybrid
      token_bucket: {capacity: 5, refill_rate: 1/d}
      sliding_window: {unit: year, requests_per_unit: 5}
  - key: user
    value: hybrid_burst
    rate_limit:
      algorithm: hybrid
      token_bucket: {capacity: 2, refill_rate: 1/d}
      sliding_window: {unit: year, requests_per_unit: 5}
  - key: user
    value: shadow
    shadow_mode: true
    rate_limit: {unit: year, requests_per_unit: 5}
  - key: user
    value: several
    rate_limits:
      - {name: burst, algorithm: token_bucket, unit: year, requests_per_unit: 3}
      - {name: sustained, algorithm: sliding_log, unit: year, requests_per_unit: 5}
`

func TestAlgorithms(t *testing.T) {
	t.Parallel()
	_, envoy := start(t, "http.yaml", algorithmRules)
	for _, tt := range []struct {
		user  string
		pass  int    // requests in a row
		limit string // that the headers report
	}{
		{"fixed_window", 5, "5, 5;w=31536000"},
		{"sliding_window", 5, "5, 5;w=31536000"},
		{"strict", 5, "5, 5;w=31536000"},
		{"sliding_log", 5, "5, 5;w=31536000"},
		{"token_bucket", 5, "5, 5;w=31536000"},
		{"leaky_bucket", 5, "5, 5;w=31536000"},
		{"spaced", 1, "5, 5;w=31536000"},
		{"hybrid", 5, "5, 5;w=31536000"},
		{"hybrid_burst", 2, "5, 5;w=31536000"},
		{"several", 3, `3, 3;w=31536000;name="burst"`},
	} {
		t.Run(tt.user, func(t *testing.T) {
			ask := func(status int) harness.Answer {
				t.Helper()
				answer := get(t, envoy, status, "x-user", tt.user)
				if got := answer.Header.Get("X-Ratelimit-Limit"); got != tt.limit {
					t.Errorf("limit %q, want %q", got, tt.limit)
				}
				seconds(t, answer, "X-Ratelimit-Reset")
				return answer
			}
			for i := range tt.pass {
				answer := ask(http.StatusOK)
				remaining(t, answer, tt.pass-1-i)
				if answer.Body != "hello\n" {
					t.Errorf("body %q is not the upstream's", answer.Body)
				}
			}
			for range 2 {
				answer := ask(http.StatusTooManyRequests)
				remaining(t, answer, 0)
				seconds(t, answer, "Retry-After")
				if answer.Header.Get("X-Envoy-Ratelimited") != "true" {
					t.Errorf("no x-envoy-ratelimited: %v", answer.Header)
				}
			}
		})
	}
}

// seconds fails the test unless the header gives seconds within two years: a
// window, and what a rolling one still sees of the window before.
func seconds(t *testing.T, answer harness.Answer, header string) int {
	t.Helper()
	n, err := strconv.Atoi(answer.Header.Get(header))
	if err != nil || n < 1 || n > 2*year {
		t.Errorf("%s %q, want seconds within two windows; %v", header, answer.Header.Get(header), answer.Header)
	}
	return n
}

func TestShadowModeLetsPassAndCounts(t *testing.T) {
	t.Parallel()
	service, envoy := start(t, "http.yaml", algorithmRules)
	for i := range 8 {
		remaining(t, get(t, envoy, http.StatusOK, "x-user", "shadow"), max(0, 4-i))
	}
	for result, want := range map[string]float64{"allowed": 5, "shadow_denied": 3, "denied": 0} {
		series := fmt.Sprintf(`ratelimit_decisions_total{domain="edge",result=%q,rule="user_shadow"}`, result)
		if got := service.Metric(t, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	// The whole service in shadow mode.
	_, envoy = start(t, "http.yaml", algorithmRules, "--shadow-mode")
	for range 8 {
		get(t, envoy, http.StatusOK, "x-user", "sliding_log")
	}
}

func TestUsersAreSeparate(t *testing.T) {
	t.Parallel()
	_, envoy := start(t, "http.yaml", `
domain: edge
descriptors:
  - key: user
    rate_limit: {algorithm: sliding_log, unit: year, requests_per_unit: 2}
  - key: user
    value: alice
    rate_limit: {algorithm: sliding_log, unit: year, requests_per_unit: 4}
  - key: user
    value: "bot-*"
    share_threshold: true
    rate_limit: {algorithm: sliding_log, unit: year, requests_per_unit: 3}
  - key: user
    value: root
    rate_limit: {unlimited: true}
`)
	exhaust(t, envoy, 4, "x-user", "alice")
	exhaust(t, envoy, 2, "x-user", "bob")
	exhaust(t, envoy, 2, "x-user", "Alice")
	exhaust(t, envoy, 3, "x-user", "bot-1")
	get(t, envoy, http.StatusTooManyRequests, "x-user", "bot-2")
	for i := range 10 {
		get(t, envoy, http.StatusOK, "x-user", "root")
		get(t, envoy, http.StatusOK, "x-user", fmt.Sprint("guest", i))
	}
	for range 10 { // no such descriptor without the header
		get(t, envoy, http.StatusOK)
	}
}
