package tlsfiles_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/tlsfiles/tlstest"
)

// serve returns the address of a gRPC server.
func serve(t *testing.T, f tlsfiles.Files) string {
	t.Helper()
	f.Log = zaptest.NewLogger(t)
	config, err := tlsfiles.Server(f)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	healthv1.RegisterHealthServer(server, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// call returns the serial number of the server's certificate.
func call(t *testing.T, addr string, f tlsfiles.Files) (string, error) {
	t.Helper()
	f.Log = zaptest.NewLogger(t)
	creds, err := tlsfiles.Client(f)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var server peer.Peer
	if _, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Peer(&server)); err != nil {
		return "", err
	}
	return server.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].SerialNumber.String(), nil
}

func TestWhoIsServed(t *testing.T) {
	ours, theirs := tlstest.NewAuthority(t), tlstest.NewAuthority(t)
	cert, key := ours.Issue("server", "127.0.0.1", time.Hour)
	server := tlsfiles.Files{Cert: cert, Key: key, CA: ours.File}
	anybody, named := serve(t, tlsfiles.Files{Cert: cert, Key: key}), server
	named.Name = "envoy.example"
	mutual, onlyNamed := serve(t, server), serve(t, named)
	named.Name = "spiffe://mesh/envoy"
	onlyURI := serve(t, named)

	for name, tt := range map[string]struct {
		addr   string
		from   *tlstest.Authority // nil: no certificate
		called string
		begins time.Duration // 0: an hour before it ends or now
		valid  time.Duration
		trust  *tlstest.Authority
		expect string
		fails  bool
	}{
		"no certificate asked for": {addr: anybody, trust: ours},
		"server of another":        {addr: anybody, trust: theirs, fails: true},
		"server by another name":   {addr: anybody, trust: ours, expect: "other.example", fails: true},
		"server by its name":       {addr: anybody, trust: ours, expect: "127.0.0.1"},
		"no certificate":           {addr: mutual, trust: ours, fails: true},
		"good":                     {addr: mutual, from: ours, called: "any.example", valid: time.Hour, trust: ours},
		"wrong authority":          {addr: mutual, from: theirs, called: "envoy.example", valid: time.Hour, trust: ours, fails: true},
		"expired":                  {addr: mutual, from: ours, called: "envoy.example", valid: -time.Minute, trust: ours, fails: true},
		"not valid yet":            {addr: mutual, from: ours, called: "envoy.example", begins: time.Minute, valid: time.Hour, trust: ours, fails: true},
		"right name":               {addr: onlyNamed, from: ours, called: "envoy.example", valid: time.Hour, trust: ours},
		"wrong name":               {addr: onlyNamed, from: ours, called: "other.example", valid: time.Hour, trust: ours, fails: true},
		"right name, wrong signer": {addr: onlyNamed, from: theirs, called: "envoy.example", valid: time.Hour, trust: ours, fails: true},
		"right URI":                {addr: onlyURI, from: ours, called: "spiffe://mesh/envoy", valid: time.Hour, trust: ours},
		"wrong URI":                {addr: onlyURI, from: ours, called: "spiffe://mesh/other", valid: time.Hour, trust: ours, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := tlsfiles.Files{CA: tt.trust.File, Name: tt.expect}
			if tt.from != nil {
				file := strings.ReplaceAll(name, " ", "-")
				f.Cert, f.Key = tt.from.Issue(file, tt.called, tt.valid)
				if tt.begins > 0 {
					f.Cert, f.Key = tt.from.IssueFrom(file, tt.called, tt.begins, tt.valid)
				}
			}
			if _, err := call(t, tt.addr, f); (err != nil) != tt.fails {
				t.Errorf("error %v, want one: %v", err, tt.fails)
			}
		})
	}
}

func TestRenewal(t *testing.T) {
	ours, next := tlstest.NewAuthority(t), tlstest.NewAuthority(t)
	cert, key := ours.Issue("server", "127.0.0.1", time.Hour)
	clients := filepath.Join(t.TempDir(), "clients.pem")
	put := func(from, to string) {
		t.Helper()
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(ours.File, clients)
	addr := serve(t, tlsfiles.Files{Cert: cert, Key: key, CA: clients})
	client := tlsfiles.Files{CA: ours.File}
	client.Cert, client.Key = ours.Issue("client", "x", time.Hour)
	serial := func() string {
		t.Helper()
		got, err := call(t, addr, client)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := serial()
	ours.Issue("server", "127.0.0.1", time.Hour)
	second := serial()
	if second == first {
		t.Error("the renewed certificate is not in use")
	}

	// A key that does not fit, as while files are being written.
	_, otherKey := ours.Issue("other", "127.0.0.1", time.Hour)
	good := filepath.Join(t.TempDir(), "good.pem")
	put(key, good)
	put(otherKey, key)
	if got := serial(); got != second {
		t.Errorf("with a key that does not fit the certificate is %s, want %s to stay", got, second)
	}
	put(good, key)

	// The authority of clients changes hands.
	put(next.File, clients)
	if _, err := call(t, addr, client); err == nil {
		t.Error("a client of the former authority is served")
	}
	client.Cert, client.Key = next.Issue("client", "x", time.Hour)
	serial()
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	a := tlstest.NewAuthority(t)
	cert, key := a.Issue("server", "x", time.Hour)
	_, otherKey := a.Issue("other", "x", time.Hour)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for name, tt := range map[string]struct {
		files tlsfiles.Files
		want  string
	}{
		"none":           {tlsfiles.Files{}, "needs a certificate"},
		"no key":         {tlsfiles.Files{Cert: cert}, "belong together"},
		"missing":        {tlsfiles.Files{Cert: missing, Key: key}, missing},
		"another's key":  {tlsfiles.Files{Cert: cert, Key: otherKey}, otherKey},
		"no authorities": {tlsfiles.Files{Cert: cert, Key: key, CA: key}, "has no certificate"},
		"only a name":    {tlsfiles.Files{Cert: cert, Key: key, Name: "envoy"}, "no authority"},
	} {
		tt.files.Log = zaptest.NewLogger(t)
		if _, err := tlsfiles.Server(tt.files); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
	}
}
