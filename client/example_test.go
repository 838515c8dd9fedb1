package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/distlimiter/ratelimit/client"
)

const exampleRules = `
domain: shop
descriptors:
  - key: user
    rate_limit: {name: per_user, algorithm: token_bucket, unit: minute, requests_per_unit: 2}
`

func Example() {
	s := startService(exampleRules) // in a program: a service that runs
	defer s.stop()

	limits, err := client.Dial(s.addr, client.Options{OnError: client.Allow})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()

	for range 3 {
		d, err := limits.Allow(context.Background(), "shop", client.Entry{Key: "user", Value: "alice"})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(d.Allowed, d.Remaining, d.RetryAfter)
	}
	// Output:
	// true 1 0s
	// true 0 0s
	// false 0 30s
}

func ExampleNewMiddleware() {
	s := startService(exampleRules)
	defer s.stop()
	limits, err := client.Dial(s.addr, client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()

	limit, err := client.NewMiddleware(limits, client.HTTPOptions{
		Domain:      "shop",
		Entries:     []client.HTTPEntry{{Key: "user", Value: client.Header("X-User"), Default: "anonymous"}},
		ExemptPaths: []string{"/healthz"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	site := httptest.NewServer(limit(hello))
	defer site.Close()

	for range 3 {
		r, err := http.Get(site.URL)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		fmt.Printf("%d %q left %s, again in %q\n", r.StatusCode, body, r.Header.Get("RateLimit-Remaining"), r.Header.Get("Retry-After"))
	}
	// Output:
	// 200 "hello" left 1, again in ""
	// 200 "hello" left 0, again in ""
	// 429 "too many requests\n" left 0, again in "30"
}
