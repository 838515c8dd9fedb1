// Package floor owns the server that measurements are held against: a grpc-go
// server that answers OK to every rate-limit request and does nothing else. What
// a real service costs beyond it is the service's own doing.
package floor

import (
	"context"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"

	"github.com/distlimiter/ratelimit/internal/server"
)

type ok struct {
	pb.UnimplementedRateLimitServiceServer
}

// ShouldRateLimit implements the gRPC method.
func (ok) ShouldRateLimit(context.Context, *pb.RateLimitRequest) (*pb.RateLimitResponse, error) {
	return &pb.RateLimitResponse{OverallCode: pb.RateLimitResponse_OK}, nil
}

// New returns a floor server with these options of grpc-go.
func New(options ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(options...)
	pb.RegisterRateLimitServiceServer(s, ok{})
	return s
}

// SameOptions are the options that cmd/ratelimit gives grpc-go, so that what is
// compared is the service alone.
func SameOptions() []grpc.ServerOption {
	return server.GRPCOptions(1<<20, 24*time.Hour, time.Hour)
}
