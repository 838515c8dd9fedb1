package server_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/distlimiter/ratelimit/internal/overload"
	"github.com/distlimiter/ratelimit/internal/server"
)

// frozenProxy forwards the bytes of connections until it freezes. Then it keeps the
// sockets open and forwards nothing, like a network from which a client has vanished
// without closing its connection.
type frozenProxy struct {
	net.Listener
	frozen atomic.Bool
	mu     sync.Mutex
	open   []net.Conn
}

func startFrozenProxy(t *testing.T, to string) *frozenProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &frozenProxy{Listener: l}
	var running sync.WaitGroup
	pass := func(from, to net.Conn) {
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if err != nil && !p.frozen.Load() {
				_ = to.Close()
			}
			if err != nil {
				return
			}
			if !p.frozen.Load() {
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
		}
	}
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", to)
			if err != nil {
				t.Error(err)
				return
			}
			p.mu.Lock()
			p.open = append(p.open, client, upstream)
			p.mu.Unlock()
			running.Go(func() { pass(client, upstream) })
			running.Go(func() { pass(upstream, client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, c := range p.open {
			_ = c.Close()
		}
		p.mu.Unlock()
		running.Wait()
	})
	return p
}

// openConnections is the listener's gauge.
func openConnections(t *testing.T, l *overload.Listener) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(l)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "ratelimit_grpc_connections" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no gauge of connections")
	return 0
}

// closing signals when a connection that it has accepted is closed.
type closing struct {
	net.Listener
	closed chan struct{}
}

func (c closing) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	return closingConn{conn, c.closed}, err
}

type closingConn struct {
	net.Conn
	closed chan struct{}
}

func (c closingConn) Close() error {
	err := c.Conn.Close()
	select {
	case c.closed <- struct{}{}:
	default: // closed before
	}
	return err
}

// TestClientsThatVanishCountNoMore: after a client vanishes without closing its connection,
// that connection no longer counts toward the bound.
func TestClientsThatVanishCountNoMore(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	counted := overload.NewListener(inner, 1, func() bool { return false }, zap.NewNop())
	l := closing{counted, make(chan struct{}, 1)}
	g := grpc.NewServer(server.GRPCOptions(1<<20, keepalive.ServerParameters{Time: time.Second, Timeout: 100 * time.Millisecond})...)
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	ask := func(addr string) error {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return err
	}
	proxy := startFrozenProxy(t, inner.Addr().String())
	if err := ask(proxy.Addr().String()); err != nil {
		t.Fatal(err)
	}
	proxy.frozen.Store(true)
	if n := openConnections(t, counted); n != 1 {
		t.Fatalf("%v connections, want that of the client", n)
	}
	<-l.closed
	if n := openConnections(t, counted); n != 0 {
		t.Errorf("%v connections after the client has vanished", n)
	}
	if err := ask(inner.Addr().String()); err != nil {
		t.Errorf("another client, in its place: %v", err)
	}
}
