package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/oklog/run"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/telemetry"
)

// telemetryOptions say whether traces and metrics are sent by OTLP. Where to and
// how, OpenTelemetry's own variables say.
type telemetryOptions struct {
	Traces           bool               `group:"telemetry" name:"tracing" negatable:"" env:"TRACING_ENABLED" help:"Send traces by OTLP, to where OTEL_EXPORTER_OTLP_ENDPOINT says."`
	TraceService     string             `group:"telemetry" name:"tracing-service-name" placeholder:"NAME" env:"TRACING_SERVICE_NAME" help:"What this service is called. Without, as OTEL_SERVICE_NAME says, else RateLimit."`
	TraceNamespace   string             `group:"telemetry" name:"tracing-service-namespace" placeholder:"NAME" env:"TRACING_SERVICE_NAMESPACE" help:"What it is part of."`
	TraceInstance    string             `group:"telemetry" name:"tracing-service-instance-id" placeholder:"ID" env:"TRACING_SERVICE_INSTANCE_ID" help:"This replica. Without, a random one at each start."`
	TraceProtocol    telemetry.Protocol `group:"telemetry" name:"tracing-exporter-protocol" placeholder:"PROTOCOL" env:"TRACING_EXPORTER_PROTOCOL" help:"How to send: http or grpc. Without, as OTEL_EXPORTER_OTLP_PROTOCOL says, else http."`
	TraceSampling    float64            `group:"telemetry" name:"tracing-sampling-rate" default:"1" env:"TRACING_SAMPLING_RATE" help:"Part of the traces that begin here to record, from 0 to 1; of others those that their senders record."`
	TelemetryMetrics bool               `group:"telemetry" name:"otlp-metrics" negatable:"" env:"OTLP_METRICS_ENABLED" help:"Send metrics by OTLP, too: those of /metrics, every OTEL_METRIC_EXPORT_INTERVAL milliseconds (60000)."`
}

// check refuses what OpenTelemetry could not work with.
func (o *telemetryOptions) check() error {
	if !(o.TraceSampling >= 0 && o.TraceSampling <= 1) {
		return fmt.Errorf("--tracing-sampling-rate (TRACING_SAMPLING_RATE): %v: use a number from 0 to 1", o.TraceSampling)
	}
	return o.settings().Check(os.Getenv, o.Traces, o.TelemetryMetrics)
}

func (o *telemetryOptions) settings() telemetry.Settings {
	return telemetry.Settings{
		ServiceName: o.TraceService, Namespace: o.TraceNamespace, InstanceID: o.TraceInstance, Version: buildVersion(),
		Protocol: o.TraceProtocol, SamplingRate: o.TraceSampling,
	}
}

func (s *service) startTraces() (err error) {
	if s.Traces {
		s.traces, err = telemetry.StartTraces(context.Background(), s.telemetryOptions.settings(), os.Getenv, s.log.Named("telemetry"))
	}
	return err
}

// traced records calls of the store, if anything is recorded.
func (s *service) traced(b backend.Backend) backend.Backend {
	kind := "memory"
	if len(s.redis) > 0 {
		kind = "redis"
	}
	return s.traces.Backend(b, kind)
}

// flushTime is how much of the drain timeout may go into sending the last spans
// and metrics: a collector that is away must not hold up the end.
const flushTime = 5 * time.Second

// sendTelemetry adds to the group what sends metrics by OTLP and, when requests
// are answered, sends the rest.
func (s *service) sendTelemetry(drain context.Context, group *run.Group) error {
	var last []func(context.Context) error
	if s.traces != nil {
		last = append(last, s.traces.Shutdown)
	}
	if s.TelemetryMetrics {
		m, err := telemetry.StartMetrics(context.Background(), s.telemetryOptions.settings(), os.Getenv, s.registry(), s.log.Named("telemetry"))
		if err != nil {
			return err
		}
		last = append(last, m.Shutdown)
	}
	if len(last) == 0 {
		return nil
	}
	ended := make(chan struct{})
	group.Add(func() error {
		<-ended
		return nil
	}, func(error) {
		ctx, cancel := context.WithTimeout(drain, flushTime)
		defer cancel()
		var sending sync.WaitGroup
		for _, shutdown := range last {
			sending.Go(func() {
				if err := shutdown(ctx); err != nil {
					s.log.Warn("the last telemetry was not sent", zap.Error(err))
				}
			})
		}
		sending.Wait()
		close(ended)
	})
	return nil
}
