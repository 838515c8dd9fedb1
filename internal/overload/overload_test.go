package overload_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/distlimiter/ratelimit/internal/logtest"
	"github.com/distlimiter/ratelimit/internal/overload"
)

const method = pb.RateLimitService_ShouldRateLimit_FullMethodName

// busy keeps more goroutines running than there are processors until the test ends.
func busy(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	t.Cleanup(func() { stop(); all.Wait() })
	for range 20 * runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for ctx.Err() == nil {
				for start := time.Now(); time.Since(start) < 100*time.Microsecond; {
				}
				runtime.Gosched()
			}
		})
	}
}

// measured leaves the wait for a processor to the runtime.
var measured func() (time.Duration, bool)

// overloaded is a wait that is always longer than the target of the tests.
func overloaded() (time.Duration, bool) { return 10 * time.Millisecond, true }

// run runs a shedder until the test ends.
func run(t *testing.T, target time.Duration, wait func() (time.Duration, bool)) (*overload.Shedder, *logtest.Lines) {
	log, logs := logtest.New(zap.WarnLevel)
	s := overload.New(overload.Options{Method: method, Target: target, Wait: wait, Log: log})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { stop(); <-ended })
	return s, logs
}

// await waits until a condition holds, which must happen.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came about that %s", what)
		}
	}
}

// asked says what becomes of a thousand requests.
func asked(ctx context.Context, s *overload.Shedder, method string) (refused int, err error) {
	for range 1000 {
		if _, e := s.Tap(ctx, &tap.Info{FullMethodName: method}); e != nil {
			refused++
			err = e
		}
	}
	return refused, err
}

// inTurn says what becomes of a request that the tap handle must let pass when it is
// its turn.
func inTurn(ctx context.Context, t *testing.T, s *overload.Shedder) error {
	t.Helper()
	ctx, err := s.Tap(ctx, &tap.Info{FullMethodName: method})
	if err != nil {
		t.Fatalf("by the tap handle: %v", err)
	}
	return s.Admit(ctx)
}

// metric returns the value of a counter or gauge.
func metric(t *testing.T, c prometheus.Collector, name string) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// TestAllIsRefusedOnceNothingCanBeAnswered is for the end of a drain: what was received is
// not decided any more, be it before its turn or at it.
func TestAllIsRefusedOnceNothingCanBeAnswered(t *testing.T) {
	s, _ := run(t, time.Hour, measured)
	waits, err := s.Tap(t.Context(), &tap.Info{FullMethodName: method})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := s.Admit(waits); status.Code(err) != codes.Unavailable {
		t.Errorf("a request that waited for its turn: %v", err)
	}
	if _, err := s.Tap(t.Context(), &tap.Info{FullMethodName: method}); status.Code(err) != codes.Unavailable {
		t.Errorf("a request that was read later: %v", err)
	}
}

func TestNothingIsRefusedWithoutLoad(t *testing.T) {
	s, _ := run(t, time.Hour, measured)
	if n, err := asked(t.Context(), s, method); n != 0 {
		t.Errorf("%d refused: %v", n, err)
	}
}

func TestRequestsAreRefusedUnderLoad(t *testing.T) {
	busy(t)
	s, logs := run(t, time.Millisecond, measured)
	await(t, "there is overload", s.Overloaded)
	var n int
	var err error
	await(t, "requests are refused", func() bool {
		n, err = asked(t.Context(), s, method)
		return n > 0
	})
	if n == 1000 {
		t.Error("all requests are refused, although some may queue")
	}
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "overloaded") {
		t.Errorf("the error is %v", err)
	}
	if n, err := asked(t.Context(), s, "/grpc.health.v1.Health/Check"); n > 0 {
		t.Errorf("%d health checks refused: %v", n, err)
	}
	logs.Await(t, 1, "overloaded")
	if refused := metric(t, s, "ratelimit_overload_refused_total"); int(refused) < n {
		t.Errorf("the metric counts %v refused, of more than %d", refused, n)
	}
	if on, wait := metric(t, s, "ratelimit_overload"), metric(t, s, "ratelimit_overload_wait_seconds"); on != 1 || wait == 0 {
		t.Errorf("the metrics are %v, %v s of wait", on, wait)
	}
}

// A request whose turn has come makes room for another, and so does one whose turn
// does not come for so long that it must be its client who keeps it.
func TestWaitingRequestsMakeRoom(t *testing.T) {
	s, _ := run(t, time.Millisecond, overloaded)
	await(t, "there is overload", s.Overloaded)
	for range 1000 {
		ctx, err := s.Tap(t.Context(), &tap.Info{FullMethodName: method})
		if err != nil {
			t.Fatalf("refused although nobody waits: %v", err)
		}
		if err := s.Admit(ctx); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "requests are refused", func() bool { n, _ := asked(t.Context(), s, method); return n > 0 })
	await(t, "none is refused", func() bool {
		_, err := s.Tap(t.Context(), &tap.Info{FullMethodName: method})
		return err == nil
	})
}

// Clients that wait longer than others may have more requests before theirs.
func TestLongDeadlinesFindMoreRoomInTheQueue(t *testing.T) {
	s, _ := run(t, time.Millisecond, overloaded)
	await(t, "there is overload", s.Overloaded)
	patient, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	await(t, "a patient client has a place when others have none", func() bool {
		if n, _ := asked(t.Context(), s, method); n == 0 {
			return false // those before were just forgotten
		}
		return inTurn(patient, t, s) == nil
	})
	await(t, "patient clients have no more places", func() bool {
		for range runtime.GOMAXPROCS(0) {
			_, _ = asked(patient, s, method) // take all
		}
		return inTurn(patient, t, s) != nil
	})
}

// grpc-go keeps a timer for each request with a deadline that a tap handle
// refuses, so those with a long one are refused later.
func TestLongDeadlinesAreRefusedInTheirTurn(t *testing.T) {
	s, _ := run(t, time.Millisecond, overloaded)
	await(t, "there is overload", s.Overloaded)
	long, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	await(t, "one with a long deadline is refused", func() bool {
		_, _ = asked(short, s, method) // take all places
		return status.Code(inTurn(long, t, s)) == codes.ResourceExhausted
	})
}

func TestRequestsOfClientsThatLeftAreNotAdmitted(t *testing.T) {
	s := overload.New(overload.Options{Method: method, Target: time.Hour, Log: zap.NewNop()})
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if err := s.Admit(late); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("too late: %v", err)
	}
	left, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Admit(left); status.Code(err) != codes.Canceled {
		t.Errorf("left: %v", err)
	}
	if err := s.Admit(t.Context()); err != nil {
		t.Errorf("a client that waits: %v", err)
	}
	if n := metric(t, s, "ratelimit_overload_expired_total"); n != 2 {
		t.Errorf("the metric counts %v", n)
	}
}

// TestNothingIsReadOnceConnectionsAreClosed reads from a connection that is open still: it
// takes a while to close thousands, and a server should not handle what it can't answer.
func TestNothingIsReadOnceConnectionsAreClosed(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	l := overload.NewListener(inner, 2, func() bool { return false }, zap.NewNop())
	client, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := io.WriteString(client, "request"); err != nil {
		t.Fatal(err)
	}
	l.CloseConns()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 10)); n > 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("read %d bytes, error %v", n, err)
	}
}

func TestConnectionsBeyondTheMaximumAreClosed(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log, logs := logtest.New(zap.WarnLevel)
	l := overload.NewListener(inner, 2, func() bool { return true }, log)
	defer l.Close()
	accepted := make(chan net.Conn, 10)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	dial()
	first := <-accepted
	<-accepted
	if _, err := dial().Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the third connection: %v, want it closed", err)
	}
	if logs.FilterMessageSnippet("too many connections").Len() != 1 {
		t.Errorf("the log has %v", logs.All())
	}
	if n := metric(t, l, "ratelimit_grpc_connections_refused_total"); n != 1 {
		t.Errorf("the metric counts %v refused", n)
	}
	// Closed twice, as grpc-go does, a connection still counts once.
	first.Close()
	first.Close()
	dial()
	<-accepted
	if _, err := dial().Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one too many after one was closed: %v", err)
	}
}

// TestListenerClosesSilentConnections closes the listener as a server that stops does:
// only connections with something under way stay, until the server closes them, too.
func TestListenerClosesSilentConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := overload.NewListener(inner, 10, func() bool { return false }, zap.NewNop())
	dial := func() (client, server net.Conn) {
		client, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		if server, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		return client, server
	}
	silent, _ := dial()
	talking, server := dial()
	if _, err := talking.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}

	l.Close()
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a silent connection: %v, want it closed", err)
	}
	if _, err := server.Write([]byte("y")); err != nil {
		t.Errorf("a connection with something under way: %v", err)
	}
	l.CloseConns()
	if rest, err := io.ReadAll(talking); string(rest) != "y" || err != nil {
		t.Errorf("the other connection ends with %q, %v", rest, err)
	}
	if n := metric(t, l, "ratelimit_grpc_connections"); n != 0 {
		t.Errorf("%v connections are open", n)
	}
}

func BenchmarkTap(b *testing.B) {
	s := overload.New(overload.Options{Method: method, Target: time.Second, Log: zap.NewNop()})
	ctx, info := b.Context(), &tap.Info{FullMethodName: method}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Tap(ctx, info); err != nil {
			b.Fatal(err)
		}
	}
}
