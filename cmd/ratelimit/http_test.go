package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"google.golang.org/grpc/health"

	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// TestOthersPagesSpendNothing has a page from elsewhere, in a browser on this
// machine, post to /json.
func TestOthersPagesSpendNothing(t *testing.T) {
	rules, err := config.Parse([]config.Source{{Name: "edge.yaml", Data: []byte("domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: day, requests_per_unit: 1}}\n")}}, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := memory.New(memory.Options{})
	defer func() { _ = store.Close() }() // it never fails
	s := &service{decider: server.New(server.Options{Backend: store, Log: zap.NewNop(), Stats: stats.New(0)}), health: health.NewServer()}
	if err := s.decider.SetRules(rules); err != nil {
		t.Fatal(err)
	}
	handler := s.httpHandler()
	for _, tt := range []struct {
		name, value string
		status      int
	}{
		{"Origin", "http://evil.example", http.StatusForbidden},
		{"Origin", "null", http.StatusForbidden},
		{"Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		{"Content-Type", "application/x-www-form-urlencoded", http.StatusOK}, // as curl does
		{"Origin", "http://example.com", http.StatusTooManyRequests},         // its own
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://example.com/json", strings.NewReader(`{"domain": "edge", "descriptors": [{"entries": [{"key": "user", "value": "alice"}]}]}`))
		r.Header.Set(tt.name, tt.value)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%s: %s: %d %s, want %d", tt.name, tt.value, w.Code, w.Body, tt.status)
		}
	}
}
