package reload

import (
	"encoding/binary"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/distlimiter/ratelimit/internal/config"
)

var (
	reloadsDesc     = prometheus.NewDesc("ratelimit_config_reloads_total", "Attempts to load the rules, by result: success or failure.", []string{"result"}, nil)
	reloadOKDesc    = prometheus.NewDesc("ratelimit_config_last_reload_successful", "Whether the last attempt to load the rules succeeded; 0 means that old rules of some source are in force.", nil, nil)
	reloadedAtDesc  = prometheus.NewDesc("ratelimit_config_last_reload_success_timestamp_seconds", "When the rules were last found valid.", nil, nil)
	generationDesc  = prometheus.NewDesc("ratelimit_config_generation", "How many times new rules came into force.", nil, nil)
	domainsDesc     = prometheus.NewDesc("ratelimit_config_domains", "Domains in force.", nil, nil)
	rulesDesc       = prometheus.NewDesc("ratelimit_config_rules", "Descriptors with limits in force.", nil, nil)
	sourceOKDesc    = prometheus.NewDesc("ratelimit_config_source_last_load_successful", "Whether the newest rules of a source are in force; 0 means that it goes on with older ones, or none.", []string{"source"}, nil)
	sourceFailDesc  = prometheus.NewDesc("ratelimit_config_source_failures_total", "Attempts to load the rules in which those of a source were bad.", []string{"source"}, nil)
	loadSuccessDesc = prometheus.NewDesc("ratelimit_service_config_load_success", "Attempts to load the rules that succeeded, under envoyproxy/ratelimit's name.", nil, nil)
	loadErrorDesc   = prometheus.NewDesc("ratelimit_service_config_load_error", "Attempts to load the rules that failed, under envoyproxy/ratelimit's name.", nil, nil)
)

var rulesHashDesc = prometheus.NewDesc("ratelimit_config_rules_hash", "A hash of the rules in force, of 48 bits: replicas with the same rules have the same. 0: there are none yet.", nil, nil)

// RulesMetrics is a prometheus.Collector for the rules in force.
type RulesMetrics struct {
	// Rules returns them; nil before there are any.
	Rules func() *config.Rules

	mu    sync.Mutex
	known *config.Rules // the rules with this hash:
	hash  float64
}

// Describe implements prometheus.Collector.
func (m *RulesMetrics) Describe(out chan<- *prometheus.Desc) { out <- rulesHashDesc }

// Collect implements prometheus.Collector.
func (m *RulesMetrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rules := m.Rules(); rules != nil && rules != m.known {
		digest := rules.Digest()
		m.known, m.hash = rules, float64(binary.BigEndian.Uint64(digest[:])>>16)
	}
	out <- prometheus.MustNewConstMetric(rulesHashDesc, prometheus.GaugeValue, m.hash)
}

// Metrics is a prometheus.Collector for the status of a Coordinator.
type Metrics func() Status

// Describe implements prometheus.Collector.
func (m Metrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

// Collect implements prometheus.Collector.
func (m Metrics) Collect(out chan<- prometheus.Metric) {
	s := m()
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, source := range s.Sources {
		counter(sourceFailDesc, source.Failures, source.Source)
		switch source.State {
		case SourceGood:
			gauge(sourceOKDesc, 1, source.Source)
		case SourceBad:
			gauge(sourceOKDesc, 0, source.Source)
		case SourceWaiting: // neither
		}
	}
	counter(reloadsDesc, s.Successes, "success")
	counter(reloadsDesc, s.Failures, "failure")
	counter(loadSuccessDesc, s.Successes)
	counter(loadErrorDesc, s.Failures)
	ok, at := 1.0, 0.0
	if s.Last.Outcome == Failed || s.Last.Outcome == Partly {
		ok = 0
	}
	if !s.LastSuccess.IsZero() {
		at = float64(s.LastSuccess.UnixMilli()) / 1000
	}
	gauge(reloadOKDesc, ok)
	gauge(reloadedAtDesc, at)
	gauge(generationDesc, float64(s.Last.Generation))
	gauge(domainsDesc, float64(s.Last.Domains))
	gauge(rulesDesc, float64(s.Last.Rules))
}
