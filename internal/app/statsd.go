package app

import (
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/live"
	"github.com/distlimiter/ratelimit/internal/sparing"
	"github.com/distlimiter/ratelimit/internal/stats/statsd"
)

// registry returns all metrics.
func (s *service) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(s.stats, reload.Metrics(s.rules.Status), &reload.RulesMetrics{Rules: s.rules.Rules}, storeMetrics(s.store.Stats),
		liveMetrics(&s.live), buildMetric(s.opts.Version),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(s.metrics...)
	return r
}

// liveMetrics counts the clients that watch decisions.
func liveMetrics(feed *live.Feed) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ratelimit_live_watchers", Help: "Clients that watch decisions as they happen."},
		func() float64 { return float64(len(feed.Watchers())) })
}

// buildMetric shows dashboards which build runs.
func buildMetric(version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "ratelimit_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}})
	g.Set(1)
	return g
}

// export adds to the group the actors that send and show counts.
func (s *service) export(group *run.Group) error {
	sink, err := s.opts.Counts.Sink(sparing.Log(s.log.Named("statsd"), 1, time.Minute))
	if err != nil {
		return err
	}
	if sink != nil {
		exporter := &statsd.Exporter{Stats: s.stats, Sink: sink, Reloads: func() (uint64, uint64) {
			status := s.rules.Status()
			return status.Successes, status.Failures
		}}
		sending, stop := context.WithCancel(context.Background())
		group.Add(func() error { return exporter.Run(sending, s.opts.Counts.Interval) }, func(error) { stop() })
		s.last = append(s.last, lastSend{"counts", exporter.Send})
	}
	at := s.opts.Prometheus
	if at.Addr == "" {
		return nil
	}
	listener, err := listen(s.opts.Names, "tcp", "Prometheus.Addr", at.Addr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+at.Path, s.scrapes)
	web := httpServer(mux, s.log)
	s.log.Info("metrics", zap.String("at", "http://"+listener.Addr().String()+at.Path))
	group.Add(func() error { return ignore(web.Serve(listener), http.ErrServerClosed) }, func(error) { _ = web.Close() })
	return nil
}
