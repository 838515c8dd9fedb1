package server_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	grpcstats "google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/distlimiter/ratelimit/internal/server"
)

// dial serves f over gRPC as cmd/ratelimit does and returns a connection to it.
func dial(t *testing.T, f *fixture, options ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	return dialAged(t, f, time.Hour, time.Hour, options...)
}

// dialAged is dial with a bound on the age of connections.
func dialAged(t *testing.T, f *fixture, age, grace time.Duration, options ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	g := grpc.NewServer(append(server.GRPCOptions(1<<20, keepalive.ServerParameters{MaxConnectionAge: age, MaxConnectionAgeGrace: grace}), options...)...)
	f.Register(g)
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// echoing makes each answer contain its request, so that memory that is reused too early
// shows.
func echoing(t *testing.T) *fixture {
	return serve(t, perUser, func(o *options) { o.DynamicMetadata = true })
}

// TestAnswersOverGRPC sends requests of all sizes at once, from parts of a frame to
// many, and looks for each one's own value in its answer.
func TestAnswersOverGRPC(t *testing.T) {
	f := echoing(t)
	for name, options := range map[string][]grpc.ServerOption{
		"plain":       nil,
		"interceptor": {grpc.UnaryInterceptor(passing)},
		"stats":       {grpc.StatsHandler(new(counting))},
	} {
		t.Run(name, func(t *testing.T) {
			client := pb.NewRateLimitServiceClient(dial(t, f, options...))
			var clients sync.WaitGroup
			for c := range 8 {
				clients.Go(func() {
					for i := range 60 {
						size := []int{1, 100, 2000, 5000}[i%4]
						path := strings.Repeat(string(rune('a'+c)), size)
						var ds []*common.RateLimitDescriptor
						for j := range 1 + i%5 {
							ds = append(ds, desc(fmt.Sprintf("user=%d-%d-%d,path=%s", c, i, j, path)))
						}
						var call []grpc.CallOption
						if i%7 == 0 {
							call = append(call, grpc.UseCompressor(gzip.Name))
						}
						resp, err := client.ShouldRateLimit(t.Context(), &pb.RateLimitRequest{Domain: "edge", Descriptors: ds}, call...)
						if err != nil {
							t.Error(err)
							return
						}
						for j, d := range resp.DynamicMetadata.Fields["descriptors"].GetListValue().GetValues() {
							entries := d.GetStructValue().Fields["entries"].GetListValue().Values
							if got, want := entries[0].GetStringValue(), fmt.Sprintf("user=%d-%d-%d", c, i, j); got != want {
								t.Errorf("got %s, want %s", got, want)
							}
							if entries[1].GetStringValue() != "path="+path {
								t.Error("the answer belongs to another request")
							}
						}
						if len(resp.Statuses) != len(ds) {
							t.Errorf("%d statuses for %d descriptors", len(resp.Statuses), len(ds))
						}
					}
				})
			}
			clients.Wait()
		})
	}
}

// passing is an interceptor that does nothing.
func passing(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	return next(ctx, req)
}

// counting is a stats handler, as OpenTelemetry's is.
type counting struct{ in, out atomic.Int64 }

func (*counting) TagRPC(ctx context.Context, _ *grpcstats.RPCTagInfo) context.Context { return ctx }
func (*counting) TagConn(ctx context.Context, _ *grpcstats.ConnTagInfo) context.Context {
	return ctx
}
func (*counting) HandleConn(context.Context, grpcstats.ConnStats) {}
func (c *counting) HandleRPC(_ context.Context, s grpcstats.RPCStats) {
	switch s := s.(type) {
	case *grpcstats.InPayload:
		c.in.Add(int64(s.Length))
	case *grpcstats.OutPayload:
		c.out.Add(int64(s.Length))
	}
}

func TestStatsHandlersSeeSizes(t *testing.T) {
	f, sizes := serve(t, perUser), new(counting)
	client := pb.NewRateLimitServiceClient(dial(t, f, grpc.StatsHandler(sizes)))
	if _, err := client.ShouldRateLimit(t.Context(), &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("user=a")}}); err != nil {
		t.Fatal(err)
	}
	if in, out := sizes.in.Load(), sizes.out.Load(); in != 19 || out == 0 {
		t.Errorf("%d bytes in and %d out, want 19 and some", in, out)
	}
}

func TestAnInterceptorMayRefuse(t *testing.T) {
	f := serve(t, perUser)
	var open atomic.Bool
	client := pb.NewRateLimitServiceClient(dial(t, f, grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if info.FullMethod != pb.RateLimitService_ShouldRateLimit_FullMethodName || !open.Load() {
			return nil, status.Error(codes.ResourceExhausted, "not now")
		}
		return next(ctx, req)
	})))
	req := &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("user=a")}}
	if _, err := client.ShouldRateLimit(t.Context(), req); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v, want ResourceExhausted", err)
	}
	open.Store(true)
	resp, err := client.ShouldRateLimit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if left := resp.Statuses[0].LimitRemaining; left != 1 {
		t.Errorf("%d left: what was refused has been charged", left)
	}
}

// raw is a codec of a client that sends bytes as they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// TestBrokenMessages: they get the same code as from the protobuf library's codec.
func TestBrokenMessages(t *testing.T) {
	conn := dial(t, serve(t, perUser))
	for name, message := range map[string]string{
		"cut off":     "\x0a\x05edge",
		"no tag":      "\x00",
		"group's end": "\x0c",
	} {
		var answer []byte
		err := conn.Invoke(t.Context(), pb.RateLimitService_ShouldRateLimit_FullMethodName, []byte(message), &answer, grpc.ForceCodecV2(raw{}))
		if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "RateLimitRequest") {
			t.Errorf("%s: got %v, want Internal", name, err)
		}
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, pb.RateLimitService_ShouldRateLimit_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	req := &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("user=a")}}
	for range 2 {
		if err := stream.SendMsg(req); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.RecvMsg(new(pb.RateLimitResponse)); status.Code(err) != codes.Internal {
		t.Errorf("two requests in a call: got %v, want Internal", err)
	}
}

// TestOtherServices: the codec leaves their messages alone.
func TestOtherServices(t *testing.T) {
	answer, err := grpc_health_v1.NewHealthClient(dial(t, serve(t, perUser))).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("got %v", answer)
	}
}

// TestConnectionAge: a connection that is old enough is asked to close, and its
// client makes another, on which requests go on.
func TestConnectionAge(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: year, requests_per_unit: 9}}\n")
	conn := dialAged(t, f, 50*time.Millisecond, time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range 2 {
		request := &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("user=a")}}
		if _, err := pb.NewRateLimitServiceClient(conn).ShouldRateLimit(ctx, request, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		for state := conn.GetState(); state != connectivity.Idle; state = conn.GetState() {
			if !conn.WaitForStateChange(ctx, state) {
				t.Fatalf("the connection stays %v", state)
			}
		}
	}
}
