package adminclient_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/adminclient"
)

// TestTheAdminAddressMayBeBelowAPath asks a service behind a proxy that serves it below a
// path, and gives addresses of which a part would not be sent.
func TestTheAdminAddressMayBeBelowAPath(t *testing.T) {
	asked := ""
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.String()
		_, _ = w.Write([]byte("{}"))
	}))
	defer proxy.Close()
	for addr, want := range map[string]string{
		proxy.Listener.Addr().String(): "/admin/rules?domain=edge",
		proxy.URL:                      "/admin/rules?domain=edge",
		proxy.URL + "/":                "/admin/rules?domain=edge",
		proxy.URL + "/a/b%20c":         "/a/b%20c/admin/rules?domain=edge",
		proxy.URL + "/a/":              "/a/admin/rules?domain=edge",
	} {
		c := adminclient.Client{Addr: addr, Timeout: time.Minute}
		if _, err := c.Rules("edge", "", ""); err != nil || asked != want {
			t.Errorf("%s: asked for %s, error %v; want %s", addr, asked, err, want)
		}
	}
	for _, addr := range []string{"", "::", "http://", proxy.URL + "/?a=b", proxy.URL + "/#a", "http://user:password@127.0.0.1", "ftp://127.0.0.1"} {
		c := adminclient.Client{Addr: addr, Timeout: time.Minute}
		if _, err := c.Rules("edge", "", ""); !errors.Is(err, adminclient.ErrAddr) {
			t.Errorf("%q: error %v", addr, err)
		}
	}
}
