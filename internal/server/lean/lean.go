// Package lean is a front for one unary gRPC method that costs less than grpc-go's: a
// goroutine for each connection reads its frames, answers each call at once, and writes
// once for all calls that it read together. It serves what nearly all calls are: header
// fields without surprises, then one message in one frame. Every other stream is relayed
// to a grpc-go server, frame by frame: other methods, compressed, long and split messages,
// header fields that something may be wrong with. So their meaning stands in grpc-go only.
// Deciding, and what the messages mean, are left to others.
package lean

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/tap"

	"github.com/distlimiter/ratelimit/internal/sparing"
)

// Options configure a Server. All but Handshake, Late and Tap are required.
type Options struct {
	// Method is the full name of the method, such as /package.Service/Method.
	Method string
	// Answer appends the encoded answer to the encoded request in message to out. It
	// keeps neither. An error is a gRPC status.
	Answer func(ctx context.Context, out, message []byte) ([]byte, error)
	// Waits makes each call run in a goroutine of its own, because Answer may wait.
	Waits bool
	// Tap, if set, is asked before each call, as grpc-go does. It must be quick.
	Tap tap.ServerInHandle
	// Late, if set, is called when a client gives up a call that is answered already: the
	// answer came too late.
	Late func()
	// Handshake, if set, makes a connection secure.
	Handshake func(net.Conn) (net.Conn, error)
	// Rest serves what this server does not. It needs no TLS, because its connections
	// are in memory. It must be told the same bounds.
	Rest Rest

	MaxMessageBytes int
	MaxStreams      uint32 // at a time, on one connection
	MaxHeaderBytes  uint32
	Keepalive       keepalive.ServerParameters
	Log             *zap.Logger
}

// Rest is a [grpc.Server].
type Rest interface {
	Serve(net.Listener) error
	GracefulStop()
	Stop()
}

// Server serves gRPC. Its methods do what those of [grpc.Server] do.
type Server struct {
	Options
	rest *pipes

	mu        sync.Mutex
	conns     map[*conn]struct{}
	listeners []net.Listener
	stopped   bool // or draining

	serving sync.WaitGroup // connections
	calls   sync.WaitGroup // that run in goroutines of their own
	jobs    chan job       // for idle workers
	idle    atomic.Int32   // workers
	watch   sync.Once
	done    chan struct{}
	log     *zap.Logger
	started time.Time
	now     atomic.Int64 // when the connections were looked at last, in ns since started; never 0
}

// New returns a Server. It needs a Stop or GracefulStop.
func New(o Options) *Server {
	s := &Server{Options: o, rest: newPipes(), conns: make(map[*conn]struct{}), jobs: make(chan job), log: sparing.Log(o.Log, 1, 10*time.Second), started: time.Now(), done: make(chan struct{})}
	s.now.Store(1)
	go func() { _ = o.Rest.Serve(s.rest) }() // ends with the pipes
	go s.watchConnections()
	return s
}

// Serve serves the connections of l until Stop or GracefulStop.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		_ = l.Close()
		return grpc.ErrServerStopped
	}
	s.listeners = append(s.listeners, l)
	s.mu.Unlock()
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			s.begin(nc)
			continue
		}
		if s.isStopped() {
			return nil
		}
		if temporary, is := errors.AsType[interface {
			error
			Temporary() bool
		}](err); !is || !temporary.Temporary() { // such as too many open files
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log.Warn("a connection was not accepted", zap.Error(err), zap.Duration("pause", pause))
		select {
		case <-time.After(pause):
		case <-s.done:
			return nil
		}
	}
}

// begin serves a connection, unless the server has stopped.
func (s *Server) begin(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		_ = nc.Close()
		return
	}
	s.serving.Go(func() { s.serve(nc) })
}

func (s *Server) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// handshakeTime bounds the time until a connection's first bytes make sense.
const handshakeTime = 20 * time.Second

func (s *Server) serve(nc net.Conn) {
	_ = nc.SetDeadline(time.Now().Add(handshakeTime))
	if s.Handshake != nil {
		secure, err := s.Handshake(nc)
		if err != nil {
			_ = nc.Close()
			return
		}
		nc = secure
	}
	c := newConn(s, nc)
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		_ = nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	c.serve()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// stop closes the listeners and returns the connections.
func (s *Server) stop() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for _, l := range s.listeners {
		_ = l.Close() // nothing waits there any more
	}
	s.listeners = nil
	return s.snapshot()
}

// snapshot returns the connections; s.mu is held.
func (s *Server) snapshot() []*conn {
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// GracefulStop takes no new connections and calls, and returns when all calls are
// answered.
func (s *Server) GracefulStop() {
	for _, c := range s.stop() {
		s.serving.Go(func() { // none waits until another has read what it was sent
			c.mu.Lock()
			defer c.mu.Unlock()
			c.drain()
			c.flush()
		})
	}
	s.end()
}

// Stop closes all connections, and returns when the calls under way have ended.
func (s *Server) Stop() {
	for _, c := range s.stop() {
		_ = c.nc.Close() // whose reader sees it
	}
	s.Rest.Stop()
	s.end()
}

// end waits until nothing runs any more.
func (s *Server) end() {
	s.serving.Wait()
	s.calls.Wait()
	s.watch.Do(func() { close(s.done) })
	s.rest.Close()
	s.Rest.GracefulStop()
}

// job is a call that may wait.
type job struct {
	c   *conn
	ctx context.Context
	st  *stream
	b   *buffer
}

// mostIdle is how many idle workers are kept.
const mostIdle = 256

// work runs j in an idle worker, whose stack has grown, or else in a new one.
func (s *Server) work(j job) {
	s.calls.Add(1)
	select {
	case s.jobs <- j:
	default:
		go s.worker(j)
	}
}

func (s *Server) worker(j job) {
	for {
		j.c.wait(j.ctx, j.st, j.b)
		s.calls.Done()
		if s.idle.Add(1) > mostIdle {
			s.idle.Add(-1)
			return
		}
		select {
		case j = <-s.jobs:
			s.idle.Add(-1)
		case <-s.done:
			return
		}
	}
}

// at returns the time that is ns after the start. Steps of the wall clock do not change it.
func (s *Server) at(ns int64) time.Time { return s.started.Add(time.Duration(ns)) }

// watchConnections looks at all connections now and then, for what they do not see
// themselves: silence, age, writes that do not end. It never waits for one of them.
func (s *Server) watchConnections() {
	tick := time.Second
	for _, d := range []time.Duration{s.Keepalive.Time, s.Keepalive.Timeout, s.Keepalive.MaxConnectionAge, s.Keepalive.MaxConnectionAgeGrace, s.Keepalive.MaxConnectionIdle} {
		if d > 0 {
			tick = max(min(tick, d/10), 10*time.Millisecond)
		}
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			s.now.Store(int64(now.Sub(s.started)))
			s.mu.Lock()
			conns := s.snapshot()
			s.mu.Unlock()
			for _, c := range conns {
				c.look(now)
			}
		case <-s.done:
			return
		}
	}
}
