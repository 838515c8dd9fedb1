package telemetry

import (
	"context"
	"iter"
	"net/http"
	"strings"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// The attributes of spans.
const (
	attrDomain      = attribute.Key("ratelimit.domain")
	attrDescriptors = attribute.Key("ratelimit.descriptors") // how many
	attrCode        = attribute.Key("ratelimit.code")        // overall: OK or OVER_LIMIT
	// One element for each limit that a request is over.
	attrVerdicts = attribute.Key("ratelimit.over.verdict") // over or shadow
	attrRules    = attribute.Key("ratelimit.over.rule")    // empty: the request brought the limit
	attrOver     = attribute.Key("ratelimit.over.limit")
	attrLeft     = attribute.Key("ratelimit.over.left")
	attrRetry    = attribute.Key("ratelimit.over.retry_after_ms") // -1: never

	attrBackend = attribute.Key("ratelimit.backend") // memory or redis
	attrLimits  = attribute.Key("ratelimit.limits")  // how many are decided
)

// scope names the source of the spans.
const scope = "github.com/distlimiter/ratelimit"

// Traces records requests and sends them. A nil Traces records nothing: its methods
// return their arguments.
type Traces struct {
	provider   *sdk.TracerProvider
	propagator propagation.TextMapPropagator
}

// GRPC returns the options of a gRPC server that record its requests as parts of their
// senders' traces. Health checks are not recorded.
func (t *Traces) GRPC() []grpc.ServerOption {
	if t == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(t.provider),
		otelgrpc.WithPropagators(t.propagator),
		otelgrpc.WithMeterProvider(noop.NewMeterProvider()), // the bridge has the metrics
		otelgrpc.WithFilter(filters.ServiceName(pb.RateLimitService_ServiceDesc.ServiceName)),
	))}
}

// HTTP returns a handler that records its requests in spans of that name.
func (t *Traces) HTTP(next http.Handler, name string) http.Handler {
	if t == nil {
		return next
	}
	return otelhttp.NewHandler(next, name,
		otelhttp.WithTracerProvider(t.provider),
		otelhttp.WithPropagators(t.propagator),
		otelhttp.WithMeterProvider(noop.NewMeterProvider()),
		otelhttp.WithSpanNameFormatter(func(name string, _ *http.Request) string { return name }),
	)
}

// Request adds to the span of a request what it asked and, unless err says why it was not
// decided, what it got and which rules and limits it is over. Attributes of the latter get
// one element for each reason. Values of descriptors are left out. It keeps nothing of r.
func (t *Traces) Request(ctx context.Context, r *limiter.Request, reasons iter.Seq[limiter.Reason], err error) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attrDomain.String(strings.Clone(r.Domain)), attrDescriptors.Int(len(r.Descriptors)))
	if err != nil {
		return
	}
	code := pb.RateLimitResponse_OK
	if r.OverLimit {
		code = pb.RateLimitResponse_OVER_LIMIT
	}
	span.SetAttributes(attrCode.String(code.String()))
	var verdicts, rules, limits []string
	var left, retry []int64
	for why := range reasons {
		wait := int64(-1)
		if why.RetryAfter != algo.Never {
			wait = why.RetryAfter.Milliseconds()
		}
		verdicts, rules, limits = append(verdicts, why.Verdict().String()), append(rules, why.Rule), append(limits, why.Limit)
		left, retry = append(left, why.Remaining), append(retry, wait)
	}
	if verdicts != nil {
		span.SetAttributes(attrVerdicts.StringSlice(verdicts), attrRules.StringSlice(rules), attrOver.StringSlice(limits),
			attrLeft.Int64Slice(left), attrRetry.Int64Slice(retry))
	}
}

// Backend records the calls of a store as parts of the requests that make them. kind names
// the store: memory or redis.
func (t *Traces) Backend(next backend.Backend, kind string) backend.Backend {
	if t == nil {
		return next
	}
	return store{next: next, tracer: t.provider.Tracer(scope), kind: kind}
}

type store struct {
	next   backend.Backend
	tracer trace.Tracer
	kind   string
}

// Decide implements backend.Backend. Calls outside of a recorded request, such as those of
// the admin page, are not recorded.
func (s store) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return s.next.Decide(ctx, req, out)
	}
	ctx, span := s.tracer.Start(ctx, "decide", trace.WithAttributes(attrBackend.String(s.kind), attrLimits.Int(len(req.Checks))))
	defer span.End()
	err := s.next.Decide(ctx, req, out)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	return err
}

// Shutdown sends the recorded spans, and stops.
func (t *Traces) Shutdown(ctx context.Context) error { return t.provider.Shutdown(ctx) }
