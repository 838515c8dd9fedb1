package app

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend/memory"
)

// MinCounterBytes is room for a few of the largest counters: full sliding logs of
// 512 KiB.
const MinCounterBytes = 1 << 20

// counterBytes returns the bound on the memory of counters. The other half of the memory
// limit is for rules, requests and garbage.
func (s *service) counterBytes() int64 {
	if bytes := s.opts.Memory.MaxBytes; bytes != 0 {
		return bytes
	}
	bound := memoryLimit() / 2
	s.log.Debug("bound on the memory of counters", zap.Int64("bytes", bound))
	return max(bound, MinCounterBytes)
}

// restore loads the counters of the snapshot, if there is one. It sets a damaged
// snapshot aside, and the service starts without it. It leaves a file that is no
// snapshot as it is, and the service does not start.
func (s *service) restore() (err error) {
	if s.opts.Memory.Snapshot == "" {
		return nil
	}
	if s.snapshot, err = s.store.Snapshot(s.opts.Memory.Snapshot); err != nil {
		return fmt.Errorf("%s: %w", s.opts.Names.Of("Memory.Snapshot"), err)
	}
	file := zap.String("snapshot", s.opts.Memory.Snapshot)
	loaded, err := s.snapshot.Load()
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && loaded.Saved.IsZero():
		s.log.Info("no snapshot yet: counters start anew", file)
		return nil
	case err == nil:
		s.log.Info("counters restored", file, zap.Int("counters", loaded.Keys), zap.Time("saved", loaded.Saved),
			zap.Duration("age", time.Since(loaded.Saved).Round(time.Millisecond)), zap.Int("reset_since", loaded.Forgotten))
		return nil
	case errors.Is(err, memory.ErrSnapshotDamaged) || errors.Is(err, memory.ErrSnapshotVersion):
		aside, cannot := s.snapshot.SetAside()
		if cannot != nil {
			return fmt.Errorf("%s: %w, and it can't be set aside: %w", s.opts.Names.Of("Memory.Snapshot"), err, cannot)
		}
		s.log.Error("the snapshot can't be used: counters start anew", zap.Error(err), zap.String("kept as", aside))
		return nil
	default:
		return fmt.Errorf("%s: %w", s.opts.Names.Of("Memory.Snapshot"), err)
	}
}

// save writes the snapshot, if one is configured.
func (s *service) save() error {
	if s.snapshot == nil {
		return nil
	}
	if err := s.snapshot.Save(); err != nil {
		return fmt.Errorf("%s: the counters are lost: %w", s.opts.Names.Of("Memory.Snapshot"), err)
	}
	s.log.Info("counters saved", zap.String("snapshot", s.opts.Memory.Snapshot))
	return nil
}

// storeMetrics is a prometheus.Collector of the contents of the store in memory.
type storeMetrics func() memory.Stats

var (
	storeKeys     = prometheus.NewDesc("ratelimit_store_keys", "Counters in memory, including those that have expired and were not swept yet.", nil, nil)
	storeMaxKeys  = prometheus.NewDesc("ratelimit_store_max_keys", "Most counters in memory.", nil, nil)
	storeBytes    = prometheus.NewDesc("ratelimit_store_bytes", "Bytes of memory that counters take up.", nil, nil)
	storeMaxBytes = prometheus.NewDesc("ratelimit_store_max_bytes", "Most bytes of memory that counters may take up.", nil, nil)
	storeExpired  = prometheus.NewDesc("ratelimit_store_expired_total", "Counters forgotten because they had become equal to counters never used.", nil, nil)
	storeEvicted  = prometheus.NewDesc("ratelimit_store_evicted_total", "Counters forgotten before that, to keep to one of the bounds.", nil, nil)
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
		{storeMaxBytes, prometheus.GaugeValue, float64(s.MaxBytes)},
		{storeExpired, prometheus.CounterValue, float64(s.Expired)},
		{storeEvicted, prometheus.CounterValue, float64(s.Evicted)},
	} {
		out <- prometheus.MustNewConstMetric(v.desc, v.kind, v.value)
	}
}
