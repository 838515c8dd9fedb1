package integration

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

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
				if got := sendRaw(t, envoy, request); got.StatusCode != http.StatusTooManyRequests {
					t.Errorf("%s: %s", name, got.Status)
				}
			}
			if n := service.Metric(t, `ratelimit_service_should_rate_limit_error{err_type="service_error"}`); n != 0 {
				t.Errorf("%v requests were not decided", n)
			}
		})
	}
}

// sendRaw sends a request that begins like this, byte by byte.
func sendRaw(t *testing.T, envoy *harness.Envoy, request string) *http.Response {
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
	if _, err := fmt.Fprintf(conn, "%shost: edge\r\nconnection: close\r\n\r\n", request); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer
}
