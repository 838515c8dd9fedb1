package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/distlimiter/ratelimit/internal/backend/memory"
)

// storeMetrics is a prometheus.Collector of what the store in memory holds.
type storeMetrics func() memory.Stats

var (
	storeKeys    = prometheus.NewDesc("ratelimit_store_keys", "Counters in memory, those that have expired but were not yet swept included.", nil, nil)
	storeMaxKeys = prometheus.NewDesc("ratelimit_store_max_keys", "Bound on counters in memory.", nil, nil)
	storeBytes   = prometheus.NewDesc("ratelimit_store_bytes", "Memory that counters take up.", nil, nil)
	storeExpired = prometheus.NewDesc("ratelimit_store_expired_total", "Counters forgotten because they had become as good as never used.", nil, nil)
	storeEvicted = prometheus.NewDesc("ratelimit_store_evicted_total", "Counters forgotten before that, to keep to the bound.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m storeMetrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

// Collect implements prometheus.Collector.
func (m storeMetrics) Collect(out chan<- prometheus.Metric) {
	s := m()
	for _, v := range []struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value float64
	}{
		{storeKeys, prometheus.GaugeValue, float64(s.Keys)},
		{storeMaxKeys, prometheus.GaugeValue, float64(s.MaxKeys)},
		{storeBytes, prometheus.GaugeValue, float64(s.Bytes)},
		{storeExpired, prometheus.CounterValue, float64(s.Expired)},
		{storeEvicted, prometheus.CounterValue, float64(s.Evicted)},
	} {
		out <- prometheus.MustNewConstMetric(v.desc, v.kind, v.value)
	}
}
