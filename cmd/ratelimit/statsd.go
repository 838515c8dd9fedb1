package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/admin"
	"github.com/distlimiter/ratelimit/internal/stats/statsd"
)

// statsOptions say where counts are sent, and where they are shown beside the
// admin address.
type statsOptions struct {
	UseStatsd      bool          `group:"stats" name:"use-statsd" negatable:"" env:"USE_STATSD" help:"Send counts to a statsd server."`
	UseDogStatsd   bool          `group:"stats" name:"use-dog-statsd" negatable:"" env:"USE_DOG_STATSD" help:"Send counts to a DogStatsD server instead."`
	Mogrifiers     []string      `group:"stats" name:"dog-statsd-mogrifiers" placeholder:"NAME,..." env:"USE_DOG_STATSD_MOGRIFIERS" help:"Make tags of parts of names as DOG_STATSD_MOGRIFIER_NAME_PATTERN, _NAME and _TAGS say."`
	StatsdHost     string        `group:"stats" default:"localhost" env:"STATSD_HOST" help:"Its host. Given without --use-statsd, it turns that on."`
	StatsdPort     int           `group:"stats" default:"8125" env:"STATSD_PORT" help:"Its port."`
	StatsdProtocol string        `group:"stats" enum:"tcp,udp" default:"tcp" env:"STATSD_PROTOCOL" help:"${enum}; DogStatsD is always udp."`
	ExtraTags      colonPairs    `group:"stats" placeholder:"NAME:VALUE,..." env:"EXTRA_TAGS" help:"Tags of all counts."`
	FlushInterval  time.Duration `group:"stats" name:"stats-flush-interval" default:"10s" env:"STATS_FLUSH_INTERVAL" help:"How often counts are sent."`
	DisableStats   bool          `group:"stats" negatable:"" env:"DISABLE_STATS" help:"Send nothing, whatever else is set."`
	UsePrometheus  bool          `group:"stats" negatable:"" env:"USE_PROMETHEUS" help:"Show /metrics at an address of its own, too."`
	PrometheusAddr string        `group:"stats" default:":9090" env:"PROMETHEUS_ADDR" help:"That address."`
	PrometheusPath string        `group:"stats" default:"/metrics" env:"PROMETHEUS_PATH" help:"The path there."`

	mogrifiers []statsd.Mogrifier // read by check
}

// check refuses what contradicts itself.
func (o *statsOptions) check() (err error) {
	if o.mogrifiers, err = statsd.MogrifiersFromEnvironment(o.Mogrifiers, os.Getenv); err != nil {
		return err
	}
	switch {
	case o.UseStatsd && o.UseDogStatsd:
		return errors.New("--use-statsd and --use-dog-statsd: choose one")
	case o.FlushInterval <= 0:
		return fmt.Errorf("--stats-flush-interval: %v: use a time above 0", o.FlushInterval)
	case o.UsePrometheus && (o.PrometheusPath == "" || o.PrometheusPath[0] != '/'):
		return fmt.Errorf("--prometheus-path: %q: write a path that begins with /", o.PrometheusPath)
	}
	return nil
}

// sink returns where counts are sent; nil for nowhere. Without a word of it they
// are not: most of those who run this service have no statsd server.
func (o *statsOptions) sink(log *zap.Logger) (statsd.Sink, error) {
	_, hostGiven := os.LookupEnv("STATSD_HOST")
	_, chosen := os.LookupEnv("USE_STATSD")
	switch {
	case o.DisableStats:
		return nil, nil
	case o.UseDogStatsd:
		return statsd.NewDogStatsD(o.StatsdHost, o.StatsdPort, o.ExtraTags, o.mogrifiers)
	case o.UseStatsd, hostGiven && !chosen:
		return statsd.NewStatsd(o.StatsdHost, o.StatsdPort, o.StatsdProtocol, o.ExtraTags, onceAMinute(log.Named("statsd"))), nil
	}
	return nil, nil
}

// registry returns all metrics.
func (s *service) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(s.stats, admin.ReloadMetrics(s.rules.Status), admin.LiveMetrics(&s.live), &admin.RulesMetrics{Rules: s.rules.Rules}, buildMetric(), storeMetrics(s.store.Stats),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(s.metrics...)
	return r
}

// export adds to the group what sends and shows counts.
func (s *service) export(group *run.Group) error {
	sink, err := s.sink(s.log)
	if err != nil {
		return err
	}
	if sink != nil {
		exporter := &statsd.Exporter{Stats: s.stats, Sink: sink, Reloads: func() (uint64, uint64) {
			status := s.rules.Status()
			return status.Successes, status.Failures
		}}
		sending, stop := context.WithCancel(context.Background())
		group.Add(func() error { return exporter.Run(sending, s.FlushInterval) }, func(error) { stop() })
		s.last = append(s.last, lastSend{"counts", exporter.Send})
	}
	if !s.UsePrometheus {
		return nil
	}
	listener, err := listen("tcp", "prometheus-addr", s.PrometheusAddr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+s.PrometheusPath, s.scrapes)
	web := httpServer(mux, s.log)
	s.log.Info("metrics", zap.String("at", "http://"+listener.Addr().String()+s.PrometheusPath))
	group.Add(func() error { return ignore(web.Serve(listener), http.ErrServerClosed) }, func(error) { _ = web.Close() })
	return nil
}
