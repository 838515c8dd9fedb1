package xds_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	rls "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/freeport"
	"github.com/distlimiter/ratelimit/internal/xds"
)

// controlPlane is a real go-control-plane server on a socket of this machine.
type controlPlane struct {
	t        *testing.T
	addr     string
	cache    cache.SnapshotCache
	requests chan *discovery.DiscoveryRequest
	headers  chan metadata.MD
	grpc     *grpc.Server
}

const node = "test-node"

func newControlPlane(t *testing.T, addr string) *controlPlane {
	c := &controlPlane{
		t: t, cache: cache.NewSnapshotCache(true, cache.IDHash{}, nil),
		requests: make(chan *discovery.DiscoveryRequest, 100), headers: make(chan metadata.MD, 100),
	}
	c.start(addr)
	return c
}

func (c *controlPlane) start(addr string) {
	c.t.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.addr = listener.Addr().String()
	c.grpc = grpc.NewServer()
	xdsServer := server.NewServer(context.Background(), c.cache, server.CallbackFuncs{
		StreamOpenFunc: func(ctx context.Context, _ int64, _ string) error {
			md, _ := metadata.FromIncomingContext(ctx)
			c.headers <- md
			return nil
		},
		StreamRequestFunc: func(_ int64, r *discovery.DiscoveryRequest) error {
			c.requests <- r
			return nil
		},
	})
	discovery.RegisterAggregatedDiscoveryServiceServer(c.grpc, xdsServer)
	serving := c.grpc
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := serving.Serve(listener); err != nil {
			c.t.Error(err)
		}
	}()
	c.t.Cleanup(func() { serving.Stop(); <-done })
}

func (c *controlPlane) set(version string, configs ...*rls.RateLimitConfig) {
	c.t.Helper()
	resources := make([]types.Resource, len(configs))
	for i, r := range configs {
		resources[i] = r
	}
	snapshot, err := cache.NewSnapshot(version, map[resource.Type][]types.Resource{resource.RateLimitConfigType: resources})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.cache.SetSnapshot(context.Background(), node, snapshot); err != nil {
		c.t.Fatal(err)
	}
}

// next returns the next request that answers a response, or the first if nonce
// is not asked for.
func (c *controlPlane) next(answering bool) *discovery.DiscoveryRequest {
	c.t.Helper()
	for {
		select {
		case r := <-c.requests:
			if (r.ResponseNonce != "") == answering {
				return r
			}
		case <-time.After(20 * time.Second):
			c.t.Fatal("the server got no request")
		}
	}
}

func perUser(requests uint32) *rls.RateLimitConfig {
	return &rls.RateLimitConfig{Name: "edge-config", Domain: "edge", Descriptors: []*rls.RateLimitDescriptor{{
		Key: "user", RateLimit: &rls.RateLimitPolicy{Unit: rls.RateLimitUnit_MINUTE, RequestsPerUnit: requests},
	}}}
}

// failed stands for rules in a coordinator whose last reload failed.
const failed = "failed: "

// follow runs a coordinator on a provider; the returned function waits until
// its rules are as wanted.
func follow(t *testing.T, addr string) (c *reload.Coordinator, rules func(want string)) {
	t.Helper()
	provider, err := xds.New(xds.Options{
		Server: addr, Credentials: insecure.NewCredentials(), NodeID: node, NodeMetadata: map[string]string{"zone": "a"},
		Headers: map[string]string{"x-token": "t1"}, Log: zaptest.NewLogger(t),
		ConnectRetry: 10 * time.Millisecond, Backoff: xds.Backoff{Initial: 10 * time.Millisecond, Max: 50 * time.Millisecond, Jitter: 0.5},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.Sources(context.Background()); !errors.Is(err, xds.ErrNoRules) {
		t.Errorf("before the server answers: %v", err)
	}
	reloads := make(chan struct{}, 100)
	c = reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse,
		Providers: []reload.Provider{provider}, Delay: time.Millisecond, Log: zaptest.NewLogger(t),
		OnReload: func(reload.Attempt) { reloads <- struct{}{} },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c, func(want string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			got := ""
			if r := c.Rules(); r != nil {
				got = r.String()
			}
			if c.Status().Last.Outcome == reload.Failed {
				got = failed + got
			}
			if strings.Contains(got, want) {
				return
			}
			select {
			case <-reloads:
			case <-deadline:
				t.Fatalf("rules are\n%s\nwant %q", got, want)
			}
		}
	}
}

func TestFollowsAServer(t *testing.T) {
	plane := newControlPlane(t, "127.0.0.1:0")
	plane.set("1", perUser(5))
	_, rules := follow(t, plane.addr)

	first := plane.next(false)
	if first.Node.Id != node || first.Node.Metadata.Fields["zone"].GetStringValue() != "a" || first.TypeUrl != resource.RateLimitConfigType {
		t.Errorf("asked as %v", first)
	}
	if md := <-plane.headers; len(md.Get("x-token")) != 1 || md.Get("x-token")[0] != "t1" {
		t.Errorf("headers %v", md)
	}
	if ack := plane.next(true); ack.ErrorDetail != nil || ack.VersionInfo != "1" {
		t.Errorf("answered %v, want an ACK of 1", ack)
	}
	rules("requests_per_unit=5")
	for _, n := range []uint32{6, 7, 8} {
		plane.set(string(rune('0'+n)), perUser(n))
	}
	rules("requests_per_unit=8")
}

func TestRefusesBadRulesAndKeepsTheOld(t *testing.T) {
	plane := newControlPlane(t, "127.0.0.1:0")
	plane.set("good", perUser(5))
	_, rules := follow(t, plane.addr)
	rules("requests_per_unit=5")
	plane.next(true)

	bad := perUser(6)
	bad.Descriptors[0].Key = ""
	plane.set("bad", bad)
	nack := plane.next(true)
	if nack.VersionInfo != "good" || nack.ErrorDetail == nil || !strings.Contains(nack.ErrorDetail.Message, "descriptors[0]") {
		t.Errorf("answered %v, want a NACK that says where", nack)
	}
	rules(failed)
	rules("requests_per_unit=5")
	plane.set("mended", perUser(7))
	rules("requests_per_unit=7")
	for {
		if ack := plane.next(true); ack.ErrorDetail == nil {
			if ack.VersionInfo != "mended" {
				t.Errorf("answered %v, want an ACK of what was mended", ack)
			}
			break
		}
	}
}

func TestServerThatComesLaterAndGoes(t *testing.T) {
	addr := freeport.ForTest(t).Addr()
	_, rules := follow(t, addr)

	plane := newControlPlane(t, addr)
	plane.set("1", perUser(5))
	rules("requests_per_unit=5")

	plane.grpc.Stop()
	plane.set("2", perUser(6))
	rules("requests_per_unit=5")
	plane.start(addr)
	rules("requests_per_unit=6")
}

func TestExtensionReachesAllAlgorithms(t *testing.T) {
	extension, err := structpb.NewStruct(map[string]any{
		"owner": "a-team",
		xds.Extension: map[string]any{
			"algorithm": "hybrid", "denied_hits": "count",
			"token_bucket":   map[string]any{"capacity": 20, "refill_rate": "2/s"},
			"sliding_window": map[string]any{"requests_per_unit": 100, "unit": "minute"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	several, err := structpb.NewStruct(map[string]any{xds.Extension: map[string]any{
		"share_threshold": true,
		"rate_limits": []any{
			map[string]any{"unit": "second", "requests_per_unit": 10},
			map[string]any{"unit": "day", "requests_per_unit": 1000000, "algorithm": "sliding_window", "strict": true},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	plane := newControlPlane(t, "127.0.0.1:0")
	plane.set("1", &rls.RateLimitConfig{Name: "edge-config", Domain: "edge", Descriptors: []*rls.RateLimitDescriptor{
		{Key: "api", Metadata: extension},
		{Key: "path", Value: "/x*", Metadata: several},
		{Key: "user", QuotaMode: true, ShadowMode: true, DetailedMetric: true, RateLimit: &rls.RateLimitPolicy{Name: "base", Unit: rls.RateLimitUnit_WEEK, RequestsPerUnit: 3},
			Descriptors: []*rls.RateLimitDescriptor{{Key: "vip", RateLimit: &rls.RateLimitPolicy{Unlimited: true, Replaces: []*rls.RateLimitReplace{{Name: "base"}}}}}},
	}})
	c, rules := follow(t, plane.addr)
	rules("edge")
	d := c.Rules().Domains[0].Descriptors
	if got := d[0].Limits[0].Algo.Params(); got.Algorithm.String() != "hybrid" || got.Burst != 20 || got.Refill.Hits != 2 || got.Limit != 100 {
		t.Errorf("hybrid is %+v", got)
	}
	if d[0].Metadata["owner"] != "a-team" || d[0].Metadata[xds.Extension] != nil {
		t.Errorf("metadata left is %v", d[0].Metadata)
	}
	if len(d[1].Limits) != 2 || !d[1].ShareThreshold || !d[1].Limits[1].Algo.Params().Strict || d[1].Limits[1].RequestsPerUnit != 1000000 {
		t.Errorf("several limits are %+v", d[1])
	}
	if u := d[2]; !u.QuotaMode || !u.ShadowMode || !u.DetailedMetric || u.Limits[0].Unit != config.Week || !u.Descriptors[0].Limits[0].Unlimited || u.Descriptors[0].Limits[0].Replaces[0] != "base" {
		t.Errorf("the message's own fields are %+v", u)
	}
}
