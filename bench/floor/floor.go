// Package floor owns the server that measurements are held against: a grpc-go
// server that answers OK to every rate-limit request and does nothing else. What
// a real service costs beyond it is the service's own doing.
package floor

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

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
	return server.GRPCOptions(1<<20, keepalive.ServerParameters{MaxConnectionAge: 24 * time.Hour, MaxConnectionAgeGrace: time.Hour, Time: 30 * time.Second, Timeout: 10 * time.Second})
}

// LetGarbagePileUp has the collector run when about so many bytes of garbage have
// piled up. Go's own default are a few MB beside the few that are live here, so
// that it would run many times a second, which a service that is tuned spares.
func LetGarbagePileUp(bytes uint64) {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(sample)
	base := uint64(1) // what the collector takes its percentage of
	for _, s := range sample {
		base += s.Value.Uint64()
	}
	debug.SetGCPercent(int(100 * bytes / base))
}
