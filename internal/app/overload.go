package main

import (
	"math"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/distlimiter/ratelimit/internal/overload"
)

// overloadOptions bound what clients of gRPC may ask of the service at once.
type overloadOptions struct {
	MaxWait        time.Duration `group:"bounds" default:"5ms" env:"MAX_WAIT" help:"How long work may wait for a processor on average before a part of the gRPC requests is refused with ResourceExhausted. 0: refuse none."`
	MaxConnections int           `group:"bounds" default:"10000" env:"MAX_CONNECTIONS" help:"Most gRPC connections; those beyond are closed at once."`
	MaxStreams     uint32        `group:"bounds" default:"1024" env:"MAX_STREAMS" help:"Most gRPC requests under way on one connection; clients hold those beyond back."`
	MaxHeaderBytes uint32        `group:"bounds" default:"65536" env:"MAX_HEADER_BYTES" help:"Most bytes of a gRPC request's headers."`
}

// openOverload makes the shedder.
func (s *service) openOverload() {
	s.shedder = overload.New(overload.Options{
		Method: rls.RateLimitService_ShouldRateLimit_FullMethodName, Target: s.MaxWait, Log: s.log,
	})
	s.metrics = append(s.metrics, s.shedder)
}

// limitConnections has the gRPC listener count its connections.
func (s *service) limitConnections() {
	s.connections = overload.NewListener(s.grpcListener, s.MaxConnections, s.shedder.Overloaded, s.log)
	s.grpcListener = s.connections
	s.metrics = append(s.metrics, s.connections)
}

// keepalive says how long connections may live. Never is so long that it does not
// come, for grpc-go takes 0 for its default.
func (c *serveCmd) keepalive() keepalive.ServerParameters {
	interval := c.KeepaliveInterval
	if interval == 0 {
		interval = math.MaxInt64
	}
	return keepalive.ServerParameters{
		MaxConnectionAge: c.MaxConnectionAge, MaxConnectionAgeGrace: c.MaxConnectionAgeGrace,
		Time: interval, Timeout: c.KeepaliveTimeout,
	}
}

// overloadServerOptions are those of grpc-go.
func (s *service) overloadServerOptions() []grpc.ServerOption {
	options := []grpc.ServerOption{
		grpc.MaxConcurrentStreams(s.MaxStreams),
		grpc.MaxHeaderListSize(s.MaxHeaderBytes),
	}
	if s.MaxWait > 0 {
		options = append(options, grpc.InTapHandle(s.shedder.Tap))
	}
	return options
}
