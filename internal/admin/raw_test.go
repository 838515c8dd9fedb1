package admin

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// raw sends bytes as they are and returns the answers that come before the server
// closes the connection, or has no more to say.
func (f *fixture) raw(t *testing.T, text string) (answers []reply) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", f.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(conn)
	if err != nil && len(all) == 0 {
		t.Fatal(err)
	}
	from := bufio.NewReader(bytes.NewReader(all))
	for {
		if _, err := from.Peek(1); err != nil {
			return answers
		}
		answer, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatalf("%q: %v", all, err)
		}
		body, err := io.ReadAll(answer.Body)
		if err := errors.Join(err, answer.Body.Close()); err != nil {
			t.Fatalf("%q: %v", all, err)
		}
		answers = append(answers, reply{answer.StatusCode, answer.Header, string(body)})
	}
}

func statuses(answers []reply) string {
	var list []string
	for _, a := range answers {
		list = append(list, fmt.Sprint(a.status))
	}
	return strings.Join(list, " ")
}

// TestAuthorizationIsNotSmuggled sends requests that this server and a proxy before
// it may read differently. Only requests that clearly bear the token see the rules, and
// a request hidden in another needs a token of its own.
func TestAuthorizationIsNotSmuggled(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Access = Access{TokenFile: tokenFile(t, secret)} })
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	const (
		good   = "Authorization: Bearer " + secret + "\r\n"
		bad    = "Authorization: Bearer wrong-horse-battery-staple\r\n"
		hidden = "GET /admin/rules HTTP/1.1\r\nHost: x\r\n\r\n"
		post   = "POST /admin/explain HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	)
	get := func(headers string) string { return "GET /admin/rules HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n" }
	path := func(p string) string { return "GET " + p + " HTTP/1.1\r\nHost: x\r\n\r\n" }
	for name, tt := range map[string]struct{ send, want string }{
		"good":                       {get(good), "200"},
		"without":                    {get(""), "401"},
		"another case":               {get("aUTHORIZATION: BEARER " + secret + "\r\n"), "200"},
		"another case of the token":  {get("Authorization: Bearer " + strings.ToUpper(secret) + "\r\n"), "401"},
		"good, bad":                  {get(good + bad), "401"},
		"bad, good":                  {get(bad + good), "401"},
		"good twice":                 {get(good + good), "401"},
		"good, empty":                {get(good + "Authorization:\r\n"), "401"},
		"a list":                     {get("Authorization: Bearer " + secret + ", Bearer " + secret + "\r\n"), "401"},
		"and more":                   {get("Authorization: Bearer " + secret + " x\r\n"), "401"},
		"a tab":                      {get("Authorization: Bearer\t" + secret + "\r\n"), "401"},
		"as basic":                   {get("Authorization: Basic " + secret + "\r\n"), "401"},
		"of the proxy":               {get("Proxy-" + good), "401"},
		"underscore":                 {get("X_Authorization: Bearer " + secret + "\r\n"), "401"},
		"in the query":               {path("/admin/rules?access_token=" + secret), "401"},
		"space before the colon":     {get("Authorization : Bearer " + secret + "\r\n"), "400"},
		"folded out of another":      {get("X-A: b\r\n " + good), "401"},
		"in a value after CR":        {get("X-A: b\rAuthorization: Bearer " + secret + "\r\n"), "400"},
		"in a value after NUL":       {get("X-A: b\x00\r\n"), "400"},
		"a NUL in the token":         {get("Authorization: Bearer " + secret + "\x00\r\n"), "400"},
		"as a trailer":               {post + "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n2\r\n{}\r\n0\r\n" + good + "\r\n", "401"},
		"two hosts":                  {"GET /admin/rules HTTP/1.1\r\nHost: x\r\nHost: y\r\n" + good + "\r\n", "400"},
		"two lengths":                {post + good + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}" + hidden, "400"},
		"a signed length":            {post + good + "Content-Length: +2\r\n\r\n{}" + hidden, "400"},
		"a list of lengths":          {post + good + "Content-Length: 2, 2\r\n\r\n{}" + hidden, "400"},
		"an unknown coding":          {post + good + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden, "501"},
		"two codings":                {post + good + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden, "501"},
		"hidden behind a length":     {post + good + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(hidden)) + hidden, "400"},
		"hidden after the last one":  {post + good + "Content-Length: 2\r\n\r\n{}" + hidden, "400 401"},
		"hidden after chunks":        {post + good + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + hidden, "400 401"},
		"hidden by the other coding": {post + good + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, "400 401"},
		"up from an open path":       {path("/page/../admin/rules"), "307"},
		"the same, encoded":          {path("/page/%2e%2e/admin/rules"), "404"},
		"the same, a slash encoded":  {path("/page%2f..%2fadmin/rules"), "404"},
		"an empty step":              {path("//admin/rules"), "401"},
		"encoded letters":            {path("/%61dmin/rules"), "401"},
		"CONNECT":                    {"CONNECT /page/../admin/rules HTTP/1.1\r\nHost: x\r\n\r\n", "401"},
		"OPTIONS":                    {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "200"},
	} {
		answers := f.raw(t, tt.send)
		if got := statuses(answers); got != tt.want {
			t.Errorf("%s: answered %s, want %s", name, got, tt.want)
		}
		for _, a := range answers {
			shown, allowed := strings.Contains(a.body, "remote_address"), tt.want == "200" && name != "OPTIONS"
			if shown != allowed {
				t.Errorf("%s: %d: shown are %s", name, a.status, a.body)
			}
		}
	}
}

// TestHostsOfLoopback names the host of an address without login in every way that HTTP
// allows.
func TestHostsOfLoopback(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	for request, want := range map[string]string{
		"GET /admin/rules HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n":                               "200",
		"GET http://127.0.0.1/admin/rules HTTP/1.1\r\nHost: evil.example\r\n\r\n":            "200", // the line counts, by RFC 9112
		"GET http://evil.example/admin/rules HTTP/1.1\r\nHost: localhost\r\n\r\n":            "421",
		"GET /admin/rules HTTP/1.1\r\nHost: evil.example\r\n\r\n":                            "421",
		"GET /admin/rules HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n":                  "421",
		"GET /admin/rules HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n":                  "400",
		"GET /admin/rules HTTP/1.1\r\nHost: 127.0.0.1, evil.example\r\n\r\n":                 "400",
		"GET /admin/rules HTTP/1.1\r\nHost:\r\n\r\n":                                         "421",
		"GET /admin/rules HTTP/1.1\r\n\r\n":                                                  "400",
		"GET /admin/rules HTTP/1.0\r\n\r\n":                                                  "421",
		"GET /admin/rules HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n":         "400",
		"GET /admin/rules HTTP/1.1\r\nHost: 10.0.0.1\r\nX-Forwarded-Host: localhost\r\n\r\n": "421",
	} {
		if got := statuses(f.raw(t, request)); got != want {
			t.Errorf("%q: answered %s, want %s", request, got, want)
		}
	}
}

// TestRefusalsAreShortInTheLog sends the largest possible requests.
func TestRefusalsAreShortInTheLog(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Access = Access{TokenFile: tokenFile(t, secret)} })
	f.send(t, http.MethodGet, "/admin/rules/"+strings.Repeat("x", 10000), "")
	lines := f.audit.FilterMessage("admin request refused").All()
	if len(lines) != 1 {
		t.Fatalf("%d lines, want 1", len(lines))
	}
	for key, value := range lines[0].ContextMap() {
		if text := fmt.Sprint(value); len(text) > 2*mostLogged {
			t.Errorf("%s is logged with %d bytes", key, len(text))
		}
	}
}
