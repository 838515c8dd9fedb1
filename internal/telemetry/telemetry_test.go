package telemetry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
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
	"github.com/distlimiter/ratelimit/internal/tlsfiles/tlstest"
)

// TestCheck has every variable name itself when it can't be used.
func TestCheck(t *testing.T) {
	authority := tlstest.NewAuthority(t)
	cert, key := authority.Issue("client", "client", time.Hour)
	const (
		none = 0
		tr   = 1 << iota
		me
	)
	for _, tt := range []struct {
		on         int
		settings   Settings
		name, text string
		want       string // "": good
	}{
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", ""},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "write http://host:port"},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318", "write http://host:port"},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://", "write http://host:port"},
		{me, Settings{}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://", ""}, // not in use
		{me, Settings{}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://", "write http://host:port"},
		{none, Settings{}, "OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318", ""},
		{tr, Settings{Protocol: GRPC}, "OTEL_EXPORTER_OTLP_ENDPOINT", "dns:///collector:4317", ""},
		{tr, Settings{Protocol: GRPC}, "OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4317", "write http://host:port"},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", ""},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_PROTOCOL", "thrift", "write http or grpc"},
		{me, Settings{}, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "thrift", "write http or grpc"},
		{tr, Settings{Protocol: HTTP}, "OTEL_EXPORTER_OTLP_PROTOCOL", "thrift", ""}, // not in use
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_INSECURE", "yes", "write true or false"},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "in milliseconds"},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "write gzip or none"},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%2Cb,team=x", ""},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_HEADERS", "api-key=ok,secret", "part 2 is no pair"},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_HEADERS", "api-key=%zz", "part 1 is no pair"},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_CERTIFICATE", authority.File, ""},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_CERTIFICATE", authority.File + ".none", "no such file"},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_CERTIFICATE", key, "no certificate"},
		{tr, Settings{}, "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", cert, "belong together"},
		{tr, Settings{}, "OTEL_BSP_MAX_QUEUE_SIZE", "0", "above 0"},
		{me, Settings{}, "OTEL_METRIC_EXPORT_INTERVAL", "1m", "in milliseconds"},
		{tr, Settings{}, "OTEL_RESOURCE_ATTRIBUTES", "zone", "part 1 is no pair"},
		{tr, Settings{}, "OTEL_PROPAGATORS", "b3,tracecontext", ""},
		{tr, Settings{}, "OTEL_PROPAGATORS", "b4", "write tracecontext"},
	} {
		getenv := func(name string) string {
			if name == tt.name {
				return tt.text
			}
			return ""
		}
		err := tt.settings.Check(getenv, tt.on&tr != 0, tt.on&me != 0)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s=%s: %v", tt.name, tt.text, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.name) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s=%s: error %v, want %q", tt.name, tt.text, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats what may be a password: %v", err)
		}
	}
}

// TestOff: without traces everything is what it was.
func TestOff(t *testing.T) {
	var off *Traces
	next, handler, store := &answers{}, http.NotFoundHandler(), decides{}
	if off.GRPC() != nil {
		t.Error("the gRPC server has options")
	}
	if off.Service(next) != pb.RateLimitServiceServer(next) {
		t.Error("the service is another one")
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
				if on, err = StartTraces(b.Context(), Settings{SamplingRate: bb.rate}, func(string) string { return "" }, zap.NewNop()); err != nil {
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
			pb.RegisterRateLimitServiceServer(g, on.Service(&answers{}))
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
