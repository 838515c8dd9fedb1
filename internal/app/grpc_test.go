package app

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/oklog/run"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/distlimiter/ratelimit/internal/overload"
)

// endless is a front that has so much to end that it never does.
type endless struct{ stopped chan struct{} }

func (e endless) Serve(net.Listener) error { select {} }
func (e endless) GracefulStop()            { select {} }
func (e endless) Stop()                    { close(e.stopped); select {} }

// TestAFrontThatDoesNotEndHoldsUpNoEnd ends a service after a flood: once the drain is over,
// nothing is decided any more, and the service does not wait for what grpc-go still does.
func TestAFrontThatDoesNotEndHoldsUpNoEnd(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s := &service{log: zap.NewNop(), shedder: overload.New(overload.Options{Log: zap.NewNop()})}
	s.connections = overload.NewListener(listener, 1, s.shedder.Overloaded, s.log)
	s.grpcListener = s.connections
	drain, timeUp := context.WithCancel(t.Context())
	front := endless{make(chan struct{})}
	signal := errors.New("a signal")
	var group run.Group
	group.Add(func() error { return signal }, func(error) { timeUp() })
	s.serveGRPC(drain, &group, front)
	if err := group.Run(); !errors.Is(err, signal) {
		t.Errorf("the service ended with %v", err)
	}
	<-front.stopped
	if err := s.shedder.Admit(t.Context()); status.Code(err) != codes.Unavailable {
		t.Errorf("a request that was received is decided: %v", err)
	}
}
