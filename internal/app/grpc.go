package app

import (
	"context"
	"math"
	"net"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/oklog/run"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/server/lean"
)

// grpcFront serves gRPC: grpc-go, or the lean front before it.
type grpcFront interface {
	Serve(net.Listener) error
	GracefulStop()
	Stop()
}

func (s *service) grpcFront() grpcFront {
	connections := s.opts.GRPC.Keepalive
	if connections.Time == 0 {
		connections.Time = math.MaxInt64 // never
	}
	if s.opts.GRPC.Lean && s.traces != nil {
		s.log.Warn("traces are recorded by grpc-go: it answers, and not the lean front")
	}
	if !s.leanFront() {
		var secure []grpc.ServerOption
		if s.handshakes != nil {
			secure = append(secure, grpc.Creds(s.handshakes))
		}
		return s.grpcServer(connections, secure...)
	}
	o := lean.Options{
		Method: rls.RateLimitService_ShouldRateLimit_FullMethodName, Answer: s.server.Answer, Waits: !s.decidesInline(),
		Rest:            s.grpcServer(inMemory),
		MaxMessageBytes: s.opts.GRPC.MaxMessageSize, MaxStreams: s.opts.GRPC.MaxStreams, MaxHeaderBytes: s.opts.GRPC.MaxHeaderBytes,
		Keepalive: connections, Log: s.log, Late: s.shedder.Late,
	}
	if s.opts.GRPC.MaxWait > 0 && o.Waits {
		o.Tap = s.shedder.Tap
	}
	if s.handshakes != nil {
		o.Handshake = func(c net.Conn) (net.Conn, error) {
			secure, _, err := s.handshakes.ServerHandshake(c)
			return secure, err
		}
	}
	return lean.New(o)
}

// leanFront reports whether the lean front serves: traces are grpc-go's.
func (s *service) leanFront() bool { return s.opts.GRPC.Lean && s.traces == nil }

// decidesInline reports whether the reader of a connection decides its requests. None waits
// for its turn then, so that none is refused under overload.
func (s *service) decidesInline() bool { return s.leanFront() && s.opts.Store.Open == nil }

// inMemory is the keepalive of connections from the lean front, which end with those of
// its clients.
var inMemory = keepalive.ServerParameters{Time: math.MaxInt64}

func (s *service) grpcServer(connections keepalive.ServerParameters, more ...grpc.ServerOption) *grpc.Server {
	options := server.GRPCOptions(s.opts.GRPC.MaxMessageSize, connections)
	options = append(append(options, s.overloadServerOptions()...), s.traces.GRPC()...)
	g := grpc.NewServer(append(options, more...)...)
	if s.traces != nil { // a span records the messages
		rls.RegisterRateLimitServiceServer(g, s.traces.Service(s.server))
	} else {
		s.server.Register(g)
	}
	grpc_health_v1.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	return g
}

// lastDecisions is how long decisions under way may take when no answer can arrive any
// more. Those in memory are made at once, and those in Redis give up about then.
const lastDecisions = 250 * time.Millisecond

// serveGRPC adds the front to the group. When the group ends, requests under way
// are answered until drain ends. Then their connections are closed, because grpc-go waits
// for handshakes even in Stop, and nothing more is decided. After a flood grpc-go can take
// many seconds to end a million requests that nobody waits for, so it is left to that.
func (s *service) serveGRPC(drain context.Context, group *run.Group, front grpcFront) {
	served := make(chan error, 2)
	group.Add(func() error {
		go func() { served <- front.Serve(s.grpcListener) }()
		return <-served
	}, func(error) {
		drained := make(chan struct{})
		go func() {
			front.GracefulStop()
			close(drained)
		}()
		select {
		case <-drained:
			return
		case <-drain.Done():
		}
		s.log.Warn("requests were still in flight at the end of " + s.opts.Names.Of("DrainTimeout"))
		s.shedder.Close()
		s.connections.CloseConns()
		go front.Stop()
		select {
		case <-drained:
		case <-time.After(lastDecisions):
			served <- nil
		}
	})
}
