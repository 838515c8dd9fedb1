package client_test

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/client"
)

// site serves what the middleware lets through; the handler answers as long as asked.
func site(t *testing.T, c *client.Client, o client.HTTPOptions) string {
	t.Helper()
	return siteThat(t, c, func() {}, o)
}

// siteThat is site, and calls served when the middleware has done all for a request.
func siteThat(t *testing.T, c *client.Client, served func(), o client.HTTPOptions) string {
	t.Helper()
	if o.Domain == "" {
		o.Domain = "edge"
	}
	if o.Entries == nil {
		o.Entries = []client.HTTPEntry{{Key: "user", Value: client.Header("X-User")}}
	}
	limit, err := client.NewMiddleware(c, o)
	if err != nil {
		t.Fatal(err)
	}
	limited := limit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("bytes"))
		_, _ = io.WriteString(w, strings.Repeat("x", n))
	}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limited.ServeHTTP(w, r)
		served()
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// reply is a response that has been read.
type reply struct {
	status int
	header http.Header
	body   string
}

func get(t *testing.T, method, url, user string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		r.Header.Set("X-User", user)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(body)}
}

func TestMiddlewareAnswers429WithHeaders(t *testing.T) {
	url := site(t, started(t, client.Options{}), client.HTTPOptions{})
	for i := range 10 {
		r := get(t, http.MethodGet, url, "alice")
		if left := r.header.Get("RateLimit-Remaining"); r.status != http.StatusOK || left != strconv.Itoa(9-i) || r.header.Get("RateLimit-Limit") != "10" || r.header.Get("Retry-After") != "" {
			t.Fatalf("request %d: %d %v", i, r.status, r.header)
		}
	}
	r := get(t, http.MethodGet, url, "alice")
	wait, err := strconv.Atoi(r.header.Get("Retry-After"))
	if r.status != http.StatusTooManyRequests || err != nil || wait < 1 || wait > 3600 || r.header.Get("RateLimit-Reset") != r.header.Get("Retry-After") || r.body != "too many requests\n" {
		t.Errorf("the eleventh: %d %v %q", r.status, r.header, r.body)
	}
}

func TestMiddlewareTakesStatusAndBodyFromItsOptions(t *testing.T) {
	url := site(t, started(t, client.Options{}), client.HTTPOptions{Status: 420, Body: `{"error":"slow down"}`, ContentType: "application/json", NoHeaders: true, Cost: func(*http.Request) uint64 { return 11 }})
	r := get(t, http.MethodGet, url, "alice")
	if r.status != 420 || r.body != `{"error":"slow down"}` || r.header.Get("Content-Type") != "application/json" || r.header.Get("RateLimit-Limit") != "" || r.header.Get("Retry-After") == "" {
		t.Errorf("%d %v %q", r.status, r.header, r.body)
	}
}

func TestExemptRequestsAreNotCharged(t *testing.T) {
	url := site(t, started(t, client.Options{}), client.HTTPOptions{ExemptPaths: []string{"/healthz", "/static/*"}, ExemptMethods: []string{http.MethodOptions}})
	for range 3 {
		for _, ask := range [][3]string{{"GET", "/healthz", "alice"}, {"GET", "/static/a/b.png", "alice"}, {"OPTIONS", "/", "alice"}, {"GET", "/", ""}} {
			if r := get(t, ask[0], url+ask[1], ask[2]); r.header.Get("RateLimit-Limit") != "" {
				t.Errorf("%v was charged", ask)
			}
		}
	}
	for _, path := range []string{"/static/../api", "/static/%2e%2e/api", "/static/./a"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-User", "dots")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.Header.Get("RateLimit-Limit") == "" {
			t.Errorf("%s was exempt as one below /static/", path)
		}
	}
	if r := get(t, http.MethodGet, url+"/healthz2", "alice"); r.header.Get("RateLimit-Remaining") != "9" {
		t.Errorf("a path that only begins as an exempt one, or others were charged: %v", r.header)
	}
}

func TestDefaultStandsForAMissingValue(t *testing.T) {
	url := site(t, started(t, client.Options{}), client.HTTPOptions{Entries: []client.HTTPEntry{{Key: "user", Value: client.Header("X-User"), Default: "anonymous"}}})
	get(t, http.MethodGet, url, "")
	if r := get(t, http.MethodGet, url, "anonymous"); r.header.Get("RateLimit-Remaining") != "8" {
		t.Errorf("%v", r.header)
	}
}

func TestPeerAddressTrustsOnlyItsProxies(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		peer, forwarded, want string
		trusted               []netip.Prefix
	}{
		{"192.0.2.1:5", "", "192.0.2.1", nil},
		{"192.0.2.1:5", "203.0.113.9", "192.0.2.1", trusted}, // written by the client
		{"10.0.0.1:5", "203.0.113.9", "203.0.113.9", trusted},
		{"10.0.0.1:5", "198.51.100.7, 203.0.113.9, 10.1.1.1", "203.0.113.9", trusted},
		{"10.0.0.1:5", "", "10.0.0.1", trusted},
		{"10.0.0.1:5", "10.0.0.2", "10.0.0.2", trusted},
		{"10.0.0.1:5", "unknown", "10.0.0.1", trusted},
		{"10.0.0.1:5", "203.0.113.9, unknown", "10.0.0.1", trusted},
		{"10.0.0.1:5", "203.0.113.9", "10.0.0.1", nil},
		{"10.0.0.1:5", "203.0.113.9:1234", "203.0.113.9", trusted},
		{"10.0.0.1:5", "[2001:db8::1]:1234", "2001:db8::1", trusted},
		{"10.0.0.1:5", "[2001:db8::1]", "2001:db8::1", trusted},
		{"[::ffff:192.0.2.1]:5", "", "192.0.2.1", nil},
		{"[fd00::1]:5", "2001:db8::1", "2001:db8::1", trusted},
		{"[fe80::1%eth0]:5", "", "fe80::1", nil},
		{"@", "203.0.113.9", "", trusted},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := client.PeerAddress(c.trusted...)(r); got != c.want {
			t.Errorf("peer %s, forwarded for %q: %q, want %q", c.peer, c.forwarded, got, c.want)
		}
	}
}

func TestCostAfterTheResponseIsCharged(t *testing.T) {
	c := started(t, client.Options{})
	var status atomic.Int64
	charged := make(chan struct{}, 1) // a response has been charged
	url := siteThat(t, c, func() { charged <- struct{}{} }, client.HTTPOptions{
		Entries: []client.HTTPEntry{{Key: "tokens", Value: client.Header("X-User")}},
		CostAfter: func(_ *http.Request, code int, written int64) uint64 {
			status.Store(int64(code))
			return uint64(written)
		},
	})
	left := func() uint32 {
		return decided(t)(c.Peek(t.Context(), "edge", client.Entry{Key: "tokens", Value: "alice"})).Remaining
	}
	// The charge follows the last byte, so a client may be back before it.
	await := func(want uint32) {
		t.Helper()
		<-charged
		if got := left(); got != want {
			t.Fatalf("%d left, want %d", got, want)
		}
	}
	get(t, http.MethodGet, url+"/?bytes=60", "alice")
	await(40)
	if status.Load() != http.StatusOK {
		t.Errorf("status %d", status.Load())
	}
	if r := get(t, http.MethodGet, url+"/?bytes=60", "alice"); r.status != http.StatusOK {
		t.Errorf("40 are left, so a request whose cost nobody knows passes: %d", r.status)
	}
	await(0)
	get(t, http.MethodGet, url+"/?bytes=1", "alice")
	<-charged
	if r := get(t, http.MethodGet, url+"/?bytes=1", "alice"); r.status != http.StatusTooManyRequests {
		t.Errorf("nothing is left: %d", r.status)
	}
}

// costly serves handlers by their paths, and says by which status and bytes each was charged.
func costly(t *testing.T, handlers map[string]http.HandlerFunc) (url string, charged func() [2]int64) {
	t.Helper()
	costs := make(chan [2]int64, 1)
	limit, err := client.NewMiddleware(started(t, client.Options{}), client.HTTPOptions{
		Domain:  "edge",
		Entries: []client.HTTPEntry{{Key: "tokens", Value: func(*http.Request) string { return "all" }}},
		CostAfter: func(_ *http.Request, status int, written int64) uint64 {
			costs <- [2]int64{int64(status), written}
			return 0
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for path, handler := range handlers {
		mux.Handle(path, handler)
	}
	server := httptest.NewUnstartedServer(limit(mux))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of panics
	server.Start()
	t.Cleanup(server.Close)
	return server.URL, func() [2]int64 { return <-costs }
}

func TestResponsesOfEachKindAreCountedAndUnchanged(t *testing.T) {
	sent := make(chan struct{})
	url, charged := costly(t, map[string]http.HandlerFunc{
		"/nothing": func(http.ResponseWriter, *http.Request) {},
		"/early": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, "12")
		},
		"/copy": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<20)))
		},
		"/stream": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "first")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-sent // the client has it
			_, _ = io.WriteString(w, "second")
			w.(http.Flusher).Flush()
		},
		"/deadline": func(w http.ResponseWriter, _ *http.Request) {
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Error(err)
			}
		},
	})
	for path, want := range map[string][2]int64{"/nothing": {200, 0}, "/early": {201, 2}, "/copy": {200, 1 << 20}, "/deadline": {200, 0}, "/gone": {404, 19}} {
		get(t, http.MethodGet, url+path, "")
		if got := charged(); got != want {
			t.Errorf("%s: status and bytes %v, want %v", path, got, want)
		}
	}
	response, err := http.Get(url + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	first := make([]byte, 5)
	if _, err := io.ReadFull(response.Body, first); err != nil || string(first) != "first" {
		t.Fatalf("%q, %v", first, err)
	}
	close(sent)
	if rest, err := io.ReadAll(response.Body); err != nil || string(rest) != "second" {
		t.Errorf("%q, %v", rest, err)
	}
	if got := charged(); got != [2]int64{200, 11} {
		t.Errorf("a stream: %v", got)
	}
}

func TestPanicsGoOnAndAreCharged(t *testing.T) {
	url, charged := costly(t, map[string]http.HandlerFunc{
		"/before": func(http.ResponseWriter, *http.Request) { panic("of tests") },
		"/amid": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	})
	for path, want := range map[string][2]int64{"/before": {500, 0}, "/amid": {200, 4}} {
		if response, err := http.Get(url + path); err == nil {
			if _, err := io.ReadAll(response.Body); err == nil {
				t.Errorf("%s: the panic did not end the connection", path)
			}
			response.Body.Close()
		}
		if got := charged(); got != want {
			t.Errorf("%s: status and bytes %v, want %v", path, got, want)
		}
	}
}

func TestConnectionsCanBeHijacked(t *testing.T) {
	url, charged := costly(t, map[string]http.HandlerFunc{"/": func(w http.ResponseWriter, _ *http.Request) {
		connection, buffered, err := w.(http.Hijacker).Hijack() // as libraries for websockets do
		if err != nil {
			t.Error(err)
			return
		}
		defer connection.Close()
		_, _ = buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
		_ = buffered.Flush()
		line, _ := buffered.ReadString('\n')
		_, _ = buffered.WriteString(line)
		_ = buffered.Flush()
	}})
	connection, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	_, _ = io.WriteString(connection, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhello\n")
	if said, err := io.ReadAll(connection); err != nil || !strings.HasSuffix(string(said), "\r\n\r\nhello\n") {
		t.Errorf("%q, %v", said, err)
	}
	if got := charged(); got[0] != http.StatusSwitchingProtocols {
		t.Errorf("status %d", got[0])
	}
}

// A response of more than 4 GiB costs as much as can be charged at once, and not nothing.
func TestCostBeyondTheLargestIsCharged(t *testing.T) {
	c := started(t, client.Options{})
	charged := make(chan struct{}, 1)
	url := siteThat(t, c, func() { charged <- struct{}{} }, client.HTTPOptions{
		Entries:   []client.HTTPEntry{{Key: "tokens", Value: client.Header("X-User")}},
		CostAfter: func(*http.Request, int, int64) uint64 { return 1 << 33 },
	})
	get(t, http.MethodGet, url, "alice")
	<-charged
	if r := get(t, http.MethodGet, url, "alice"); r.status != http.StatusTooManyRequests {
		t.Errorf("%d after 8 GiB", r.status)
	}
}

func TestFiftyClientsGetExactlyTheLimit(t *testing.T) {
	url := site(t, started(t, client.Options{}), client.HTTPOptions{Entries: []client.HTTPEntry{{Key: "bulk", Value: client.Header("X-User")}}})
	var passed, refused atomic.Int64
	var done sync.WaitGroup
	for range 50 {
		done.Go(func() {
			for range 3 {
				switch r := get(t, http.MethodGet, url, "alice"); r.status {
				case http.StatusOK:
					passed.Add(1)
				case http.StatusTooManyRequests:
					refused.Add(1)
				}
			}
		})
	}
	done.Wait()
	if passed.Load() != 100 || refused.Load() != 50 {
		t.Errorf("%d passed and %d were refused, want 100 and 50", passed.Load(), refused.Load())
	}
}

func TestMiddlewareWithoutADecision(t *testing.T) {
	for mode, want := range map[client.OnError]int{client.Return: 503, client.Allow: 200, client.Deny: 503} {
		url := site(t, dial(t, closed(t), client.Options{Timeout: 50 * time.Millisecond, OnError: mode}), client.HTTPOptions{})
		if r := get(t, http.MethodGet, url, "alice"); r.status != want {
			t.Errorf("mode %d: %d, want %d", mode, r.status, want)
		}
	}
	url := site(t, dial(t, closed(t), client.Options{Timeout: 50 * time.Millisecond}), client.HTTPOptions{
		Failed: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	})
	if r := get(t, http.MethodGet, url, "alice"); r.status != http.StatusBadGateway || !strings.Contains(r.body, "rate-limit service at") {
		t.Errorf("%d %q", r.status, r.body)
	}
}

func TestWrongHTTPOptionsAreNamedAllAtOnce(t *testing.T) {
	_, err := client.NewMiddleware(nil, client.HTTPOptions{Entries: []client.HTTPEntry{{Key: "user"}}, Status: 200, ExemptPaths: []string{"healthz", "/a*b"}})
	for _, want := range []string{"HTTPOptions.Domain", "HTTPOptions.Entries[0]", "HTTPOptions.Status is 200", `"healthz"`, `"/a*b"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if _, err := client.NewMiddleware(nil, client.HTTPOptions{Domain: "edge"}); err == nil || !strings.Contains(err.Error(), "HTTPOptions.Entries is empty") {
		t.Error(err)
	}
}
