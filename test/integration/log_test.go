package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/internal/tlsfiles/tlstest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// TestCallersCannotFillTheLog does hundreds of times whatever a caller can do that is worth a
// line of the log: most are left out, and the log says so.
func TestCallersCannotFillTheLog(t *testing.T) {
	t.Parallel()
	const times = 300
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, strings.Repeat("t", 32))
	cert, key := tlstest.NewAuthority(t).Issue("server", "127.0.0.1", time.Hour)

	send := func(addr, text string) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(conn, text)
		_, _ = io.Copy(io.Discard, conn)
	}
	get := func(url string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer wrong")
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
	}
	ask := func(s *harness.Service, r *rls.RateLimitRequest) {
		_, _ = rls.NewRateLimitServiceClient(s.Conn()).ShouldRateLimit(t.Context(), r)
	}
	for _, tt := range []struct {
		name  string
		flags []string
		do    func(s *harness.Service, i int)
		says  string // empty: nothing
		most  int    // lines
	}{
		{"connections beyond the bound", []string{"--max-connections", "1"}, func(s *harness.Service, _ int) { send(s.GRPC, "") }, "too many connections", 10},
		{"what is not HTTP/2", nil, func(s *harness.Service, _ int) { send(s.GRPC, "GET / HTTP/1.0\r\nHost: example\r\n\r\n") }, "", 0},
		{"what is not HTTP", nil, func(s *harness.Service, i int) { send(s.HTTP, fmt.Sprintf("%d\r\n\r\n", i)) }, "", 0},
		{"semicolons in an address", nil, func(s *harness.Service, i int) { get(fmt.Sprintf("http://%s/json?a;%d", s.HTTP, i)) }, "", 0},
		{"no TLS at the admin address", []string{"--admin-tls-cert", cert, "--admin-tls-key", key}, func(s *harness.Service, _ int) { send(s.Admin, "GET / HTTP/1.0\r\n\r\n") }, "TLS handshake error", 20},
		{"wrong tokens", []string{"--admin-token-file", token}, func(s *harness.Service, i int) { get(fmt.Sprintf("http://%s/rlconfig?%d", s.Admin, i)) }, "admin request refused", 110},
		{"unknown domains", nil, func(s *harness.Service, i int) { ask(s, harness.Request(fmt.Sprint("domain", i), 1, "user", "alice")) }, "its domain has no rules", 110},
		{"unknown keys", nil, func(s *harness.Service, i int) { ask(s, harness.Request("edge", 1, fmt.Sprint("key", i), "alice")) }, "it meets no rule", 10},
		{"requests that make no sense", nil, func(s *harness.Service, _ int) { ask(s, &rls.RateLimitRequest{}) }, "a request can't be decided", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := harness.StartService(t, writeRules(t, rulesAllowing(1)), tt.flags...)
			harness.Eventually(t, "the start is over", func() bool { return s.Printed("Try ") })
			before := s.Count("\n")
			for i := range times {
				tt.do(s, i)
			}
			if tt.says != "" {
				harness.Eventually(t, "the log says so", func() bool { return s.Printed(tt.says) })
			}
			if n := s.Count("\n") - before; n > tt.most {
				t.Errorf("%d lines, want at most %d", n, tt.most)
			}
		})
	}
}
