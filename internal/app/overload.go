package app

import (
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"

	"github.com/distlimiter/ratelimit/internal/overload"
)

// openOverload makes the shedder.
func (s *service) openOverload() {
	s.shedder = overload.New(overload.Options{
		Method: rls.RateLimitService_ShouldRateLimit_FullMethodName, Target: s.opts.GRPC.MaxWait, Log: s.log, Names: s.opts.Names,
	})
	s.metrics = append(s.metrics, s.shedder)
}

// limitConnections makes the gRPC listener count its connections.
func (s *service) limitConnections() {
	busy := s.shedder.Overloaded
	if s.decidesInline() {
		busy = func() bool { return false } // a reader has no handlers to take turns with
	}
	s.connections = overload.NewListener(s.grpcListener, s.opts.GRPC.MaxConnections, busy, s.log)
	s.grpcListener = s.connections
	s.metrics = append(s.metrics, s.connections)
}

// overloadServerOptions are those of grpc-go.
func (s *service) overloadServerOptions() []grpc.ServerOption {
	options := []grpc.ServerOption{
		grpc.MaxConcurrentStreams(s.opts.GRPC.MaxStreams),
		grpc.MaxHeaderListSize(s.opts.GRPC.MaxHeaderBytes),
	}
	if s.opts.GRPC.MaxWait > 0 {
		options = append(options, grpc.InTapHandle(s.shedder.Tap))
	}
	return options
}
