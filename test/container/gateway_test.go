//go:build linux

package container

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	rules "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// authority issues certificates as Envoy Gateway does when it is installed.
type authority struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "envoy-gateway"},
		NotBefore: time.Now().AddDate(0, 0, -1), NotAfter: time.Now().AddDate(5, 0, 0),
		KeyUsage: x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{key, cert}
}

// issue returns a directory with ca.crt, tls.crt and tls.key, as a mounted Secret.
func (a authority) issue(t *testing.T, name string, alternatives ...string) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: alternatives,
		NotBefore: time.Now().AddDate(0, 0, -1), NotAfter: time.Now().AddDate(5, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageDataEncipherment | x509.KeyUsageKeyEncipherment | x509.KeyUsageContentCommitment,
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	dir := shared(t)
	for file, block := range map[string]*pem.Block{
		"ca.crt":  {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		"tls.crt": {Type: "CERTIFICATE", Bytes: der},
		"tls.key": {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)},
	} {
		write(t, filepath.Join(dir, file), string(pem.EncodeToMemory(block)))
	}
	return dir
}

// gatewayServer is Envoy Gateway's server of limits: go-control-plane over mutual TLS.
type gatewayServer struct{ cache cache.SnapshotCache }

func startGateway(t *testing.T, certs string) gatewayServer {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(certs, "tls.crt"), filepath.Join(certs, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(certs, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(ca)
	listener, err := net.Listen("tcp", "127.0.0.1:18001")
	if err != nil {
		t.Fatal(err)
	}
	g := gatewayServer{cache.NewSnapshotCache(false, cache.IDHash{}, nil)}
	serving := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	})))
	discovery.RegisterAggregatedDiscoveryServiceServer(serving, server.NewServer(context.Background(), g.cache, server.CallbackFuncs{}))
	done := make(chan error, 1)
	go func() { done <- serving.Serve(listener) }()
	t.Cleanup(func() {
		serving.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return g
}

// Envoy Gateway calls the first match of an HTTPRoute so.
const (
	route  = "httproute/default/llm/rule/0/match/0/*"
	images = "httproute/default/images/rule/0/match/0/*"
)

// limit publishes what Envoy Gateway makes of two BackendTrafficPolicies: each tenant may use
// that many tokens a year, and images cost 4 of 10 in all (cost.number).
func (g gatewayServer) limit(t *testing.T, version string, tokens uint32) {
	t.Helper()
	snapshot, err := cache.NewSnapshot(version, map[resource.Type][]types.Resource{resource.RateLimitConfigType: {&rules.RateLimitConfig{
		Name: "default/eg/http", Domain: "default/eg/http",
		Descriptors: []*rules.RateLimitDescriptor{{
			Key: route, Value: route,
			Descriptors: []*rules.RateLimitDescriptor{{
				Key:       "rule-0-match-0",
				RateLimit: &rules.RateLimitPolicy{RequestsPerUnit: tokens, Unit: rules.RateLimitUnit_YEAR},
			}},
		}, {
			Key: images, Value: images,
			Descriptors: []*rules.RateLimitDescriptor{{
				Key: "rule-0-match--1", Value: "rule-0-match--1",
				RateLimit: &rules.RateLimitPolicy{RequestsPerUnit: 10, Unit: rules.RateLimitUnit_YEAR},
			}},
		}},
	}}})
	if err == nil {
		err = g.cache.SetSnapshot(t.Context(), "envoy-ratelimit", snapshot)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// gatewayPod is the pod that Envoy Gateway starts for this service, with the certificates
// in a directory and a Redis of its own. All names lead to this machine, for the test and
// for the pod.
func gatewayPod(t *testing.T, certs string) pod {
	t.Helper()
	const service = "envoy-ratelimit.envoy-gateway-system.svc.cluster.local"
	hosts := filepath.Join(shared(t), "hosts")
	write(t, hosts, "127.0.0.1 localhost envoy-gateway "+service+"\n")
	mount(t, hosts, "/etc/hosts")
	harness.Start(t, "redis", harness.Tool(t, "redis-server"), "--bind", "127.0.0.1", "--port", "6379", "--save", "", "--dir", t.TempDir())

	p := readPod(t, "testdata/envoy-gateway.yaml", map[string]string{
		"certs":                  certs,
		"statsd-exporter-config": shared(t),
	})
	p.hosts = []string{"envoy-gateway", "redis.redis.svc"}
	p.env["TRACING_SERVICE_INSTANCE_ID"] = "envoy-ratelimit-0"
	p.env["REDIS_TIMEOUT"] = "10s" // a busy machine may need longer than is right in production
	return p
}

func TestEnvoyGateway(t *testing.T) {
	ca := newAuthority(t)
	gateway := startGateway(t, ca.issue(t, "envoy-gateway", "envoy-gateway", "envoy-gateway.envoy-gateway-system",
		"envoy-gateway.envoy-gateway-system.svc", "envoy-gateway.envoy-gateway-system.svc.cluster.local"))
	gateway.limit(t, "1", 1000)

	p := gatewayPod(t, ca.issue(t, "*", "*.envoy-gateway-system"))
	// What every pod is told of the Services in its namespace, whether it needs them or not.
	for _, name := range []string{"ENVOY_GATEWAY", "ENVOY_RATELIMIT", "REDIS"} {
		p.env[name+"_SERVICE_HOST"] = "10.0.0.1"
		p.env[name+"_SERVICE_PORT"] = "6379"
		p.env[name+"_PORT"] = "tcp://10.0.0.1:6379"
		p.env[name+"_PORT_6379_TCP"] = "tcp://10.0.0.1:6379"
	}
	service := startPod(t, p)

	config, err := os.ReadFile(filepath.Join("testdata", "envoy-gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	certs := ca.issue(t, "*", "*.envoy-gateway-system")
	tenants := newTenants(t, certs)
	tenants.have(t, "acme", 1000)
	envoy := harness.StartEnvoyConfig(t, strings.ReplaceAll(string(config), "CERTS", certs), harness.ServiceAt(t, 8081))
	// Each answer costs 400 tokens, of which Envoy tells the service afterwards: also
	// the last one, of which only half is left.
	for _, left := range []uint32{600, 200, 0} {
		if answer := envoy.Get(t, "/v1/chat/completions", "x-tenant-id", "acme"); answer.Status != http.StatusOK {
			t.Fatalf("with %d tokens after it: status %d; %v", left, answer.Status, answer.Header)
		}
		tenants.have(t, "acme", left)
	}
	if answer := envoy.Get(t, "/v1/chat/completions", "x-tenant-id", "acme"); answer.Status != http.StatusTooManyRequests {
		t.Errorf("without tokens: status %d", answer.Status)
	}
	if answer := envoy.Get(t, "/v1/chat/completions", "x-tenant-id", "other"); answer.Status != http.StatusOK || answer.Header.Get("X-Ratelimit-Remaining") != "1000" {
		t.Errorf("another tenant: status %d; %v", answer.Status, answer.Header)
	}
	for i, want := range []int{http.StatusOK, http.StatusOK, http.StatusTooManyRequests} {
		if answer := envoy.Get(t, "/v1/images"); answer.Status != want {
			t.Errorf("image %d at 4 of 10: status %d, want %d", i, answer.Status, want)
		}
	}

	gateway.limit(t, "2", 5000)
	tenants.have(t, "acme", 5000-1200)
	metrics := harness.ServiceAt(t, 8081).Get(t, "127.0.0.1:19001", "/metrics")
	if want := `ratelimit_service_rate_limit_over_limit{domain="default/eg/http",key1="httproute/default/llm`; !strings.Contains(metrics, want) {
		t.Errorf("no %s… in the metrics:\n%s", want, metrics)
	}
	debugPort(t)
	noWarnings(t, service)
}

// noWarnings wants none of the rules that Envoy Gateway sends: it sends them anew with every
// policy that changes, and users can't mend them.
func noWarnings(t *testing.T, service *harness.Process) {
	t.Helper()
	if service.Printed(`"warnings": ["`) {
		t.Errorf("there are warnings of Envoy Gateway's rules:\n%s", service.Output())
	}
}

// debugPort wants what the pod's IP shows at envoyproxy/ratelimit's debug port, as
// there, and nothing to be changed.
func debugPort(t *testing.T) {
	t.Helper()
	const port = "http://127.0.0.1:6070" // on all addresses, of which this is one
	for _, tt := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/", http.StatusOK},
		{http.MethodGet, "/rlconfig", http.StatusOK},
		{http.MethodGet, "/stats", http.StatusOK},
		{http.MethodGet, "/debug/pprof/goroutine", http.StatusOK},
		{http.MethodPost, "/admin/rules", http.StatusForbidden},
		{http.MethodPost, "/admin/reset", http.StatusForbidden},
	} {
		request, err := http.NewRequestWithContext(t.Context(), tt.method, port+tt.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "envoy-ratelimit:6070"
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != tt.status {
			t.Errorf("%s %s: %s, want %d", tt.method, tt.path, answer.Status, tt.status)
		}
	}
}

// tenants asks the service over TLS, as Envoy does, what tenants have left.
type tenants struct{ rls.RateLimitServiceClient }

func newTenants(t *testing.T, certs string) tenants {
	t.Helper()
	trusted, err := credentials.NewClientTLSFromFile(filepath.Join(certs, "ca.crt"), "envoy-ratelimit.envoy-gateway-system")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("127.0.0.1:8081", grpc.WithTransportCredentials(trusted))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return tenants{rls.NewRateLimitServiceClient(conn)}
}

// have waits until a tenant has that many tokens left: Envoy charges after it has
// answered, and rules come when they come.
func (s tenants) have(t *testing.T, tenant string, tokens uint32) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%s has %d tokens", tenant, tokens), func() bool {
		answer, err := s.ShouldRateLimit(t.Context(), harness.Request("default/eg/http", 0, route, route, "rule-0-match-0", tenant))
		return err == nil && answer.Statuses[0].CurrentLimit != nil && answer.Statuses[0].LimitRemaining == tokens
	})
}
