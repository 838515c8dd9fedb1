package tlsfiles_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/credentials"

	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/tlsfiles/tlstest"
)

// gather returns the values of a collector's series by their one label.
func gather(t *testing.T, c prometheus.Collector, name string) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				values[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return values
}

// TestRefusedHandshakesAreTold holds that each kind of refusal is counted each time
// and logged once.
func TestRefusedHandshakesAreTold(t *testing.T) {
	ours, theirs := tlstest.NewAuthority(t), tlstest.NewAuthority(t)
	cert, key := ours.Issue("server", "127.0.0.1", time.Hour)
	config, err := tlsfiles.Server(tlsfiles.Files{Cert: cert, Key: key, CA: ours.File, Name: "envoy.example", Log: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	for reason, client := range map[string]func(conn net.Conn){
		"no_certificate":    handshake(t, tlsfiles.Files{CA: ours.File, Name: "127.0.0.1"}),
		"expired":           handshake(t, issued(ours, "expired", "envoy.example", -time.Minute), ours),
		"unknown_authority": handshake(t, issued(theirs, "stranger", "envoy.example", time.Hour), ours),
		"wrong_name":        handshake(t, issued(ours, "other", "other.example", time.Hour), ours),
		"by_client":         handshake(t, issued(ours, "mistrusts", "envoy.example", time.Hour), theirs),
		"no_tls":            func(conn net.Conn) { _, _ = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) },
		"":                  func(net.Conn) {}, // leaves
	} {
		t.Run(reason, func(t *testing.T) {
			core, log := observer.New(zap.InfoLevel)
			h := tlsfiles.NewHandshakes(credentials.NewTLS(config), zap.New(core))
			const times = 3
			for range times {
				refuse(t, h, client)
			}
			want := map[string]float64{}
			if reason != "" {
				want[reason] = times
			}
			for r, n := range gather(t, h, "ratelimit_tls_handshakes_refused_total") {
				if n != want[r] {
					t.Errorf("%v refusals for %q, want %v", n, r, want[r])
				}
			}
			lines := log.All()
			if len(lines) != len(want) {
				t.Fatalf("%d lines, want %d: %v", len(lines), len(want), lines)
			}
			for _, l := range lines {
				if !strings.HasPrefix(l.Message, "a TLS handshake was refused: ") || l.ContextMap()["from"] == "" || l.ContextMap()["error"] == "" {
					t.Errorf("the line is %v", l)
				}
			}
		})
	}
}

// issued are the files of a client whose certificate is by that authority.
func issued(by *tlstest.Authority, file, name string, valid time.Duration) tlsfiles.Files {
	f := tlsfiles.Files{Name: "127.0.0.1"}
	f.Cert, f.Key = by.Issue(file, name, valid)
	return f
}

// handshake returns a client of these files that trusts the authority.
func handshake(t *testing.T, f tlsfiles.Files, trusts ...*tlstest.Authority) func(net.Conn) {
	t.Helper()
	f.Log = zaptest.NewLogger(t)
	for _, a := range trusts {
		f.CA = a.File
	}
	creds, err := tlsfiles.Client(f)
	if err != nil {
		t.Fatal(err)
	}
	return func(conn net.Conn) {
		// With TLS 1.3 the client is done before the server has looked at its certificate.
		secure, _, err := creds.ClientHandshake(t.Context(), "127.0.0.1", conn)
		if err == nil {
			_, _ = secure.Read(make([]byte, 1)) // until the server refuses
		}
	}
}

// refuse has the client connect, and wants the handshake to fail.
func refuse(t *testing.T, h *tlsfiles.Handshakes, client func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	left := make(chan struct{})
	go func() {
		defer close(left)
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		client(conn)
		_ = conn.Close()
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.ServerHandshake(conn); err == nil {
		t.Error("the handshake succeeded")
	}
	_ = conn.Close()
	<-left
}

// TestLifetimesOfCertificates follow the files.
func TestLifetimesOfCertificates(t *testing.T) {
	a := tlstest.NewAuthority(t)
	cert, key := a.Issue("server", "127.0.0.1", time.Hour)
	l, err := tlsfiles.NewLifetimes(map[string]tlsfiles.Files{"grpc": {Cert: cert, Key: key, CA: a.File}, "xds": {CA: a.File}})
	if err != nil {
		t.Fatal(err)
	}
	const name = "ratelimit_tls_certificate_not_after_timestamp_seconds"
	in := func(d time.Duration) float64 { return float64(time.Now().Add(d).Unix()) }
	got := gather(t, l, name)
	if end := got["grpc"]; len(got) != 1 || end < in(59*time.Minute) || end > in(61*time.Minute) {
		t.Errorf("got %v, want grpc in an hour", got)
	}
	a.Issue("server", "127.0.0.1", 24*time.Hour)
	if end := gather(t, l, name)["grpc"]; end < in(23*time.Hour) {
		t.Errorf("renewed: it ends at %v", end)
	}
	if begin := gather(t, l, "ratelimit_tls_certificate_not_before_timestamp_seconds")["grpc"]; begin > in(0) {
		t.Errorf("it begins at %v", begin)
	}
	if _, err := tlsfiles.NewLifetimes(map[string]tlsfiles.Files{"grpc": {Cert: "nowhere", Key: key}}); err == nil {
		t.Error("no error for a certificate that does not exist")
	}
}
