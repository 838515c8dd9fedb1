// Package floor owns the server that measurements are held against: a grpc-go
// server that answers OK to every rate-limit request and does nothing else. What
// a real service costs beyond it is the service's own doing.
package floor

import (
	"context"
	"runtime"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

type server struct {
	pb.UnimplementedRateLimitServiceServer
}

// ShouldRateLimit implements the gRPC method.
func (server) ShouldRateLimit(context.Context, *pb.RateLimitRequest) (*pb.RateLimitResponse, error) {
	return &pb.RateLimitResponse{OverallCode: pb.RateLimitResponse_OK}, nil
}

// New returns a floor server with these options of grpc-go.
func New(options ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(options...)
	pb.RegisterRateLimitServiceServer(s, server{})
	return s
}

// SameOptions are the options that cmd/ratelimit gives grpc-go, so that what is
// compared is the service alone.
func SameOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.NumStreamWorkers(uint32(runtime.GOMAXPROCS(0))),
		grpc.WaitForHandlers(true),
		grpc.MaxRecvMsgSize(1 << 20),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 24 * time.Hour, MaxConnectionAgeGrace: time.Hour}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}
