package xds_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	rls "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/freeport"
	"github.com/distlimiter/ratelimit/internal/logtest"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/tlsfiles/tlstest"
	"github.com/distlimiter/ratelimit/internal/xds"
)

// scripted is a control plane that sends responses one after the other, whatever is
// answered, and hands on the answers.
type scripted struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	send    chan *discovery.DiscoveryResponse
	answers chan *discovery.DiscoveryRequest
}

func (s *scripted) StreamAggregatedResources(stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case response := <-s.send:
			if err := stream.Send(response); err != nil {
				return err
			}
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		s.answers <- answer
	}
}

// serve starts a server on a socket of this machine until the test ends.
func serve(t *testing.T, s *scripted, options ...grpc.ServerOption) (addr string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(options...)
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(listener) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// beside runs a coordinator on a provider and on rules of another.
func beside(t *testing.T, o xds.Options, rules string) *reload.Coordinator {
	t.Helper()
	o.ConnectRetry, o.Backoff = 10*time.Millisecond, xds.Backoff{Initial: 10 * time.Millisecond, Max: 50 * time.Millisecond}
	provider, err := xds.New(o)
	if err != nil {
		t.Fatal(err)
	}
	c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{constant(rules), provider}, Delay: time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

// constant is a provider of one file that does not change.
type constant string

func (constant) Origin() config.Origin { return config.FromFile }

func (c constant) Sources(context.Context) ([]rulefile.Source, error) {
	return []rulefile.Source{{Name: "edge.yaml", Data: []byte(c)}}, nil
}

func (constant) Watch(ctx context.Context, changed func()) error {
	changed()
	<-ctx.Done()
	return nil
}

const inFile = "domain: inner\ndescriptors: [{key: user, rate_limit: {unit: day, requests_per_unit: 3}}]\n"

// TestAnswersTellWhatIsInForce sends responses that are right and wrong in ways that
// no single resource shows.
func TestAnswersTellWhatIsInForce(t *testing.T) {
	plane := &scripted{send: make(chan *discovery.DiscoveryResponse), answers: make(chan *discovery.DiscoveryRequest)}
	c := beside(t, xds.Options{Server: serve(t, plane), Credentials: insecure.NewCredentials(), NodeID: node, Log: zap.NewNop()}, inFile)
	named := func(name, domain string, requests uint32) *rls.RateLimitConfig {
		r := perUser(requests)
		r.Name, r.Domain = name, domain
		return r
	}
	inForce := ""
	for _, step := range []struct {
		version, typeURL string
		resources        []*rls.RateLimitConfig
		refused          string // empty: it is in force
	}{
		{version: "1", resources: []*rls.RateLimitConfig{named("a", "edge", 1)}},
		{version: "2", resources: []*rls.RateLimitConfig{named("a", "inner", 2)}, refused: `the domain "inner" is already given at edge.yaml:1:9`},
		{version: "3", resources: []*rls.RateLimitConfig{named("a", "edge", 3), named("a", "edge2", 3)}, refused: `two resources are named "xds:a"`},
		{version: "4", resources: []*rls.RateLimitConfig{named("a", "edge", 4), named("b", "edge", 4)}, refused: `the domain "edge" is already given`},
		{version: "5", typeURL: resource.ClusterType, refused: "envoy.config.cluster.v3.Cluster"},
		{version: "6", typeURL: resource.ClusterType, resources: []*rls.RateLimitConfig{named("a", "edge", 6)}, refused: "envoy.config.cluster.v3.Cluster"},
		{version: "7", resources: []*rls.RateLimitConfig{named("a", strings.Repeat("x", 1<<20), 7), named("b", strings.Repeat("x", 1<<20), 7)}, refused: "already given"},
		{version: "8", resources: []*rls.RateLimitConfig{named("a", "edge", 8), named("b", "edge2", 8)}},
		{version: "9"},
	} {
		response := &discovery.DiscoveryResponse{VersionInfo: step.version, Nonce: "n" + step.version, TypeUrl: resource.RateLimitConfigType}
		if step.typeURL != "" {
			response.TypeUrl = step.typeURL
		}
		for _, r := range step.resources {
			packed, err := anypb.New(r)
			if err != nil {
				t.Fatal(err)
			}
			response.Resources = append(response.Resources, packed)
		}
		plane.send <- response
		answer := <-plane.answers
		if step.refused == "" {
			inForce = step.version
		}
		if answer.VersionInfo != inForce || answer.ResponseNonce != response.Nonce || answer.TypeUrl != resource.RateLimitConfigType {
			t.Errorf("%s: answered version %q for nonce %q, want %q", step.version, answer.VersionInfo, answer.ResponseNonce, inForce)
		}
		if reason := answer.ErrorDetail.GetMessage(); (reason == "") != (step.refused == "") || !strings.Contains(reason, step.refused) || len(reason) > 5000 {
			t.Errorf("%s: refused because of %.200q, want %q", step.version, reason, step.refused)
		}
		rules := c.Rules().String()
		if step.refused == "" && len(step.resources) > 0 && !strings.Contains(rules, "requests_per_unit="+step.version) || !strings.Contains(rules, "inner.user") {
			t.Errorf("%s: in force when it was answered:\n%s", step.version, rules)
		}
	}
	if got := c.Rules().String(); strings.Contains(got, "edge") {
		t.Errorf("what the control plane has taken back is in force:\n%s", got)
	}
}

// TestWhyThereIsNoConnection looks for the reason in the log: of a server that is
// away, and of one whose certificate another authority has signed.
func TestWhyThereIsNoConnection(t *testing.T) {
	authority, stranger := tlstest.NewAuthority(t), tlstest.NewAuthority(t)
	cert, key := authority.Issue("plane", "127.0.0.1", time.Hour)
	secure, err := tlsfiles.Server(tlsfiles.Files{Cert: cert, Key: key, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	distrustful, err := tlsfiles.Client(tlsfiles.Files{CA: stranger.File, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		server string
		creds  credentials.TransportCredentials
		want   string
	}{
		"away":         {freeport.ForTest(t).Addr(), insecure.NewCredentials(), "connection refused"},
		"wrong CA":     {serve(t, &scripted{}, grpc.Creds(credentials.NewTLS(secure))), distrustful, "certificate signed by unknown authority"},
		"no such host": {"nosuch.invalid:1", insecure.NewCredentials(), "name resolver error"},
	} {
		t.Run(name, func(t *testing.T) {
			log, lines := logtest.New(zap.InfoLevel)
			c := beside(t, xds.Options{Server: tt.server, Credentials: tt.creds, NodeID: node, Log: log}, inFile)
			for _, l := range lines.Await(t, 2, "no connection to the xDS server") {
				if reason := l.ContextMap()["error"].(string); !strings.Contains(reason, tt.want) {
					t.Errorf("logged %q, want %q", reason, tt.want)
				}
			}
			if c.Rules() == nil || len(c.Rules().Domains) != 1 {
				t.Errorf("the file's rules are not in force: %v", c.Rules())
			}
			if s := c.Status(); s.Failures != 0 {
				t.Errorf("%d reloads failed while waiting", s.Failures)
			}
		})
	}
}
