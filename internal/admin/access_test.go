package admin

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func fieldWhat(what string) zapcore.Field { return zap.String("what", what) }

const secret = "correct-horse-battery-staple"

func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhereToListen(t *testing.T) {
	token, short := tokenFile(t, secret+"\n"), tokenFile(t, "secret\n")
	for _, tt := range []struct {
		addr   string
		access Access
		want   string
	}{
		{"127.0.0.1:6070", Access{}, ""},
		{"127.3.4.5:6070", Access{}, ""},
		{"[::1]:6070", Access{}, ""},
		{"[::ffff:127.0.0.1]:6070", Access{}, ""},
		{"0.0.0.0:6070", Access{}, "set Admin.TokenFile"},
		{"[::]:6070", Access{}, "Admin.TLS"},
		{"192.0.2.1:6070", Access{}, "listen on 127.0.0.1"},
		{"0.0.0.0:6070", Access{TokenFile: token}, ""},
		{"0.0.0.0:6070", Access{ClientCertificates: true}, ""},
		{"0.0.0.0:6070", Access{ReadOnly: true}, ""},
		{"0.0.0.0:6070", Access{ReadOnly: true, TokenFile: short}, "at least 16"},
		{"127.0.0.1:6070", Access{TokenFile: short}, "at least 16"},
		{"127.0.0.1:6070", Access{TokenFile: short + ".none"}, "no such file"},
	} {
		addr, err := net.ResolveTCPAddr("tcp", tt.addr)
		if err != nil {
			t.Fatal(err)
		}
		switch _, err := tt.access.On(addr); {
		case tt.want == "" && err != nil:
			t.Errorf("%s %+v: %v", tt.addr, tt.access, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s %+v: error %v, want %q", tt.addr, tt.access, err, tt.want)
		}
	}
}

// onAllAddresses is access to an address that other machines can reach.
func onAllAddresses(t *testing.T, a Access) Access {
	t.Helper()
	a, err := a.On(&net.TCPAddr{IP: net.IPv4zero, Port: 6070})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestReadOnly: nothing can be changed. Where anyone may look, they see what
// envoyproxy/ratelimit's debug port shows and what says no more, under any name of
// the address, but no values of clients.
func TestReadOnly(t *testing.T) {
	for name, tt := range map[string]struct {
		access Access
		host   string
		header []string
		values int  // status of what shows values of clients
		logged bool // refusals are
	}{
		"for anyone":   {onAllAddresses(t, Access{ReadOnly: true}), "ratelimit.internal:6070", nil, http.StatusForbidden, false},
		"on loopback":  {Access{ReadOnly: true}, "localhost", nil, http.StatusOK, true},
		"with a token": {onAllAddresses(t, Access{ReadOnly: true, TokenFile: tokenFile(t, secret)}), "ratelimit.internal:6070", []string{"Authorization", "Bearer " + secret}, http.StatusOK, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(o *Options) { o.Access = tt.access })
			if err := f.load(t, rules); err != nil {
				t.Fatal(err)
			}
			header := append([]string{"Host", tt.host}, tt.header...)
			var list ruleList
			before := f.send(t, http.MethodGet, "/admin/rules", "", header...)
			before.into(t, http.StatusOK, &list)
			if list.Writable || len(list.Rules) != 3 {
				t.Errorf("writable: %v, %d rules", list.Writable, len(list.Rules))
			}
			key := list.Rules[0].Key
			for _, r := range []struct {
				method, path, body string
				status             int
			}{
				{http.MethodGet, "/", "", http.StatusOK},
				{http.MethodGet, "/rlconfig", "", http.StatusOK},
				{http.MethodGet, "/stats", "", http.StatusOK},
				{http.MethodGet, "/metrics", "", http.StatusOK},
				{http.MethodGet, "/healthcheck", "", http.StatusOK},
				{http.MethodGet, "/debug/pprof/", "", http.StatusOK},
				{http.MethodGet, "/debug/pprof/heap", "", http.StatusOK},
				{http.MethodGet, "/debug/pprof/cmdline", "", http.StatusNotFound},
				{http.MethodGet, "/admin/rules/" + key, "", http.StatusOK},
				{http.MethodGet, "/admin/stats", "", http.StatusOK},
				{http.MethodGet, "/admin/reloads", "", http.StatusOK},
				{http.MethodPost, "/admin/explain", `{"domain": "edge", "entries": [{"key": "user", "value": "x"}]}`, http.StatusOK},
				{http.MethodGet, "/admin/stats/" + key, "", tt.values},
				{http.MethodGet, "/admin/counters?domain=edge&descriptor=user%3Dx", "", tt.values},
				{http.MethodPost, "/admin/rules", slower, http.StatusForbidden},
				{http.MethodPost, "/admin/rules?dry_run=1", slower, http.StatusForbidden},
				{http.MethodDelete, "/admin/rules/" + key, "", http.StatusForbidden},
				{http.MethodPost, "/admin/reset", `{"rule": "x"}`, http.StatusForbidden},
				{http.MethodPost, "/admin/credit", `{"domain": "edge", "entries": [{"key": "user", "value": "a"}], "hits": 1}`, http.StatusForbidden},
				{http.MethodPost, "/admin/explain/", "{}", http.StatusForbidden},
				{http.MethodPut, "/rlconfig", "", http.StatusForbidden},
			} {
				got := f.send(t, r.method, r.path, r.body, header...)
				if got.status != r.status {
					t.Errorf("%s %s: %d %s, want %d", r.method, r.path, got.status, got.body, r.status)
				}
				if got.status == http.StatusForbidden {
					got.problem(t, http.StatusForbidden, readOnly)
					if !strings.Contains(got.body, "Admin.TokenFile") {
						t.Errorf("%s %s does not say what to set: %s", r.method, r.path, got.body)
					}
				}
			}
			if after := f.send(t, http.MethodGet, "/admin/rules", "", header...); after.body != before.body {
				t.Errorf("somebody has changed rules: %s", after.body)
			}
			if n := f.audit.FilterMessage("admin request refused").Len(); n > 0 != tt.logged {
				t.Errorf("%d refusals are logged", n)
			}
		})
	}
}

// TestProfilesAreTakenOneAtATime: several at once could keep the process busy.
func TestProfilesAreTakenOneAtATime(t *testing.T) {
	taking, done := make(chan struct{}), make(chan struct{})
	pages := httptest.NewServer(oneAtATime(func(http.ResponseWriter, *http.Request) {
		taking <- struct{}{}
		<-done
	}))
	defer pages.Close()
	get := func() int {
		answer, err := pages.Client().Get(pages.URL)
		if err != nil {
			t.Error(err)
			return 0
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	first := make(chan int)
	go func() { first <- get() }()
	<-taking
	if got := get(); got != http.StatusTooManyRequests {
		t.Errorf("a second one at a time: %d", got)
	}
	close(done)
	if got := <-first; got != http.StatusOK {
		t.Errorf("the first: %d", got)
	}
	go func() { first <- get() }()
	<-taking
	if got := <-first; got != http.StatusOK {
		t.Errorf("the next: %d", got)
	}
}

// TestOthersPages sends the requests that a page of another origin could make a browser
// send to an address without login.
func TestOthersPages(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	port := f.server.URL[strings.LastIndexByte(f.server.URL, ':'):]
	for _, tt := range []struct {
		method, path, body string
		header             []string
		status             int
	}{
		// A name of theirs that resolves to 127.0.0.1.
		{http.MethodGet, "/admin/rules", "", []string{"Host", "evil.example" + port}, http.StatusMisdirectedRequest},
		{http.MethodPost, "/admin/rules", slower, []string{"Host", "evil.example" + port}, http.StatusMisdirectedRequest},
		{http.MethodGet, "/rlconfig", "", []string{"Host", "localhost.evil.example" + port}, http.StatusMisdirectedRequest},
		{http.MethodGet, "/debug/pprof/", "", []string{"Host", "0x7f.1"}, http.StatusMisdirectedRequest},
		// A form, or a script, on a page of theirs.
		{http.MethodPost, "/admin/rules", slower, []string{"Origin", "http://evil.example"}, http.StatusForbidden},
		{http.MethodPost, "/admin/rules", slower, []string{"Origin", "null"}, http.StatusForbidden},
		{http.MethodPost, "/admin/rules", slower, []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{http.MethodPost, "/admin/rules", slower, []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		{http.MethodDelete, "/admin/rules/x", "", []string{"Origin", "http://127.0.0.1:1"}, http.StatusForbidden},
		{http.MethodPost, "/admin/reset", `{"rule": "x"}`, []string{"Content-Type", "text/plain"}, http.StatusUnsupportedMediaType},
		{http.MethodPost, "/admin/reset", `{"rule": "x"}`, []string{"Content-Type", "application/x-www-form-urlencoded"}, http.StatusUnsupportedMediaType},
		{http.MethodGet, "/debug/pprof/", "", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{http.MethodGet, "/debug/pprof/", "", []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden}, // another port of this machine
		{http.MethodGet, "/admin/live", "", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},  // there is room for few
		// Our own pages pass.
		{http.MethodGet, "/debug/pprof/", "", []string{"Sec-Fetch-Site", "same-origin"}, http.StatusOK},
		{http.MethodGet, "/debug/pprof/", "", []string{"Sec-Fetch-Site", "none"}, http.StatusOK}, // no page
		{http.MethodGet, "/admin/rules", "", []string{"Host", "localhost" + port}, http.StatusOK},
		{http.MethodGet, "/admin/rules", "", []string{"Host", "[::1]" + port}, http.StatusOK},
		{http.MethodGet, "/admin/rules", "", []string{"Host", "LOCALHOST."}, http.StatusOK},
		{http.MethodGet, "/metrics", "", []string{"Host", "ratelimit.internal"}, http.StatusOK},
		{http.MethodPost, "/admin/rules?dry_run=1", slower, []string{"Sec-Fetch-Site", "same-origin"}, http.StatusOK},
		{http.MethodPost, "/admin/rules?dry_run=1", slower, []string{"Origin", f.server.URL}, http.StatusOK},
	} {
		r := f.send(t, tt.method, tt.path, tt.body, tt.header...)
		if r.status != tt.status {
			t.Errorf("%s %s with %q: %d %s, want %d", tt.method, tt.path, tt.header, r.status, r.body, tt.status)
		}
		if r.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s lets pages from elsewhere read", tt.method, tt.path)
		}
	}
	if n := f.audit.FilterMessage("admin request refused").Len(); n != 12 {
		t.Errorf("%d refusals in the audit log, want 12", n)
	}
	if got := f.one(t, "user").Source; got != "file" {
		t.Errorf("somebody has changed rules: %s", got)
	}
}

func TestToken(t *testing.T) {
	path := tokenFile(t, secret+"\n")
	f := newFixture(t, func(o *Options) { o.Access = Access{TokenFile: path} })
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path, authorization string
		status              int
	}{
		{"/admin/rules", "Bearer " + secret, http.StatusOK},
		{"/admin/rules", "bearer  " + secret, http.StatusOK},
		{"/admin/rules", "Bearer " + secret + "x", http.StatusUnauthorized},
		{"/admin/rules", "Bearer " + secret[1:], http.StatusUnauthorized},
		{"/admin/rules", "Bearer", http.StatusUnauthorized},
		{"/admin/rules", "Basic " + secret, http.StatusUnauthorized},
		{"/admin/rules", secret, http.StatusUnauthorized},
		{"/admin/rules", "", http.StatusUnauthorized},
		{"/rlconfig", "", http.StatusUnauthorized},
		{"/stats", "", http.StatusUnauthorized},
		{"/debug/pprof/", "", http.StatusUnauthorized},
		{"/nothing", "", http.StatusUnauthorized},
		{"/", "", http.StatusOK},
		{"/healthcheck", "", http.StatusOK},
		{"/metrics", "", http.StatusOK},
		{"/openapi.yaml", "", http.StatusOK},
	} {
		r := f.send(t, http.MethodGet, tt.path, "", "Authorization", tt.authorization, "Host", "ratelimit.internal")
		if r.status != tt.status || (r.header.Get("WWW-Authenticate") == "Bearer") != (tt.status == http.StatusUnauthorized) {
			t.Errorf("%s with %q: %d, %q; want %d", tt.path, tt.authorization, r.status, r.header.Get("WWW-Authenticate"), tt.status)
		}
		if strings.Contains(r.body, secret) {
			t.Errorf("%s shows the token: %s", tt.path, r.body)
		}
	}
	f.send(t, http.MethodPost, "/admin/rules", slower).problem(t, http.StatusUnauthorized, "about:blank")
	f.apply(t, "", slower, "Authorization", "Bearer "+secret)
	if lines := f.audit.FilterMessage("admin write").All(); len(lines) != 1 || lines[0].ContextMap()["who"] != "token" {
		t.Errorf("audit: %v", lines)
	}
	for _, line := range f.audit.All() {
		for k, v := range line.ContextMap() {
			if text, ok := v.(string); ok && strings.Contains(text, secret) {
				t.Errorf("the log shows the token: %s=%s", k, text)
			}
		}
	}
	// Another token is in force at once. A missing token lets nobody in, and only the
	// log says what is wrong with its file.
	if err := os.WriteFile(path, []byte("another-token-altogether"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.send(t, http.MethodGet, "/admin/rules", "", "Authorization", "Bearer "+secret).problem(t, http.StatusUnauthorized, "about:blank")
	for what, spoil := range map[string]func() error{
		"bytes":   func() error { return os.WriteFile(path, []byte("short"), 0o600) },
		"no such": func() error { return os.Remove(path) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		r := f.send(t, http.MethodGet, "/admin/rules", "", "Authorization", "Bearer ")
		r.problem(t, http.StatusServiceUnavailable, "about:blank")
		if strings.Contains(r.body, what) || strings.Contains(r.body, path) {
			t.Errorf("the answer names the file: %s", r.body)
		}
		lines := f.audit.FilterMessage("admin request refused").All()
		if text, _ := lines[len(lines)-1].ContextMap()["error"].(string); !strings.Contains(text, what) || !strings.Contains(text, path) {
			t.Errorf("the log says %q, want the file and %q", text, what)
		}
	}
}

// TestTokensThatOthersMayUse: there is a warning for each.
func TestTokensThatOthersMayUse(t *testing.T) {
	for mode, want := range map[os.FileMode]string{
		0o600: "", 0o640: "", 0o440: "",
		0o644: "any user of this machine can read the admin token",
		0o666: "users other than its owner can replace the admin token",
		0o620: "users other than its owner can replace the admin token",
	} {
		path := tokenFile(t, secret)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		got := Access{TokenFile: path}.Warning()
		if !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("mode %#o: %q, want %q", mode, got, want)
		}
	}
	if got := (Access{}).Warning(); got != "" {
		t.Errorf("without a token: %q", got)
	}
}
