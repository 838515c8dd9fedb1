package server_test

import (
	"context"
	"net"
	"testing"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/distlimiter/ratelimit/internal/server"
)

// TestConnectionAge: a connection that is old enough is asked to close, and its
// client makes another, on which requests go on.
func TestConnectionAge(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: year, requests_per_unit: 9}}\n")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(server.GRPCOptions(1<<20, 50*time.Millisecond, time.Second)...)
	pb.RegisterRateLimitServiceServer(g, f.Service)
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range 2 {
		request := &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("user=a")}}
		if _, err := pb.NewRateLimitServiceClient(conn).ShouldRateLimit(ctx, request, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		for state := conn.GetState(); state != connectivity.Idle; state = conn.GetState() {
			if !conn.WaitForStateChange(ctx, state) {
				t.Fatalf("the connection stays %v", state)
			}
		}
	}
}
