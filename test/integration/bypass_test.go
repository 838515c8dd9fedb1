package integration

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	requests "github.com/distlimiter/ratelimit/internal/server/wire"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// TestNothingThatAClientSendsLiftsItsLimits holds that a client who has used up the limit of
// its address is refused whatever else it sends. A request that the service can't decide would
// pass, because failure_mode_deny is false.
func TestNothingThatAClientSendsLiftsItsLimits(t *testing.T) {
	for name, flags := range map[string][]string{
		"grpc-go": nil, "lean": {"--grpc-front", "lean"}, "traced": {"--tracing"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "traced" {
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1") // nobody is there
			}
			service, envoy := start(t, "http.yaml", `
domain: edge
descriptors:
  - key: remote_address
    rate_limit: {unit: year, requests_per_unit: 2}
  - key: user
    detailed_metric: true
    rate_limit: {unit: year, requests_per_unit: 100}
  - key: path
    rate_limit: {unit: year, requests_per_unit: 100}
`, append(flags, "--why-metadata", "--dynamic-metadata")...)
			exhaust(t, envoy, 2)
			for name, request := range map[string]string{
				"a header that is not UTF-8": "GET / HTTP/1.1\r\nx-user: a\xff\xfeb\r\n",
				"half a character":           "GET / HTTP/1.1\r\nx-user: \xc3\r\n",
				"a long header":              "GET / HTTP/1.1\r\nx-user: " + strings.Repeat("x", 58<<10) + "\r\n",
				"a long one, not UTF-8":      "GET / HTTP/1.1\r\nx-user: " + strings.Repeat("\xffx", 29<<10) + "\r\n",
				"a long path":                "GET /" + strings.Repeat("x", 58<<10) + " HTTP/1.1\r\n",
				"an escaped path":            "GET /" + strings.Repeat("%ff", 19<<10) + " HTTP/1.1\r\n",
			} {
				if got := sendRaw(t, envoy, request, ""); got != http.StatusTooManyRequests {
					t.Errorf("%s: %d", name, got)
				}
			}
			if n := service.Metric(t, `ratelimit_service_should_rate_limit_error{err_type="service_error"}`); n != 0 {
				t.Errorf("%v requests were not decided", n)
			}
		})
	}
}

// TestALongHeaderInEveryDescriptorLiftsNoLimit holds that the longest header that Envoy takes
// is decided even if it is in all the descriptors that a request may have. The client chooses
// how long the message is.
func TestALongHeaderInEveryDescriptorLiftsNoLimit(t *testing.T) {
	for _, front := range []string{"grpc-go", "lean"} {
		t.Run(front, func(t *testing.T) {
			service := startService(t, `
domain: edge
descriptors:
  - key: remote_address
    rate_limit: {unit: year, requests_per_unit: 2}
`, "--grpc-front", front)
			const user = "                        - actions:\n                            - request_headers: {header_name: x-user, descriptor_key: user}\n"
			envoy := startEdited(t, service, user, strings.Repeat(user, requests.DefaultMaxDescriptors-2)) // beside address and path
			exhaust(t, envoy, 2)
			if got := sendRaw(t, envoy, "GET / HTTP/1.1\r\nx-user: "+strings.Repeat("x", 58<<10)+"\r\n", ""); got != http.StatusTooManyRequests {
				t.Errorf("status %d", got)
			}
		})
	}
}

// TestCaseOfAPathLiftsNoLimit: with the expression that envoy/http.yaml has in a comment, all
// spellings of a path that differ in case are one.
func TestCaseOfAPathLiftsNoLimit(t *testing.T) {
	service := startService(t, `
domain: edge
descriptors:
  - key: path
    value: /login*
    share_threshold: true
    rate_limit: {unit: year, requests_per_unit: 2}
`)
	envoy := startEdited(t, service, "text: request.url_path\n", "", "#text:", "text:")
	for i, path := range []string{"/login", "/LOGIN", "/Login/", "/%4cogin", "/login"} {
		want := http.StatusOK
		if i >= 2 {
			want = http.StatusTooManyRequests
		}
		if answer := envoy.Get(t, path); answer.Status != want {
			t.Errorf("request %d, to %s: status %d, want %d", i+1, path, answer.Status, want)
		}
	}
	if answer := envoy.Get(t, "/LOGOUT"); answer.Status != http.StatusOK {
		t.Errorf("another path: status %d", answer.Status)
	}
}

// startEdited runs Envoy with http.yaml, in which each old text, which must be there once, is
// replaced by the new one after it.
func startEdited(t *testing.T, service *harness.Service, oldNew ...string) *harness.Envoy {
	t.Helper()
	config, err := os.ReadFile(harness.Config(t, "http.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(oldNew); i += 2 {
		if n := strings.Count(string(config), oldNew[i]); n != 1 {
			t.Fatalf("http.yaml has changed: it has %q %d times", oldNew[i], n)
		}
	}
	return harness.StartEnvoyConfig(t, strings.NewReplacer(oldNew...).Replace(string(config)), service)
}

// TestNoEstimateEvadesTheBudget holds that nothing passes when the budget of a user is used up,
// whatever number of tokens a request names. For a number that is negative or too large Envoy
// sends no descriptor.
func TestNoEstimateEvadesTheBudget(t *testing.T) {
	service, envoy := start(t, "llm-budget.yaml", example(t, "llm-budget.yaml"))
	const request = "POST /v1/chat/completions HTTP/1.1\r\nx-user: %s\r\n"
	service.Ask(t, harness.Request("llm_budget", 100_000, "user", "alice", "request_id", "1", "phase", "done"))
	for _, body := range []string{
		"", "{}", `{"max_tokens": 0}`, `{"max_tokens": 1}`, `{"max_tokens": 1000000}`, `{"max_completion_tokens": 1}`,
		`{"max_tokens": -1}`, `{"max_tokens": 1000001}`, `{"max_tokens": 1e30}`, `{"max_tokens": 99999999999999999999}`,
		`{"max_tokens": "-1"}`, `{"max_tokens": "nan"}`, `{"max_tokens": "much"}`, `{"max_tokens": null}`, `{"max_tokens": []}`,
		`{"max_completion_tokens": -1}`, `{"max_tokens": 1, "max_tokens": -1}`, "not JSON",
	} {
		for _, kind := range []string{"application/json", "text/plain"} {
			got := sendRaw(t, envoy, fmt.Sprintf(request, "alice")+"content-type: "+kind+"\r\n", body)
			if got != http.StatusTooManyRequests && got != http.StatusForbidden {
				t.Errorf("%s, %s: %d", kind, body, got)
			}
		}
	}
	// Another user has the whole budget. What the body is called does not change what it reserves.
	for _, kind := range []string{"application/json", "text/plain"} {
		for body, status := range map[string]int{
			`{"max_tokens": 90000}`: http.StatusOK, `{"max_tokens": 100001}`: http.StatusTooManyRequests,
			// Nothing would be reserved.
			`{"max_tokens": 0}`: http.StatusForbidden, `{"max_tokens": 0.5}`: http.StatusForbidden,
		} {
			if got := sendRaw(t, envoy, fmt.Sprintf(request, kind)+"content-type: "+kind+"\r\n", body); got != status {
				t.Errorf("%s, %s: %d, want %d", kind, body, got, status)
			}
		}
	}
}

// TestAClientThatLeavesPays: with the filter that envoy/llm-budget.yaml has in a comment, a
// request whose answer the client does not await costs 4096, and no other does.
func TestAClientThatLeavesPays(t *testing.T) {
	service, back := startService(t, example(t, "llm-budget.yaml"), "--backend", "memory"), startBackEnd(t)
	envoy := inFrontOf(t, back, "llm-budget.yaml", "", service, func(config string) string {
		filter := regexp.MustCompile(`(?m)^( +)#(- name: envoy.filters.http.set_metadata|  .*)$`)
		if n := len(filter.FindAllString(config, -1)); n != 5 {
			t.Fatalf("the filter has %d lines", n)
		}
		return filter.ReplaceAllString(config, "$1$2")
	})
	left := func(user string) uint32 {
		return service.Ask(t, harness.Request("llm_budget", 0, "user", user, "request_id", "look")).GetStatuses()[0].GetLimitRemaining()
	}
	ask := func(ctx context.Context, user, body string) (*http.Response, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, envoy.URL(10000, "/v1/chat/completions"), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("x-user", user)
		return http.DefaultTransport.RoundTrip(request)
	}
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		back.await(1)
		leave()
	}()
	if answer, err := ask(ctx, "leaves", `{"max_tokens": 1000}`); err == nil {
		answer.Body.Close()
		t.Fatal(answer.Status)
	}
	harness.Eventually(t, "who leaves has paid", func() bool { return left("leaves") == 100_000-4096 })
	harness.Eventually(t, "the back end has seen that it left", func() bool { return back.inFlight.Load() == 0 }) // or it takes the next answer
	go func() {
		back.goOn <- func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"usage": {"total_tokens": 400}}`)
		}
	}()
	for user, body := range map[string]string{"stays": `{"max_tokens": 1000}`, "is refused": `{"max_tokens": 100001}`} {
		answer, err := ask(t.Context(), user, body)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	harness.Eventually(t, "who stays has paid the price", func() bool { return left("stays") == 100_000-400 })
	if n := left("is refused"); n != 100_000 {
		t.Errorf("%d are left of whom is refused", n)
	}
}

// sendRaw sends a request that begins like this, byte by byte, and has the body. It returns
// the status of the answer.
func sendRaw(t *testing.T, envoy *harness.Envoy, request, body string) int {
	t.Helper()
	at, err := url.Parse(envoy.URL(10000, ""))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", at.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%shost: edge\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s", request, len(body), body); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}
