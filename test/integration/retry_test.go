package integration

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// Each algorithm at three rates: one that is soon open again, one that is used up for
// minutes or hours, and one that a request of the test can never meet.
const retryRules = `
domain: edge
descriptors:
  - {key: user, value: fixed_window, rate_limit: {algorithm: fixed_window, window: 2s, requests_per_unit: 3}}
  - {key: user, value: sliding_window, rate_limit: {algorithm: sliding_window, window: 2s, requests_per_unit: 3}}
  - {key: user, value: strict, rate_limit: {algorithm: sliding_window, window: 2s, requests_per_unit: 3, strict: true}}
  - {key: user, value: sliding_log, rate_limit: {algorithm: sliding_log, window: 2s, requests_per_unit: 3}}
  - {key: user, value: token_bucket, rate_limit: {algorithm: token_bucket, window: 3s, requests_per_unit: 2}}
  - {key: user, value: leaky_bucket, rate_limit: {algorithm: leaky_bucket, window: 1500ms, requests_per_unit: 1}}
  - {key: user, value: hybrid, rate_limit: {algorithm: hybrid, window: 2s, requests_per_unit: 4, burst: 2}}
  - {key: user, value: several, rate_limits: [{algorithm: token_bucket, window: 3s, requests_per_unit: 2}, {algorithm: sliding_log, window: 2s, requests_per_unit: 2}]}
  - {key: user, value: slow_fixed_window, rate_limit: {algorithm: fixed_window, unit: year, requests_per_unit: 3}}
  - {key: user, value: slow_sliding_log, rate_limit: {algorithm: sliding_log, unit: hour, requests_per_unit: 3}}
  - {key: user, value: slow_token_bucket, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 36, burst: 3}}
  - {key: user, value: slow_leaky_bucket, rate_limit: {algorithm: leaky_bucket, unit: hour, requests_per_unit: 36, burst: 3}}
  - {key: user, value: slow_several, rate_limits: [{algorithm: sliding_log, unit: hour, requests_per_unit: 3}, {algorithm: token_bucket, unit: hour, requests_per_unit: 36, burst: 3}]}
`

// TestRetryAfterIsWhenTheRequestPasses: Envoy makes its header of the status, and
// leaves ours alone where there is one. Both say the same, whatever else is shown.
func TestRetryAfterIsWhenTheRequestPasses(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{nil, {"--draft-headers"}, {"--response-headers", "--draft-headers"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			t.Parallel()
			_, envoy := start(t, "http.yaml", retryRules, flags...)
			users := []string{"fixed_window", "sliding_window", "strict", "sliding_log", "token_bucket", "leaky_bucket", "hybrid", "several"}
			until := make([]time.Time, len(users)) // each waits as it is told
			for i, user := range users {
				refused := untilRefused(t, envoy, user)
				until[i] = time.Now().Add(time.Duration(seconds(t, refused, "Retry-After")) * time.Second)
			}
			for i, user := range users {
				time.Sleep(time.Until(until[i]))
				if answer := envoy.Get(t, "/", "x-user", user); answer.Status != http.StatusOK {
					t.Errorf("%s: refused again after the wait: %v", user, answer.Header)
				}
			}
			for _, tt := range []struct {
				user        string
				wait, whole int // s; 0: the end of the year
			}{
				{"slow_fixed_window", 0, 0},
				{"slow_sliding_log", 3600, 3600},
				{"slow_token_bucket", 100, 300},
				{"slow_leaky_bucket", 100, 300},
				{"slow_several", 3600, 3600},
			} {
				t.Run(tt.user, func(t *testing.T) {
					refused := untilRefused(t, envoy, tt.user)
					if tt.wait == 0 {
						tt.wait = year - int(time.Now().Unix()%year)
						tt.whole = tt.wait
					}
					about := func(name string, got, want int) {
						t.Helper()
						if got > want+1 || got < want-20 { // a busy machine
							t.Errorf("%s is %d, want about %d; %v", name, got, want, refused.Header)
						}
					}
					about("Retry-After", seconds(t, refused, "Retry-After"), tt.wait)
					about("x-ratelimit-reset", seconds(t, refused, "X-Ratelimit-Reset"), tt.wait)
					if len(flags) > 0 {
						_, again, _ := strings.Cut(refused.Header.Get("RateLimit"), ";t=")
						whole, err := strconv.Atoi(again)
						if err != nil {
							t.Fatalf("RateLimit: %q: %v", refused.Header.Get("RateLimit"), err)
						}
						about("t", whole, tt.whole)
					}
					if len(flags) > 1 {
						about("RateLimit-Reset", seconds(t, refused, "RateLimit-Reset"), tt.whole)
					}
				})
			}
		})
	}
}

// untilRefused makes requests of a user until one is refused.
func untilRefused(t *testing.T, envoy *harness.Envoy, user string) harness.Answer {
	t.Helper()
	for range 1000 {
		if answer := envoy.Get(t, "/", "x-user", user); answer.Status == http.StatusTooManyRequests {
			return answer
		}
	}
	t.Fatal("no request is refused")
	return harness.Answer{}
}

// TestLimitOfDynamicMetadata has Envoy hand on a limit that a filter before it gives.
// Of such a limit Envoy 1.40 reads requests_per_unit and unit, and no multiplier.
func TestLimitOfDynamicMetadata(t *testing.T) {
	t.Parallel()
	config, err := os.ReadFile(harness.Config(t, "http.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(config)
	for _, edit := range []struct{ before, add string }{
		{"                  # After the filters that establish", `                  - name: envoy.filters.http.set_metadata
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config
                      metadata:
                        - metadata_namespace: plan
                          value: {limit: {requests_per_unit: 2, unit: DAY}}
`},
		{"                        # remote_address=", `                          limit: {dynamic_metadata: {metadata_key: {key: plan, path: [{key: limit}]}}}
`},
	} {
		if strings.Count(text, edit.before) != 1 {
			t.Fatalf("http.yaml has changed: no %q", edit.before)
		}
		text = strings.Replace(text, edit.before, edit.add+edit.before, 1)
	}
	// The bucket of a tenth is one of a tenth of the limit that comes, rounded up.
	service := startService(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 1000, burst: 100}}\n")
	envoy := harness.StartEnvoyConfig(t, text, service)
	get(t, envoy, http.StatusOK, "x-user", "alice")
	refused := get(t, envoy, http.StatusTooManyRequests, "x-user", "alice")
	if got := seconds(t, refused, "Retry-After"); got > 43200 || got < 43200-20 {
		t.Errorf("Retry-After is %d, want about %d; %v", got, 43200, refused.Header)
	}
}
