// Package telemetry owns OpenTelemetry: traces of requests and the metrics that
// Prometheus also has, both sent by OTLP. Counting is left to other packages. A signal
// that is off costs a request nothing, because nothing of this package is then in its
// path.
//
// Sending never delays a request. Spans wait in a bounded queue and are dropped when it is
// full. Failures to send are logged once a minute.
package telemetry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/sparing"
)

// Protocol is the protocol by which telemetry is sent.
type Protocol string

// The protocols.
const (
	HTTP Protocol = "http" // protobuf over HTTP, by default to port 4318
	GRPC Protocol = "grpc" // by default to port 4317
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Protocol) UnmarshalText(text []byte) error {
	switch Protocol(text) {
	case GRPC:
		*p = GRPC
	case HTTP, "http/protobuf":
		*p = HTTP
	default:
		return fmt.Errorf("unknown protocol %q: write http or grpc", text)
	}
	return nil
}

// Settings identify the sender and the way to send. The SDK itself reads from the
// environment where to send, with which credentials and how often.
type Settings struct {
	// ServiceName, Namespace and InstanceID identify the sender. The defaults are the
	// SDK's settings from the environment, or else the name RateLimit, no namespace, and
	// a random instance.
	ServiceName, Namespace, InstanceID string
	// Version of the service.
	Version string
	// TraceProtocol and MetricProtocol are GRPC or HTTP; empty: HTTP.
	TraceProtocol, MetricProtocol Protocol
	// Propagator reads the context of a trace from headers. nil: from traceparent,
	// tracestate and baggage.
	Propagator propagation.TextMapPropagator
	// SamplingRate is the part, from 0 to 1, of the traces that begin here to record.
	// Other traces are recorded if their sender records them.
	SamplingRate float64
}

// instance is the default name of this process, the same in traces and metrics.
var instance = sync.OnceValue(uuid.NewString)

// resource describes this process.
func (s Settings) resource(ctx context.Context) (*resource.Resource, error) {
	given := []resource.Option{
		resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName("RateLimit"), semconv.ServiceInstanceID(instance()), semconv.ServiceVersion(s.Version)),
		resource.WithFromEnv(),
	}
	if s.ServiceName != "" {
		given = append(given, resource.WithAttributes(semconv.ServiceName(s.ServiceName)))
	}
	if s.Namespace != "" {
		given = append(given, resource.WithAttributes(semconv.ServiceNamespace(s.Namespace)))
	}
	if s.InstanceID != "" {
		given = append(given, resource.WithAttributes(semconv.ServiceInstanceID(s.InstanceID)))
	}
	r, err := resource.New(ctx, given...)
	if err != nil {
		return nil, fmt.Errorf("the attributes of the resource: %w: write name=value,name=value", err)
	}
	return r, nil
}

// StartTraces returns a recorder of traces, which sends them until Shutdown.
func StartTraces(ctx context.Context, s Settings, log *zap.Logger) (*Traces, error) {
	from, err := s.resource(ctx)
	if err != nil {
		return nil, err
	}
	propagator := s.Propagator
	if propagator == nil {
		propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	}
	var exporter *otlptrace.Exporter
	if s.TraceProtocol == GRPC {
		exporter, err = otlptracegrpc.New(ctx)
	} else {
		exporter, err = otlptracehttp.New(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("sending traces: %w", err)
	}
	logFailures(log)
	return &Traces{
		provider: trace.NewTracerProvider(
			trace.WithResource(from),
			trace.WithSampler(trace.ParentBased(trace.TraceIDRatioBased(s.SamplingRate))),
			trace.WithBatcher(exporter),
		),
		propagator: propagator,
	}, nil
}

// Metrics sends metrics.
type Metrics struct{ provider *metric.MeterProvider }

// StartMetrics sends the gathered metrics, once a minute unless the SDK's environment says
// otherwise, and at Shutdown.
func StartMetrics(ctx context.Context, s Settings, from prometheus.Gatherer, log *zap.Logger) (*Metrics, error) {
	who, err := s.resource(ctx)
	if err != nil {
		return nil, err
	}
	var exporter metric.Exporter
	if s.MetricProtocol == GRPC {
		exporter, err = otlpmetricgrpc.New(ctx)
	} else {
		exporter, err = otlpmetrichttp.New(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("sending metrics: %w", err)
	}
	logFailures(log)
	producer := bridge.NewMetricProducer(bridge.WithGatherer(from))
	return &Metrics{metric.NewMeterProvider(
		metric.WithResource(who),
		metric.WithReader(metric.NewPeriodicReader(exporter, metric.WithProducer(producer))),
	)}, nil
}

// Shutdown sends the present counts, and stops.
func (m *Metrics) Shutdown(ctx context.Context) error { return m.provider.Shutdown(ctx) }

// logFailures makes the SDK log its failures. The SDK has only one error handler in a
// process. A collector that is away for a night is worth a line a minute.
func logFailures(log *zap.Logger) {
	log = sparing.Log(log, 1, time.Minute)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("telemetry was not sent: requests go on", zap.Error(err))
	}))
}
