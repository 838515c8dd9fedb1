package front

import (
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"

	"github.com/distlimiter/ratelimit/internal/server/lean"
)

var h2specRuns = flag.Int("h2spec", 1, "how often to run all cases of h2spec")

// pages answers a GET with data, which h2spec needs and grpc-go does not.
type pages struct{ http.Server }

func newPages() *pages {
	p := &pages{http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, strings.Repeat("page ", 100))
		}),
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: time.Minute,
	}}
	p.Protocols.SetUnencryptedHTTP2(true)
	return p
}

func (p *pages) GracefulStop() { p.Stop() }

func (p *pages) Stop() { _ = p.Close() }

// All cases of h2spec, in strict mode.
func TestH2spec(t *testing.T) {
	quiet, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func(out *os.File) {
		os.Stdout = out
		_ = quiet.Close()
	}(os.Stdout)
	os.Stdout = quiet // it prints its report there
	eachMode(t, func(t *testing.T, _ *service, l *lean.Server) {
		l.Stop()
		o := l.Options
		o.Rest = newPages()
		host, port, err := net.SplitHostPort(start(t, lean.New(o)))
		if err != nil {
			t.Fatal(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		for range *h2specRuns {
			c := &config.Config{Host: host, Port: number, Path: l.Method, Timeout: 5 * time.Second, MaxHeaderLen: 4000, Strict: true}
			passed := 0
			for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
				group.Test(c)
				passed += group.PassedCount
				report(t, group)
			}
			t.Logf("%d passed", passed)
		}
	})
}

func report(t *testing.T, g *spec.TestGroup) {
	for _, c := range append(g.Tests, g.StrictTests...) {
		if r := c.Result; r != nil && r.Failed {
			t.Errorf("%s/%d: %s: %s\n%v", g.ID(), r.Sequence, c.Desc, c.Requirement, r.Error)
		} else if r != nil && r.Skipped {
			t.Logf("%s/%d: skipped: %s", g.ID(), r.Sequence, c.Desc)
		}
	}
	for _, sub := range g.Groups {
		report(t, sub)
	}
}
