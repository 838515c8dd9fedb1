package integration

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // which the exporter may use
	"google.golang.org/protobuf/proto"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// collector receives what is sent by OTLP, over gRPC and over HTTP.
type collector struct {
	collectortraces.UnimplementedTraceServiceServer
	grpcPort int
	httpURL  string

	mu    sync.Mutex
	spans []span
	sums  map[string]float64 // of counters, by name and attributes
	from  map[string]string  // resource of the last metrics
}

// span is one with the resource that it came from.
type span struct {
	*traces.Span
	attributes, resource map[string]string
}

type metricsService struct {
	collectormetrics.UnimplementedMetricsServiceServer
	*collector
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{sums: map[string]float64{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(listener.Addr().String(), ":")
	if c.grpcPort, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	collectortraces.RegisterTraceServiceServer(g, c)
	collectormetrics.RegisterMetricsServiceServer(g, metricsService{collector: c})
	go func() { _ = g.Serve(listener) }() // ends with Stop
	t.Cleanup(g.Stop)

	mux := http.NewServeMux()
	receive(mux, "POST /v1/traces", c.Export)
	receive(mux, "POST /v1/metrics", metricsService{collector: c}.Export)
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	c.httpURL = web.URL
	return c
}

// receive answers OTLP over HTTP.
func receive[Q, A any, PQ interface {
	*Q
	proto.Message
}, PA interface {
	*A
	proto.Message
}](mux *http.ServeMux, pattern string, export func(context.Context, PQ) (PA, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			unzipped, err := gzip.NewReader(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			body = unzipped
		}
		text, err := io.ReadAll(body)
		request := PQ(new(Q))
		if err == nil {
			err = proto.Unmarshal(text, request)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, _ := export(r.Context(), request)
		out, _ := proto.Marshal(answer)
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(out)
	})
}

// Export takes spans.
func (c *collector) Export(_ context.Context, request *collectortraces.ExportTraceServiceRequest) (*collectortraces.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range request.ResourceSpans {
		for _, scope := range r.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, span{s, pairs(s.Attributes), pairs(r.Resource.GetAttributes())})
			}
		}
	}
	return &collectortraces.ExportTraceServiceResponse{}, nil
}

// Export takes metrics.
func (c metricsService) Export(_ context.Context, request *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range request.ResourceMetrics {
		c.from = pairs(r.Resource.GetAttributes())
		for _, scope := range r.ScopeMetrics {
			for _, m := range scope.Metrics {
				for _, p := range m.GetSum().GetDataPoints() {
					c.sums[fmt.Sprint(m.Name, pairs(p.Attributes))] = number(p)
				}
			}
		}
	}
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

func number(p *metrics.NumberDataPoint) float64 {
	return p.GetAsDouble() + float64(p.GetAsInt())
}

func pairs(attributes []*common.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range attributes {
		switch v := a.Value.GetValue().(type) {
		case *common.AnyValue_IntValue:
			m[a.Key] = fmt.Sprint(v.IntValue)
		default:
			m[a.Key] = a.Value.GetStringValue()
		}
	}
	return m
}

// ours returns the spans of the service.
func (c *collector) ours() (spans []span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.resource["service.name"] != "envoy" {
			spans = append(spans, s)
		}
	}
	return spans
}

// named returns the one span of a name, in a trace.
func (c *collector) named(t *testing.T, trace, name string) (found *span) {
	t.Helper()
	for _, s := range c.ours() {
		if hex.EncodeToString(s.TraceId) == trace && s.Name == name {
			if found != nil {
				t.Fatalf("two spans %q in trace %s", name, trace)
			}
			found = &s
		}
	}
	return found
}

// envoys returns the span of Envoy's with an id.
func (c *collector) envoys(id []byte) *span {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.resource["service.name"] == "envoy" && string(s.SpanId) == string(id) {
			return &s
		}
	}
	return nil
}

const (
	rpcSpan  = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
	twoAYear = "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: year, requests_per_unit: 2}}\n"
)

// TestTelemetry continues traces that a real Envoy starts, and sends metrics, by both
// protocols.
func TestTelemetry(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			to := startCollector(t)
			endpoint := to.httpURL
			if protocol == "grpc" {
				endpoint = fmt.Sprintf("http://127.0.0.1:%d", to.grpcPort)
			}
			service := startService(t, twoAYear,
				"TRACING_ENABLED=true", "TRACING_SERVICE_NAME=limiter", "TRACING_SERVICE_NAMESPACE=edge",
				"TRACING_SERVICE_INSTANCE_ID=one", "TRACING_EXPORTER_PROTOCOL="+protocol, "TRACING_SAMPLING_RATE=0",
				"OTLP_METRICS_ENABLED=true", "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint,
				"OTEL_EXPORTER_OTLP_COMPRESSION=gzip", "OTEL_BSP_SCHEDULE_DELAY=50", "OTEL_RESOURCE_ATTRIBUTES=zone=a,service.instance.id=two")
			config, err := os.ReadFile(harness.Config(t, "tracing.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			// The harness gives the second service the port after the first's. Each span is sent
			// at once, where Envoy would wait for 5 s or five spans.
			text := strings.Replace(string(config), "port_value: 4317", "port_value: 8082", 1) +
				"\nlayered_runtime: {layers: [{name: test, static_layer: {tracing.opentelemetry.min_flush_spans: 1}}]}\n"
			envoy := harness.StartEnvoyConfig(t, text,
				service, harness.ServiceAt(t, to.grpcPort))

			const trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
			get(t, envoy, http.StatusOK, "x-user", "alice", "traceparent", "00-"+trace+"-"+caller+"-01")
			harness.Eventually(t, "the service's span and Envoy's above it have come", func() bool {
				rpc := to.named(t, trace, rpcSpan)
				return rpc != nil && to.envoys(rpc.ParentSpanId) != nil && to.named(t, trace, "decide") != nil
			})
			rpc := to.named(t, trace, rpcSpan)
			has(t, rpc.attributes, map[string]string{"ratelimit.domain": "edge", "ratelimit.descriptors": "1", "ratelimit.code": "OK", "rpc.method": rpcSpan})
			has(t, rpc.resource, map[string]string{"service.name": "limiter", "service.namespace": "edge", "service.instance.id": "one", "zone": "a"})
			if rpc.Kind != traces.Span_SPAN_KIND_SERVER {
				t.Errorf("kind %v", rpc.Kind)
			}
			decide := to.named(t, trace, "decide")
			has(t, decide.attributes, map[string]string{"ratelimit.backend": "memory", "ratelimit.limits": "1"})
			if string(decide.ParentSpanId) != string(rpc.SpanId) {
				t.Error("the call of the store is no part of the request's span")
			}

			// What Envoy refuses is in the span; what begins here is not recorded at this rate, nor is what Envoy does not record.
			const refused, unsampled = "0af7651916cd43dd8448eb211c80319d", "0af7651916cd43dd8448eb211c80319e"
			service.Ask(t, harness.Request("edge", 1, "user", "alice"))
			get(t, envoy, http.StatusTooManyRequests, "x-user", "alice", "traceparent", "00-"+unsampled+"-"+caller+"-00")
			get(t, envoy, http.StatusTooManyRequests, "x-user", "alice", "traceparent", "00-"+refused+"-"+caller+"-01")
			harness.Eventually(t, "the refused request's span has come", func() bool { return to.named(t, refused, rpcSpan) != nil })
			has(t, to.named(t, refused, rpcSpan).attributes, map[string]string{"ratelimit.code": "OVER_LIMIT"})

			service.Stop(t) // the rest is sent at the end
			if n := len(to.ours()); n != 4 {
				t.Errorf("%d spans, want 2 of each of 2 requests", n)
			}
			to.mu.Lock()
			defer to.mu.Unlock()
			has(t, to.from, map[string]string{"service.name": "limiter", "service.instance.id": "one"})
			for name, want := range map[string]float64{
				"ratelimit_service_rate_limit_total_hitsmap[domain:edge key1:user]":                  4,
				"ratelimit_decisions_totalmap[domain:edge result:denied rule:user]":                  2,
				"ratelimit_service_should_rate_limit_errormap[err_type:service_error]":               0,
				"ratelimit_service_rate_limit_over_limit_with_local_cachemap[domain:edge key1:user]": 0,
			} {
				if got, found := to.sums[name]; !found || got != want {
					t.Errorf("%s is %v (%v), want %v; there are %v", name, got, found, want, slices.Collect(maps.Keys(to.sums)))
				}
			}
		})
	}
}

func has(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q; all are %v", name, got[name], value, got)
		}
	}
}

// TestCollectorAway sends to a collector that is away, and to one that never answers.
func TestCollectorAway(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connections are made, and nobody takes them
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for name, endpoint := range map[string]string{"nobody": "http://127.0.0.1:1", "silence": "http://" + silent.Addr().String()} {
		for _, protocol := range []string{"grpc", "http"} {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				t.Parallel()
				service := startService(t, twoAYear,
					"TRACING_ENABLED=true", "OTLP_METRICS_ENABLED=true", "TRACING_EXPORTER_PROTOCOL="+protocol,
					"OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT=200",
					"OTEL_BSP_EXPORT_TIMEOUT=500", "OTEL_BSP_SCHEDULE_DELAY=10", "OTEL_BSP_MAX_QUEUE_SIZE=16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=4",
					"DRAIN_TIMEOUT=2s")
				// Far more spans than the queue has room for.
				for range 500 {
					service.Ask(t, harness.Request("edge", 1, "user", "alice"))
				}
				const line = "telemetry was not sent: requests go on"
				harness.Eventually(t, "the log says it", func() bool { return service.Printed(line) })
				service.Stop(t)
				if n := service.Count(line); n != 1 {
					t.Errorf("%d lines of the log are about it, want 1 in a minute", n)
				}
			})
		}
	}
}

// TestTelemetryOfJSON continues a trace over HTTP.
func TestTelemetryOfJSON(t *testing.T) {
	t.Parallel()
	to := startCollector(t)
	service := startService(t, twoAYear,
		"TRACING_ENABLED=true", "OTEL_EXPORTER_OTLP_ENDPOINT="+to.httpURL, "OTEL_SERVICE_NAME=theirs", "OTEL_PROPAGATORS=b3")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+service.HTTP+"/json",
		strings.NewReader(`{"domain": "edge", "descriptors": [{"entries": [{"key": "user", "value": "bob"}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	const trace = "0af7651916cd43dd8448eb211c80319c"
	request.Header.Set("b3", trace+"-b7ad6b7169203331-1")
	client := http.Client{Timeout: time.Minute}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	service.Stop(t)
	decide := to.named(t, trace, "decide")
	if decide == nil {
		t.Fatalf("no span of the store among %v", to.ours())
	}
	for _, s := range to.ours() {
		if s.Kind == traces.Span_SPAN_KIND_SERVER && s.Name == "/json" {
			has(t, s.attributes, map[string]string{"ratelimit.domain": "edge", "ratelimit.code": "OK"})
			has(t, s.resource, map[string]string{"service.name": "theirs"})
			if string(s.SpanId) != string(decide.ParentSpanId) {
				t.Error("the call of the store is no part of the request's span")
			}
			return
		}
	}
	t.Errorf("no span of the request among %v", to.ours())
}
