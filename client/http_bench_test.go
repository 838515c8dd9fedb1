package client_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/client"
)

// BenchmarkMiddleware measures how long a request takes that the middleware lets pass, and
// an exempt one, in turns, so that a change of the machine's load meets both alike. The
// service is in the same process, by gRPC over loopback.
func BenchmarkMiddleware(b *testing.B) {
	s := startService("{domain: edge, descriptors: [{key: user, rate_limit: {unit: second, requests_per_unit: 4000000000}}]}")
	b.Cleanup(s.stop)
	c, err := client.Dial(s.addr, client.Options{Timeout: 10 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	limit, err := client.NewMiddleware(c, client.HTTPOptions{
		Domain:      "edge",
		Entries:     []client.HTTPEntry{{Key: "user", Value: client.PeerAddress()}},
		ExemptPaths: []string{"/exempt"},
	})
	if err != nil {
		b.Fatal(err)
	}
	site := httptest.NewServer(limit(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })))
	b.Cleanup(site.Close)
	took := map[string][]time.Duration{}
	for b.Loop() {
		for _, path := range []string{"/exempt", "/limited"} {
			begun := time.Now()
			r, err := http.Get(site.URL + path)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, r.Body)
			r.Body.Close()
			took[path] = append(took[path], time.Since(begun))
			if r.StatusCode != http.StatusOK || (r.Header.Get("RateLimit-Limit") != "") != (path == "/limited") {
				b.Fatal(r.Status, r.Header)
			}
		}
	}
	for path, all := range took {
		slices.Sort(all)
		for _, p := range []int{50, 99} {
			b.ReportMetric(float64(all[(len(all)-1)*p/100].Microseconds()), fmt.Sprintf("µs-p%d%s", p, path))
		}
	}
}
