package server_test

import (
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/server"
)

// TestDraftHeaders compares with what the draft's grammar asks for, at noon.
func TestDraftHeaders(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: a, rate_limit: {name: 'per "user" \ day', unit: day, requests_per_unit: 2}}
  - {key: b, rate_limit: {algorithm: token_bucket, window: 1500ms, requests_per_unit: 3}}
  - {key: c, rate_limit: {name: größer, unit: minute, requests_per_unit: 4}}
  - {key: d, rate_limit: {unlimited: true}}
  - {key: e, rate_limit: {window: {calendar: day}, requests_per_unit: 5}}
limits:
  - name: slots
    match: {slot: {}}
    hold: {by: id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {name: slots, algorithm: concurrency, requests_per_unit: 5}
`, func(o *options) { o.Headers = server.Headers{Draft: true} })
	headers := func(key string) string {
		var text []string
		for _, h := range f.ask(desc(key + "=x")).ResponseHeadersToAdd {
			text = append(text, h.Key+": "+h.Value)
		}
		return strings.Join(text, ", ")
	}
	for _, tt := range []struct{ key, want string }{
		{"a", `RateLimit-Policy: "per \"user\" \\ day";q=2;w=86400, RateLimit: "per \"user\" \\ day";r=1;t=43200`},
		{"b", `RateLimit-Policy: "default";q=3, RateLimit: "default";r=2;t=1`},
		{"c", `RateLimit-Policy: "default";q=4;w=60, RateLimit: "default";r=3;t=60`},
		{"d", ""},
		{"e", `RateLimit-Policy: "default";q=5, RateLimit: "default";r=4;t=43200`},
		{"slot=1,id", `RateLimit-Policy: "slots";q=5;qu="concurrent-requests", RateLimit: "slots";r=4;t=60`},
	} {
		if got := headers(tt.key); got != tt.want {
			t.Errorf("%s:\n%s, want\n%s", tt.key, got, tt.want)
		}
	}
}
