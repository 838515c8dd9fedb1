// Package front tests that the lean front of gRPC does what grpc-go does.
package front

import (
	"context"
	"errors"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/distlimiter/ratelimit/internal/server/lean"
)

const mostBytes = 1 << 20

// service answers with the domain as the body; the domain may ask for something else.
type service struct {
	rls.UnimplementedRateLimitServiceServer

	began chan struct{} // gets a call that waits
	ended chan error    // gets the error of the context of a call that waited
}

func newService() *service {
	return &service{began: make(chan struct{}, 100), ended: make(chan error, 100)}
}

func (s *service) ShouldRateLimit(ctx context.Context, r *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	switch r.Domain {
	case "invalid":
		return nil, status.Error(codes.InvalidArgument, "schlecht: ä 100% \n")
	case "details":
		st, err := status.New(codes.NotFound, "nowhere").WithDetails(r)
		return nil, errors.Join(err, st.Err())
	case "plain":
		return nil, errors.New("boom")
	case "canceled":
		return nil, context.Canceled
	case "wait":
		s.began <- struct{}{}
		<-ctx.Done()
		s.ended <- ctx.Err()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &rls.RateLimitResponse{OverallCode: rls.RateLimitResponse_OK, RawBody: []byte(r.Domain)}, nil
}

// answer is the method on encoded messages.
func (s *service) answer(ctx context.Context, out, message []byte) ([]byte, error) {
	r := new(rls.RateLimitRequest)
	if err := proto.Unmarshal(message, r); err != nil {
		return out, status.Error(codes.Internal, "grpc: failed to unmarshal the received message: "+err.Error())
	}
	a, err := s.ShouldRateLimit(ctx, r)
	if err != nil {
		return out, err
	}
	return proto.MarshalOptions{}.MarshalAppend(out, a)
}

func (s *service) grpc(o ...grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(append(o, grpc.MaxRecvMsgSize(mostBytes), grpc.MaxConcurrentStreams(100), grpc.MaxHeaderListSize(64<<10),
		grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(64<<10), grpc.WaitForHandlers(true))...)
	rls.RegisterRateLimitServiceServer(g, s)
	grpc_testing.RegisterTestServiceServer(g, interop.NewTestServer())
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	return g
}

func (s *service) lean(t testing.TB, change func(*lean.Options)) *lean.Server {
	o := lean.Options{
		Method: rls.RateLimitService_ShouldRateLimit_FullMethodName, Answer: s.answer, Rest: s.grpc(),
		MaxMessageBytes: mostBytes, MaxStreams: 100, MaxHeaderBytes: 64 << 10,
		Keepalive: keepalive.ServerParameters{Time: math.MaxInt64, Timeout: 10 * time.Second}, Log: zaptest.NewLogger(t),
	}
	change(&o)
	return lean.New(o)
}

type server interface {
	Serve(net.Listener) error
	GracefulStop()
	Stop()
}

// start serves on loopback until the test ends.
func start(t testing.TB, s server) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(8<<20), grpc.MaxCallSendMsgSize(8<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// modes are how the front may run the method.
var modes = map[string]func(*lean.Options){
	"at once": func(*lean.Options) {},
	"waiting": func(o *lean.Options) { o.Waits = true },
}

func eachMode(t *testing.T, test func(t *testing.T, s *service, l *lean.Server)) {
	for name, change := range modes {
		t.Run(name, func(t *testing.T) {
			s := newService()
			test(t, s, s.lean(t, change))
		})
	}
}

// The cases of gRPC's own interoperability tests end the program where they fail.
func TestInteroperability(t *testing.T) {
	eachMode(t, func(t *testing.T, _ *service, l *lean.Server) {
		cc := dial(t, start(t, l))
		c := grpc_testing.NewTestServiceClient(cc)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		interop.DoEmptyUnaryCall(ctx, c)
		interop.DoLargeUnaryCall(ctx, c)
		interop.DoClientStreaming(ctx, c)
		interop.DoServerStreaming(ctx, c)
		interop.DoPingPong(ctx, c)
		interop.DoEmptyStream(ctx, c)
		interop.DoTimeoutOnSleepingServer(ctx, c)
		interop.DoCancelAfterBegin(ctx, c)
		interop.DoCancelAfterFirstResponse(ctx, c)
		interop.DoStatusCodeAndMessage(ctx, c)
		interop.DoSpecialStatusMessage(ctx, c)
		interop.DoCustomMetadata(ctx, c)
		interop.DoUnimplementedMethod(ctx, cc)
		interop.DoUnimplementedService(ctx, grpc_testing.NewUnimplementedServiceClient(cc))
		r, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err != nil || r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Error(r, err)
		}
	})
}

func TestSameAnswersAsGRPCGo(t *testing.T) {
	eachMode(t, func(t *testing.T, s *service, l *lean.Server) {
		ours, theirs := dial(t, start(t, l)), dial(t, start(t, s.grpc()))
		for _, c := range []struct {
			name    string
			domain  string
			options []grpc.CallOption
			headers []string
			within  time.Duration
			late    bool // who ends the call first says how: only the code is the same
		}{
			{name: "ok", domain: "d"},
			{name: "empty"},
			{name: "an error", domain: "invalid"},
			{name: "an error with details", domain: "details"},
			{name: "an error without a code", domain: "plain"},
			{name: "a context's error", domain: "canceled"},
			{name: "16 KiB", domain: strings.Repeat("x", 16<<10)},
			{name: "100 KiB", domain: strings.Repeat("x", 100<<10)},
			{name: "as large as may be", domain: strings.Repeat("x", mostBytes-10)},
			{name: "too large", domain: strings.Repeat("x", mostBytes+10)},
			{name: "much too large", domain: strings.Repeat("x", 3<<20)},
			{name: "not UTF-8", domain: "\xff"},
			{name: "gzip", domain: "d", options: []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
			{name: "a deadline", domain: "d", within: time.Minute},
			{name: "a deadline that passes", domain: "wait", within: 50 * time.Millisecond, late: true},
			{name: "another subtype", domain: "d", options: []grpc.CallOption{grpc.CallContentSubtype("proto")}},
			{name: "headers", domain: "d", headers: []string{"x-b3", "1", "host", "a", "some-bin", "\x00\xff"}},
			{name: "many headers", domain: "d", headers: []string{"x", strings.Repeat("y", 40000)}},
			{name: "too many headers", domain: "d", headers: []string{"x", strings.Repeat("y", 70000)}},
			{name: "ok again", domain: "d"},
		} {
			if c.domain == "wait" && !l.Waits {
				continue // nobody would end it
			}
			type outcome struct {
				answer          *rls.RateLimitResponse
				header, trailer metadata.MD
				err             error
			}
			ask := func(cc *grpc.ClientConn) (o outcome) {
				ctx := metadata.AppendToOutgoingContext(t.Context(), c.headers...)
				if c.within > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.within)
					defer cancel()
				}
				in := &rls.RateLimitRequest{Domain: c.domain}
				o.answer, o.err = rls.NewRateLimitServiceClient(cc).ShouldRateLimit(ctx, in, append(c.options, grpc.Header(&o.header), grpc.Trailer(&o.trailer))...)
				return o
			}
			got, want := ask(ours), ask(theirs)
			if c.late {
				if got, want := status.Code(got.err), status.Code(want.err); got != codes.DeadlineExceeded || want != got {
					t.Errorf("%s: %v, want %v", c.name, got, want)
				}
				continue
			}
			if !proto.Equal(got.answer, want.answer) || !sameError(got.err, want.err) {
				t.Errorf("%s: %.80v %v, want %.80v %v", c.name, got.answer, got.err, want.answer, want.err)
			}
			if got, want := len(got.header)+len(got.trailer), len(want.header)+len(want.trailer); got != want {
				t.Errorf("%s: %d fields of headers and trailers, want %d", c.name, got, want)
			}
		}
	})
}

func sameError(a, b error) bool {
	return status.Code(a) == status.Code(b) && status.Convert(a).Message() == status.Convert(b).Message() &&
		len(status.Convert(a).Details()) == len(status.Convert(b).Details())
}

// Each answer is its call's, also when some are given up; a drain loses none.
func TestManyCallsAtOnce(t *testing.T) {
	eachMode(t, func(t *testing.T, _ *service, l *lean.Server) {
		cc := dial(t, start(t, l))
		c := rls.NewRateLimitServiceClient(cc)
		var callers sync.WaitGroup
		for w := range 64 {
			callers.Go(func() {
				for i := range 100 {
					domain := strings.Repeat(string(rune('a'+w%26)), 1+(w*7919+i*104729)%20000) // some in two frames
					ctx, cancel := context.WithCancel(t.Context())
					if i%50 == 7 {
						time.AfterFunc(time.Duration(i)*time.Microsecond, cancel)
					}
					r, err := c.ShouldRateLimit(ctx, &rls.RateLimitRequest{Domain: domain})
					if i%50 != 7 && err != nil || err == nil && string(r.RawBody) != domain {
						t.Errorf("%d bytes: %.40v %v", len(domain), r, err)
					}
					cancel()
				}
			})
		}
		callers.Wait()

		var answered atomic.Int64
		started := make(chan struct{})
		for range 16 {
			callers.Go(func() {
				for {
					_, err := c.ShouldRateLimit(t.Context(), &rls.RateLimitRequest{Domain: "d"})
					if status.Code(err) == codes.Unavailable { // no listener any more
						return
					}
					if err != nil {
						t.Errorf("while the server drains: %v", err)
						return
					}
					if answered.Add(1) == 1000 {
						close(started)
					}
				}
			})
		}
		<-started
		l.GracefulStop()
		callers.Wait()
	})
}

func TestACallEndsWithItsClient(t *testing.T) {
	s := newService()
	c := rls.NewRateLimitServiceClient(dial(t, start(t, s.lean(t, modes["waiting"]))))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.ShouldRateLimit(ctx, &rls.RateLimitRequest{Domain: "wait"})
		done <- err
	}()
	<-s.began
	cancel()
	if err := <-s.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the context of the call ended with %v", err)
	}
	if err := <-done; status.Code(err) != codes.Canceled {
		t.Error(err)
	}
}
