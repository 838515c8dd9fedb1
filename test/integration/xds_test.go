package integration

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/tlsfiles/tlstest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// gatewayNode is as whom Envoy Gateway has its rate-limit service ask.
const gatewayNode = "envoy-ratelimit"

// plane is a real go-control-plane server.
type plane struct {
	t     *testing.T
	addr  string
	cache cache.SnapshotCache
	asked chan *discovery.DiscoveryRequest
	heads chan metadata.MD
}

// newPlane starts one that speaks mutual TLS.
func newPlane(t *testing.T, f tlsfiles.Files) *plane {
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
	return servePlane(t, listener, grpc.Creds(credentials.NewTLS(config)))
}

// servePlane serves a control plane without rules.
func servePlane(t *testing.T, listener net.Listener, options ...grpc.ServerOption) *plane {
	t.Helper()
	p := &plane{
		t: t, addr: listener.Addr().String(), cache: cache.NewSnapshotCache(true, cache.IDHash{}, nil),
		asked: make(chan *discovery.DiscoveryRequest, 100), heads: make(chan metadata.MD, 100),
	}
	g := grpc.NewServer(options...)
	discovery.RegisterAggregatedDiscoveryServiceServer(g, server.NewServer(context.Background(), p.cache, server.CallbackFuncs{
		StreamOpenFunc: func(ctx context.Context, _ int64, _ string) error {
			md, _ := metadata.FromIncomingContext(ctx)
			p.heads <- md
			return nil
		},
		StreamRequestFunc: func(_ int64, r *discovery.DiscoveryRequest) error {
			p.asked <- r
			return nil
		},
	}))
	done := make(chan error, 1)
	go func() { done <- g.Serve(listener) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

// next returns the next request of a client.
func (p *plane) next() *discovery.DiscoveryRequest {
	p.t.Helper()
	select {
	case r := <-p.asked:
		return r
	case <-time.After(30 * time.Second):
		p.t.Fatal("nobody asks for rules")
		return nil
	}
}

// set gives a limit for each user in a year.
func (p *plane) set(version string, limit uint32) {
	p.t.Helper()
	rules := &ratelimit.RateLimitConfig{Name: "default/gateway/http", Domain: "default/gateway/http", Descriptors: []*ratelimit.RateLimitDescriptor{{
		Key: "user", RateLimit: &ratelimit.RateLimitPolicy{Unit: ratelimit.RateLimitUnit_YEAR, RequestsPerUnit: limit},
	}}}
	snapshot, err := cache.NewSnapshot(version, map[resource.Type][]types.Resource{resource.RateLimitConfigType: {rules}})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cache.SetSnapshot(p.t.Context(), gatewayNode, snapshot); err != nil {
		p.t.Fatal(err)
	}
}

// TestStartedByEnvoyGateway gives the binary the environment that Envoy Gateway
// gives its rate-limit container: rules by xDS over mutual TLS, gRPC by TLS, Redis.
func TestStartedByEnvoyGateway(t *testing.T) {
	t.Parallel()
	authority := tlstest.NewAuthority(t)
	planeCert, planeKey := authority.Issue("envoy-gateway", "envoy-gateway", time.Hour)
	cert, key := authority.Issue("envoy-rate-limit", "127.0.0.1", time.Hour)
	control := newPlane(t, tlsfiles.Files{Cert: planeCert, Key: planeKey, CA: authority.File})

	service := harness.StartBare(t, patiently(
		"RUNTIME_ROOT=/data",
		"RUNTIME_SUBDIRECTORY=ratelimit",
		"RUNTIME_IGNOREDOTFILES=true",
		"RUNTIME_WATCH_ROOT=false",
		"LOG_LEVEL=info",
		"USE_STATSD=false",
		"CONFIG_TYPE=GRPC_XDS_SOTW",
		"CONFIG_GRPC_XDS_SERVER_URL="+control.addr,
		"CONFIG_GRPC_XDS_NODE_ID="+gatewayNode,
		"CONFIG_GRPC_XDS_NODE_METADATA=zone=a,rack=7",
		"CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS=x-one:1,x-two:2:3",
		"CONFIG_GRPC_XDS_SERVER_USE_TLS=true",
		"CONFIG_GRPC_XDS_CLIENT_TLS_CERT="+cert,
		"CONFIG_GRPC_XDS_CLIENT_TLS_KEY="+key,
		"CONFIG_GRPC_XDS_SERVER_TLS_CACERT="+authority.File,
		"CONFIG_GRPC_XDS_SERVER_TLS_SAN=envoy-gateway",
		"GRPC_SERVER_USE_TLS=true",
		"GRPC_SERVER_TLS_CERT="+cert,
		"GRPC_SERVER_TLS_KEY="+key,
		"GRPC_CLIENT_TLS_CACERT="+authority.File,
		"REDIS_SOCKET_TYPE=tcp",
		"REDIS_URL="+redistest.Start(t, redistest.Config{}).Addr,
	)...)
	first := control.next()
	if meta := first.Node.Metadata.Fields; first.Node.Id != gatewayNode || meta["zone"].GetStringValue() != "a" || meta["rack"].GetStringValue() != "7" {
		t.Errorf("asked as %v", first.Node)
	}
	if md := <-control.heads; len(md.Get("x-one")) != 1 || md.Get("x-one")[0] != "1" || md.Get("x-two")[0] != "2:3" {
		t.Errorf("asked with headers %v", md)
	}
	harness.Eventually(t, "the service answers and is not ready without rules", func() bool {
		answer, err := http.Get("http://" + service.HTTP + "/healthcheck")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusServiceUnavailable
	})
	control.set("1", 2)
	harness.Eventually(t, "the service is ready with rules", func() bool {
		return httpStatus(t, service.HTTP, "/healthcheck") == http.StatusOK
	})
	for series, want := range map[string]float64{"success": 1, "error": 0} { // waiting is no failure
		if got := service.Metric(t, "ratelimit_service_config_load_"+series); got != want {
			t.Errorf("config_load_%s is %v after the start, want %v", series, got, want)
		}
	}

	clientCert, clientKey := authority.Issue("envoy", "envoy", time.Hour)
	ask := func(files tlsfiles.Files) (*rls.RateLimitResponse, error) {
		t.Helper()
		files.Log = zaptest.NewLogger(t)
		creds, err := tlsfiles.Client(files)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient(service.GRPC, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		return rls.NewRateLimitServiceClient(conn).ShouldRateLimit(ctx, harness.Request("default/gateway/http", 1, "user", "alice"))
	}
	envoy := tlsfiles.Files{Cert: clientCert, Key: clientKey, CA: authority.File}
	codes := func(n int) (list []rls.RateLimitResponse_Code) {
		t.Helper()
		for range n {
			answer, err := ask(envoy)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, answer.OverallCode)
		}
		return list
	}
	if got := codes(3); got[1] != rls.RateLimitResponse_OK || got[2] != rls.RateLimitResponse_OVER_LIMIT {
		t.Errorf("with a limit of 2: %v", got)
	}
	if _, err := ask(tlsfiles.Files{CA: authority.File}); err == nil {
		t.Error("a client without a certificate is served")
	}
	stranger := tlstest.NewAuthority(t)
	strangeCert, strangeKey := stranger.Issue("envoy", "envoy", time.Hour)
	if _, err := ask(tlsfiles.Files{Cert: strangeCert, Key: strangeKey, CA: authority.File}); err == nil {
		t.Error("a client of another authority is served")
	}

	control.set("2", 5)
	harness.Eventually(t, "the update is in force", func() bool {
		answer, err := ask(tlsfiles.Files{Cert: clientCert, Key: clientKey, CA: authority.File})
		return err == nil && answer.Statuses[0].CurrentLimit.RequestsPerUnit == 5
	})
}
