package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// HTTPOptions say how [NewMiddleware] limits the requests of an HTTP server.
type HTTPOptions struct {
	// Domain is that of the rules. Required.
	Domain string
	// Entries make the descriptor of a request. Required.
	Entries []HTTPEntry
	// ExemptPaths are not limited: paths, or starts of paths that end in *.
	ExemptPaths []string
	// ExemptMethods are not limited, such as OPTIONS.
	ExemptMethods []string
	// Cost returns how many hits a request takes; nil: 1, or 0 beside CostAfter.
	Cost func(*http.Request) uint64
	// CostAfter returns the hits that are charged when the handler has returned, by the status
	// and the bytes of the body of its response; nil: none. The status is 101 after a Hijack,
	// whose bytes are not counted, and 500 if the handler has panicked before it wrote
	// anything. The rule should have denied_hits: count, so that they are charged although
	// they exceed what is left.
	CostAfter func(r *http.Request, status int, written int64) uint64
	// Status and Body are the answer to a refused request; 0: 429, and empty: the body that
	// the rules have, or a sentence. ContentType is of Body; empty: text/plain.
	Status      int
	Body        string
	ContentType string
	// NoHeaders leaves out RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset, and what
	// the service itself wants added. Refusals have Retry-After all the same.
	NoHeaders bool
	// Failed answers a request about which there is no decision, if the client has [Return] or
	// [Deny]; nil: with status 503.
	Failed func(w http.ResponseWriter, r *http.Request, err error)
}

// HTTPEntry makes one entry of a descriptor.
type HTTPEntry struct {
	// Key is that of the entry. Required.
	Key string
	// Value returns its value, such as [Header] and [PeerAddress] do, or a function that
	// reads a claim which the program has verified. Required. Empty: the request has none.
	Value func(*http.Request) string
	// Default is taken where Value is empty. If that is empty too, the request is not limited,
	// as with Envoy's actions.
	Default string
}

// Header returns the value of a request header, which any client can choose.
func Header(name string) func(*http.Request) string {
	return func(r *http.Request) string { return r.Header.Get(name) }
}

// PeerAddress returns the IP address that a request comes from: the peer's, or behind
// trusted proxies the last address of X-Forwarded-For that is not one of theirs. Others
// can write what they like into that header. An IPv4 address in IPv6 is written as IPv4.
func PeerAddress(trusted ...netip.Prefix) func(*http.Request) string {
	isTrusted := func(a netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return func(r *http.Request) string {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			host = r.RemoteAddr
		}
		at, err := netip.ParseAddr(host)
		if err != nil {
			return "" // a Unix socket
		}
		at = at.Unmap().WithZone("")
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for _, hop := range slices.Backward(hops) {
			if !isTrusted(at) {
				break
			}
			before, err := hopAddress(strings.TrimSpace(hop))
			if err != nil {
				break // no proxy that is trusted writes that
			}
			at = before.Unmap().WithZone("")
		}
		return at.String()
	}
}

// hopAddress reads an address that a proxy has written. Some add a port, or brackets.
func hopAddress(hop string) (netip.Addr, error) {
	if at, err := netip.ParseAddrPort(hop); err == nil {
		return at.Addr(), nil
	}
	if inside, is := strings.CutPrefix(hop, "["); is {
		hop = strings.TrimSuffix(inside, "]")
	}
	return netip.ParseAddr(hop)
}

// check returns what is wrong with the options, and the remedy.
func (o *HTTPOptions) check() error {
	var wrong []error
	if o.Domain == "" {
		wrong = append(wrong, errors.New("client: HTTPOptions.Domain is empty: name one that the service has rules for"))
	}
	if len(o.Entries) == 0 {
		wrong = append(wrong, errors.New(`client: HTTPOptions.Entries is empty: give at least one, such as {Key: "remote_address", Value: client.PeerAddress()}`))
	}
	for i, e := range o.Entries {
		if e.Key == "" || e.Value == nil {
			wrong = append(wrong, fmt.Errorf("client: HTTPOptions.Entries[%d] needs a Key and a Value", i))
		}
	}
	if o.Status != 0 && (o.Status < 400 || o.Status > 599) {
		wrong = append(wrong, fmt.Errorf("client: HTTPOptions.Status is %d: use an error, such as 429", o.Status))
	}
	for _, p := range o.ExemptPaths {
		if !strings.HasPrefix(p, "/") || strings.Contains(strings.TrimSuffix(p, "*"), "*") {
			wrong = append(wrong, fmt.Errorf("client: HTTPOptions.ExemptPaths has %q: write a path such as /healthz, or the start of paths such as /static/*", p))
		}
	}
	return errors.Join(wrong...)
}

// NewMiddleware returns what limits the requests to an HTTP handler. The error names the
// options that are wrong.
func NewMiddleware(c *Client, o HTTPOptions) (func(http.Handler) http.Handler, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { o.serve(c, next, w, r) })
	}, nil
}

func (o *HTTPOptions) serve(c *Client, next http.Handler, w http.ResponseWriter, r *http.Request) {
	entries := o.entries(r)
	if entries == nil {
		next.ServeHTTP(w, r)
		return
	}
	cost := uint64(1)
	switch {
	case o.Cost != nil:
		cost = o.Cost(r)
	case o.CostAfter != nil:
		cost = 0
	}
	d, err := c.AllowN(r.Context(), o.Domain, cost, entries...)
	if err == nil && !d.Allowed {
		err = d.Err
	}
	if err != nil {
		o.fail(w, r, err)
		return
	}
	if !o.NoHeaders {
		d.setHeaders(w.Header())
	}
	if !d.Allowed {
		o.refuse(w, d)
		return
	}
	if o.CostAfter == nil {
		next.ServeHTTP(w, r)
		return
	}
	counted := &countingWriter{ResponseWriter: w, status: http.StatusInternalServerError}
	defer func() { // also after a panic of the handler
		if n := min(o.CostAfter(r, counted.status, counted.written), math.MaxUint32); n > 0 {
			// The answer has been given: whether it was charged changes nothing of it.
			_, _ = c.AllowN(context.WithoutCancel(r.Context()), o.Domain, n, entries...)
		}
	}()
	next.ServeHTTP(counted, r)
	counted.begin(http.StatusOK) // if it has written nothing
}

// entries returns the descriptor of a request; nil if it is not limited.
func (o *HTTPOptions) entries(r *http.Request) []Entry {
	if slices.Contains(o.ExemptMethods, r.Method) {
		return nil
	}
	// What /static/../api leads to is up to the handler, so no start of it makes it exempt.
	plain := !slices.ContainsFunc(strings.Split(r.URL.Path, "/"), func(s string) bool { return s == "." || s == ".." })
	for _, p := range o.ExemptPaths {
		if start, starts := strings.CutSuffix(p, "*"); r.URL.Path == p || plain && starts && strings.HasPrefix(r.URL.Path, start) {
			return nil
		}
	}
	entries := make([]Entry, 0, len(o.Entries))
	for _, e := range o.Entries {
		value := e.Value(r)
		if value == "" {
			value = e.Default
		}
		if value == "" {
			return nil
		}
		entries = append(entries, Entry{e.Key, value})
	}
	return entries
}

// setHeaders adds the headers that the service wants, or else those of the limit.
func (d *Decision) setHeaders(h http.Header) {
	if len(d.Header) > 0 {
		for name, values := range d.Header {
			h[http.CanonicalHeaderKey(name)] = values
		}
		return
	}
	if d.Limit == nil {
		return
	}
	h.Set("RateLimit-Limit", strconv.FormatUint(uint64(d.Limit.Requests), 10))
	h.Set("RateLimit-Remaining", strconv.FormatUint(uint64(d.Remaining), 10))
	h.Set("RateLimit-Reset", seconds(max(d.ResetAfter, d.RetryAfter)))
}

// seconds is a duration in whole seconds, rounded up.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

func (o *HTTPOptions) refuse(w http.ResponseWriter, d Decision) {
	h := w.Header()
	if h.Get("Retry-After") == "" && d.RetryAfter > 0 {
		h.Set("Retry-After", seconds(d.RetryAfter))
	}
	body, contentType := o.Body, o.ContentType
	if body == "" {
		body, contentType = string(d.Body), h.Get("Content-Type")
	}
	if body == "" {
		body = "too many requests\n"
	}
	if contentType == "" {
		contentType = "text/plain; charset=utf-8"
	}
	h.Set("Content-Type", contentType)
	code := o.Status
	if code == 0 {
		code = http.StatusTooManyRequests
	}
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body))
}

func (o *HTTPOptions) fail(w http.ResponseWriter, r *http.Request, err error) {
	if o.Failed != nil {
		o.Failed(w, r, err)
		return
	}
	http.Error(w, "the rate limit can't be checked", http.StatusServiceUnavailable)
}

// countingWriter takes note of a response.
type countingWriter struct {
	http.ResponseWriter
	status  int // that of a handler that fails before it answers, until there is another
	begun   bool
	written int64
}

// begin takes note of the final status, which is the first.
func (w *countingWriter) begin(status int) {
	if !w.begun {
		w.status, w.begun = status, true
	}
}

// Unwrap is for [http.ResponseController].
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *countingWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.begin(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(b []byte) (int, error) {
	w.begin(http.StatusOK)
	n, err := w.ResponseWriter.Write(b)
	w.written += int64(n)
	return n, err
}

// ReadFrom keeps the ways to send a file without copying it.
func (w *countingWriter) ReadFrom(r io.Reader) (int64, error) {
	w.begin(http.StatusOK)
	n, err := io.Copy(w.ResponseWriter, r)
	w.written += n
	return n, err
}

// FlushError is for [http.ResponseController].
func (w *countingWriter) FlushError() error {
	w.begin(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is for handlers that look for an [http.Flusher].
func (w *countingWriter) Flush() { _ = w.FlushError() }

// Hijack is for handlers that look for an [http.Hijacker], as those of websockets do.
func (w *countingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	connection, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.begin(http.StatusSwitchingProtocols)
	}
	return connection, buffered, err
}
