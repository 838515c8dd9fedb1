package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

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

// sendTelemetry sends metrics by OTLP, and what there is to send at the end.
func (s *service) sendTelemetry() error {
	if s.traces != nil {
		s.last = append(s.last, lastSend{"spans", s.traces.Shutdown})
	}
	if !s.TelemetryMetrics {
		return nil
	}
	m, err := telemetry.StartMetrics(context.Background(), s.telemetryOptions.settings(), os.Getenv, s.registry(), s.log.Named("telemetry"))
	if err != nil {
		return err
	}
	s.last = append(s.last, lastSend{"metrics", m.Shutdown})
	return nil
}

// lastSend sends what was counted last to a server that may be away.
type lastSend struct {
	what string
	send func(context.Context) error
}

// lastSendTime is how much of the drain timeout the last sends may take: a server
// that is away must not hold up the end.
const lastSendTime = 5 * time.Second

// sendLast sends all of it at once, until drain ends.
func (s *service) sendLast(drain context.Context) {
	ctx, cancel := context.WithTimeout(drain, lastSendTime)
	defer cancel()
	var sending sync.WaitGroup
	for _, l := range s.last {
		sending.Go(func() {
			if err := l.send(ctx); err != nil {
				s.log.Warn("the last "+l.what+" were not sent", zap.Error(err))
			}
		})
	}
	sending.Wait()
}
