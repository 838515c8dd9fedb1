package app

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/telemetry"
)

func (s *service) startTraces() (err error) {
	if s.opts.Traces {
		s.traces, err = telemetry.StartTraces(context.Background(), s.opts.Telemetry, s.log.Named("telemetry"))
	}
	return err
}

// traced records calls of the store as spans, if traces are on.
func (s *service) traced(b backend.Backend) backend.Backend {
	return s.traces.Backend(b, s.opts.Store.Kind)
}

// sendTelemetry starts to send metrics by OTLP, and registers the last sends of the
// shutdown.
func (s *service) sendTelemetry() error {
	if s.traces != nil {
		s.last = append(s.last, lastSend{"spans", s.traces.Shutdown})
	}
	if !s.opts.OTLPMetrics {
		return nil
	}
	m, err := telemetry.StartMetrics(context.Background(), s.opts.Telemetry, s.registry(), s.log.Named("telemetry"))
	if err != nil {
		return err
	}
	s.last = append(s.last, lastSend{"metrics", m.Shutdown})
	return nil
}

// lastSend sends the last counts to a server that may be away.
type lastSend struct {
	what string
	send func(context.Context) error
}

// lastSendTime is how much of the drain timeout the last sends may take, because a
// server that is away must not delay the shutdown.
const lastSendTime = 5 * time.Second

// sendLast runs all last sends at once, until drain ends.
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
