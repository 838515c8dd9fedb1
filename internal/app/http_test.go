package app

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"google.golang.org/grpc/health"

	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// TestOthersPagesSpendNothing has a page from elsewhere, in a browser on this
// machine, post to /json; by a name of its own, too, that leads here (DNS rebinding).
func TestOthersPagesSpendNothing(t *testing.T) {
	rules, err := rulefile.Parse([]rulefile.Source{{Name: "edge.yaml", Data: []byte("domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: day, requests_per_unit: 1}}\n")}}, rulefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := memory.New(memory.Options{})
	defer func() { _ = store.Close() }() // it never fails
	counts := stats.New(0)
	limits := limiter.New(limiter.Options{Backend: store, Log: zap.NewNop(), Stats: counts})
	s := &service{server: server.New(limits, server.Options{Stats: counts}), health: health.NewServer()}
	if err := limits.SetRules(rules); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		listen, host, name, value string
		status                    int
	}{
		{"0.0.0.0:0", "example.com", "Origin", "http://evil.example", http.StatusForbidden},
		{"0.0.0.0:0", "example.com", "Origin", "null", http.StatusForbidden},
		{"0.0.0.0:0", "example.com", "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		{"127.0.0.1:0", "evil.example", "Origin", "http://evil.example", http.StatusMisdirectedRequest},
		{"127.0.0.1:0", "evil.example:8080", "Content-Type", "application/json", http.StatusMisdirectedRequest},
		{"0.0.0.0:0", "example.com", "Content-Type", "application/x-www-form-urlencoded", http.StatusOK}, // as curl does
		{"0.0.0.0:0", "example.com", "Origin", "http://example.com", http.StatusTooManyRequests},         // its own
		{"127.0.0.1:0", "127.0.0.1:8080", "Origin", "http://127.0.0.1:8080", http.StatusTooManyRequests},
		{"127.0.0.1:0", "localhost", "Content-Type", "application/json", http.StatusTooManyRequests},
		{"127.0.0.1:0", "[::1]:8080", "Content-Type", "application/json", http.StatusTooManyRequests},
	} {
		if s.httpListener, err = net.Listen("tcp", tt.listen); err != nil {
			t.Fatal(err)
		}
		handler := s.httpHandler()
		s.httpListener.Close()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+tt.host+"/json", strings.NewReader(`{"domain": "edge", "descriptors": [{"entries": [{"key": "user", "value": "alice"}]}]}`))
		r.Header.Set(tt.name, tt.value)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%s at %s, %s: %s: %d %s, want %d", tt.host, tt.listen, tt.name, tt.value, w.Code, w.Body, tt.status)
		}
	}
}
