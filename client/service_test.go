package client_test

import (
	"errors"
	"net"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/server/wire"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// service is the real service, in memory, on a port of loopback.
type service struct {
	addr   string
	server *grpc.Server
	store  *memory.Store
}

// startService starts a service with rules. Examples have no test to fail, so it panics.
func startService(yaml string) *service {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	rules, err := rulefile.Parse([]rulefile.Source{{Name: "rules.yaml", Data: []byte(yaml)}}, rulefile.Options{})
	must(err)
	s := &service{store: memory.New(memory.Options{})}
	counts := stats.New(0)
	l := limiter.New(limiter.Options{Backend: s.store, Log: zap.NewNop(), Stats: counts, Encode: wire.EncodeLimit})
	must(l.SetRules(rules))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	s.addr = listener.Addr().String()
	s.server = grpc.NewServer(server.GRPCOptions(1<<20, keepalive.ServerParameters{})...)
	server.New(l, server.Options{Stats: counts}).Register(s.server)
	go func() {
		// A test may be over before its server has begun.
		if err := s.server.Serve(listener); !errors.Is(err, grpc.ErrServerStopped) {
			must(err)
		}
	}()
	return s
}

func (s *service) stop() {
	s.server.Stop()
	_ = s.store.Close()
}
