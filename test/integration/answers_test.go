package integration

import (
	"net/http"
	"testing"
)

// TestAnswersReachTheClient: what the service adds to an answer, Envoy hands on.
func TestAnswersReachTheClient(t *testing.T) {
	t.Parallel()
	_, envoy := start(t, "http.yaml", `
domain: edge
descriptors:
  - key: user
    rate_limit: {name: per_user, algorithm: sliding_log, unit: year, requests_per_unit: 2, raw_body: "{\"error\": \"slow down\"}"}
`, "--response-headers", "--draft-headers", "--remaining-header", "x-left")
	want := func(header http.Header, name, value string) {
		t.Helper()
		if got := header.Get(name); got != value {
			t.Errorf("%s is %q, want %q; %v", name, got, value, header)
		}
	}
	passed := get(t, envoy, http.StatusOK, "x-user", "alice")
	want(passed.Header, "RateLimit-Limit", "2")
	want(passed.Header, "x-left", "1")
	want(passed.Header, "RateLimit-Policy", `"per_user";q=2;w=31536000`)
	want(passed.Header, "Retry-After", "")
	if passed.Body != "hello\n" {
		t.Errorf("the body is %q", passed.Body)
	}
	get(t, envoy, http.StatusOK, "x-user", "alice")
	refused := get(t, envoy, http.StatusTooManyRequests, "x-user", "alice")
	want(refused.Header, "x-left", "0")
	seconds(t, refused, "RateLimit-Reset")
	seconds(t, refused, "Retry-After")
	if refused.Body != `{"error": "slow down"}` {
		t.Errorf("the body of the refusal is %q", refused.Body)
	}
}
