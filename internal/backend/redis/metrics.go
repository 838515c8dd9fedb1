package redis

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count calls and decisions.
type metrics struct {
	calls     *prometheus.CounterVec // by result
	took      prometheus.Histogram
	decisions *prometheus.CounterVec // by means
	ok        prometheus.Counter     // calls that were answered
	suspended prometheus.Counter     // calls that were not made
	own       prometheus.Counter     // decisions by a call of their own,
	combined  prometheus.Counter     // by another request's call,
	refused   prometheus.Counter     // by a remembered refusal,
	leased    prometheus.Counter     // and by a lease
}

func newMetrics() *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ratelimit_redis_calls_total",
			Help: "Calls to Redis by result: ok, unavailable (no answer in time, not reachable, failing over), suspended (not made, after several failed in a row), refused (Redis answers with an error).",
		}, []string{"result"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "ratelimit_redis_call_seconds",
			Help:    "Time of calls to Redis, without those that were suspended.",
			Buckets: []float64{1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 1},
		}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ratelimit_redis_decisions_total",
			Help: "Requests decided, by how: call (of their own), combined (in the call of another request), refusal (remembered), lease.",
		}, []string{"by"}),
	}
	m.ok, m.suspended = m.calls.WithLabelValues("ok"), m.calls.WithLabelValues("suspended")
	m.own, m.combined = m.decisions.WithLabelValues("call"), m.decisions.WithLabelValues("combined")
	m.refused, m.leased = m.decisions.WithLabelValues("refusal"), m.decisions.WithLabelValues("lease")
	return m
}

// called counts a call and the requests that it decided.
func (m *metrics) called(took time.Duration, requests int, err error) {
	if err == nil {
		m.ok.Inc()
		m.own.Inc()
		m.combined.Add(float64(requests - 1))
	} else {
		m.calls.WithLabelValues(failure(err)).Inc()
	}
	if !errors.Is(err, ErrSuspended) {
		m.took.Observe(took.Seconds())
	}
}

func failure(err error) string {
	switch {
	case errors.Is(err, ErrSuspended):
		return "suspended"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	}
	return "refused"
}

var (
	connectedDesc = prometheus.NewDesc("ratelimit_redis_connected", "1 while Redis answers; 0 before the first connection, and while all calls are suspended.", nil, nil)
	heldDesc      = prometheus.NewDesc("ratelimit_redis_lease_held_hits", "Hits that are charged and not yet spent: held by leases, or being given back.", nil, nil)
	overshootDesc = prometheus.NewDesc("ratelimit_redis_lease_overshoot_hits", "The most hits of one counter that were held at once. The sum over replicas bounds how far leases may have exceeded a limit; a fixed window is never exceeded.", nil, nil)
	evictedDesc   = prometheus.NewDesc("ratelimit_redis_evicted_keys_total", "Keys that Redis has evicted to save memory since it started, read every 15 s. Absent if Redis does not report it.", nil, nil)
	suspendedDesc = prometheus.NewDesc("ratelimit_redis_suspended", "The fraction of calls to Redis that is suspended now: 0 or 1, in a cluster also between.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (b *Backend) Describe(ch chan<- *prometheus.Desc) {
	b.metrics.calls.Describe(ch)
	b.metrics.took.Describe(ch)
	b.metrics.decisions.Describe(ch)
	ch <- connectedDesc
	ch <- suspendedDesc
	ch <- evictedDesc
	ch <- heldDesc
	ch <- overshootDesc
}

// Collect implements [prometheus.Collector].
func (b *Backend) Collect(ch chan<- prometheus.Metric) {
	b.metrics.calls.Collect(ch)
	b.metrics.took.Collect(ch)
	b.metrics.decisions.Collect(ch)
	connected := 0.0
	if b.Healthy() {
		connected = 1
	}
	ch <- prometheus.MustNewConstMetric(connectedDesc, prometheus.GaugeValue, connected)
	if b.evictions.known.Load() {
		ch <- prometheus.MustNewConstMetric(evictedDesc, prometheus.CounterValue, float64(b.evictions.evicted.Load()))
	}
	held, peak := b.leases.Held(time.Now())
	ch <- prometheus.MustNewConstMetric(heldDesc, prometheus.GaugeValue, float64(held))
	ch <- prometheus.MustNewConstMetric(overshootDesc, prometheus.GaugeValue, float64(peak))
	ch <- prometheus.MustNewConstMetric(suspendedDesc, prometheus.GaugeValue, b.breakers.share())
}

// Healthy implements [backend.HealthReporter]. It reports whether Redis answers, or in a
// cluster at least some of it. Without calls, trials find out every second.
func (b *Backend) Healthy() bool { return b.conn.client.Load() != nil && b.breakers.share() < 1 }
