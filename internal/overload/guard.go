package overload

import (
	"context"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
)

// Guard returns a service that asks next only what somebody still waits for and
// what the shedder does not refuse: a decision charges a counter, and whoever has
// given up will ask again or has let the request pass.
func (s *Shedder) Guard(next pb.RateLimitServiceServer) pb.RateLimitServiceServer {
	return &guard{shedder: s, next: next}
}

type guard struct {
	pb.UnimplementedRateLimitServiceServer
	shedder *Shedder
	next    pb.RateLimitServiceServer
}

// ShouldRateLimit implements the gRPC method.
func (g *guard) ShouldRateLimit(ctx context.Context, req *pb.RateLimitRequest) (*pb.RateLimitResponse, error) {
	if err := g.shedder.begin(ctx); err != nil {
		return nil, err
	}
	return g.next.ShouldRateLimit(ctx, req)
}
