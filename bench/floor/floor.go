// Package floor is the server that measurements are compared with: a grpc-go server that
// answers OK to every rate-limit request and does nothing else. The cost of a real service
// beyond the floor is the cost of the service itself.
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

// SameOptions are the options that cmd/ratelimit gives grpc-go, so that a comparison shows
// the cost of the service alone.
func SameOptions() []grpc.ServerOption {
	return server.GRPCOptions(1<<20, keepalive.ServerParameters{MaxConnectionAge: 24 * time.Hour, MaxConnectionAgeGrace: time.Hour, Time: 30 * time.Second, Timeout: 10 * time.Second})
}

// LetGarbagePileUp makes the collector run when about that many bytes of garbage have piled
// up. With the few MB that are live here, it would by default run many times a second, which
// a tuned service avoids.
func LetGarbagePileUp(bytes uint64) {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(sample)
	base := uint64(1) // the base of the collector's percentage
	for _, s := range sample {
		base += s.Value.Uint64()
	}
	debug.SetGCPercent(int(100 * bytes / base))
}
