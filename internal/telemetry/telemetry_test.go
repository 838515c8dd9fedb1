package telemetry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// TestWithoutTracesNothingChanges holds that nothing is wrapped while traces are off.
func TestWithoutTracesNothingChanges(t *testing.T) {
	var off *Traces
	handler, store := http.NotFoundHandler(), decides{}
	if off.GRPC() != nil {
		t.Error("the gRPC server has options")
	}
	if off.Backend(store, "memory") != backend.Backend(store) {
		t.Error("the store is another one")
	}
	if _, same := off.HTTP(handler, "/json").(http.HandlerFunc); !same {
		t.Errorf("the handler is another one")
	}
}

// TestStore records calls of recorded requests, with what went wrong, and no others.
func TestStore(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	on := &Traces{provider: sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder)), propagator: propagation.TraceContext{}}
	store := on.Backend(decides{errors.New("out of order")}, "redis")
	request := &backend.Request{Checks: make([]backend.Check, 3)}
	if err := store.Decide(t.Context(), request, nil); err == nil || len(recorder.Ended()) != 0 {
		t.Errorf("error %v, %d spans of no request", err, len(recorder.Ended()))
	}
	ctx, span := on.provider.Tracer("test").Start(t.Context(), "request")
	if err := store.Decide(ctx, request, nil); err == nil {
		t.Error("no error")
	}
	span.End()
	got := recorder.Ended()[0]
	if got.Name() != "decide" || got.Status().Code != codes.Error || got.Status().Description != "out of order" || got.Parent().SpanID() != span.SpanContext().SpanID() {
		t.Errorf("recorded %v, %v", got.Name(), got.Status())
	}
	has := map[string]string{}
	for _, a := range got.Attributes() {
		has[string(a.Key)] = a.Value.String()
	}
	if has["ratelimit.backend"] != "redis" || has["ratelimit.limits"] != "3" {
		t.Errorf("attributes %v", has)
	}
}

// TestSpanSaysWhatARequestIsOver, an element for each limit, and holds no value of a
// descriptor. A request that is over nothing has no such attributes.
func TestSpanSaysWhatARequestIsOver(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	on := &Traces{provider: sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))}
	for _, reasons := range [][]limiter.Reason{nil, {
		{Entries: []descriptor.Entry{{Key: "user", Value: "alice"}}, Rule: "user", Limit: "per_user: fixed_window, 1 per minute", RetryAfter: 1500 * time.Millisecond},
		{Entries: []descriptor.Entry{{Key: "path", Value: "/x"}}, Limit: "fixed_window, 7 per hour", Shadow: true, Remaining: 3, RetryAfter: algo.Never},
	}} {
		ctx, span := on.provider.Tracer("test").Start(t.Context(), "request")
		on.Request(ctx, &limiter.Request{Domain: "edge", Verdict: limiter.Verdict{OverLimit: reasons != nil}}, slices.Values(reasons), nil)
		span.End()
	}
	said := func(span sdk.ReadOnlySpan) (got []string) {
		for _, a := range span.Attributes() {
			got = append(got, string(a.Key)+"="+a.Value.String())
		}
		return got
	}
	if got, want := said(recorder.Ended()[0]), []string{"ratelimit.domain=edge", "ratelimit.descriptors=0", "ratelimit.code=OK"}; !slices.Equal(got, want) {
		t.Errorf("over nothing: %q", got)
	}
	got, want := said(recorder.Ended()[1]), []string{
		"ratelimit.domain=edge", "ratelimit.descriptors=0", "ratelimit.code=OVER_LIMIT",
		`ratelimit.over.verdict=["over","shadow"]`, `ratelimit.over.rule=["user",""]`,
		`ratelimit.over.limit=["per_user: fixed_window, 1 per minute","fixed_window, 7 per hour"]`,
		`ratelimit.over.left=[0,3]`, `ratelimit.over.retry_after_ms=[1500,-1]`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// answers is a service that says yes.
type answers struct {
	pb.UnimplementedRateLimitServiceServer
}

func (*answers) ShouldRateLimit(context.Context, *pb.RateLimitRequest) (*pb.RateLimitResponse, error) {
	return &pb.RateLimitResponse{OverallCode: pb.RateLimitResponse_OK}, nil
}

type decides struct{ err error }

func (d decides) Decide(context.Context, *backend.Request, []algo.Decision) error { return d.err }

// BenchmarkRequest compares a request over gRPC without traces, with traces of
// which none is recorded, and with all recorded, for a collector that is away.
func BenchmarkRequest(b *testing.B) {
	for _, bb := range []struct {
		name string
		rate float64
	}{{"off", -1}, {"sampled=0", 0}, {"sampled=0.01", 0.01}, {"sampled=1", 1}} {
		b.Run(bb.name, func(b *testing.B) {
			var on *Traces
			if bb.rate >= 0 {
				b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
				var err error
				if on, err = StartTraces(b.Context(), Settings{SamplingRate: bb.rate}, zap.NewNop()); err != nil {
					b.Fatal(err)
				}
				defer func() {
					now, cancel := context.WithCancel(context.Background())
					cancel()
					_ = on.Shutdown(now) // nobody is there to be sent to
				}()
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			g := grpc.NewServer(on.GRPC()...)
			pb.RegisterRateLimitServiceServer(g, &answers{})
			go func() { _ = g.Serve(l) }() // ends with Stop
			defer g.Stop()
			conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			client := pb.NewRateLimitServiceClient(conn)
			request := &pb.RateLimitRequest{Domain: "edge"}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.ShouldRateLimit(b.Context(), request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
