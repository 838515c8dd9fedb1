package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend/memory"
)

// restore takes over the counters of the snapshot, if there is one. One that is
// damaged does not keep the service from starting; it is kept for whoever wants
// to know why.
func (s *service) restore() error {
	if s.Snapshot == "" {
		return nil
	}
	if err := checkWritable(filepath.Dir(s.Snapshot)); err != nil {
		return fmt.Errorf("--snapshot %s could not be saved: %w: let this process write in that directory, or choose another file", s.Snapshot, err)
	}
	keys, err := s.store.LoadFile(s.Snapshot)
	switch {
	case err == nil:
		s.log.Info("counters restored", zap.String("snapshot", s.Snapshot), zap.Int("counters", keys))
		return nil
	case errors.Is(err, fs.ErrNotExist):
		s.log.Info("no snapshot yet: counters start anew", zap.String("snapshot", s.Snapshot))
		return nil
	case errors.Is(err, memory.ErrSnapshotDamaged) || errors.Is(err, memory.ErrSnapshotVersion):
		aside := s.Snapshot + ".unusable"
		s.log.Error("the snapshot can't be used: counters start anew", zap.Error(err), zap.String("kept as", aside))
		return os.Rename(s.Snapshot, aside)
	default:
		return fmt.Errorf("--snapshot %s: %w", s.Snapshot, err)
	}
}

// checkWritable finds out now what would be too late to know when the service stops.
func checkWritable(dir string) error {
	f, err := os.CreateTemp(dir, ".ratelimit.*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// save writes the snapshot, if there is to be one.
func (s *service) save() error {
	if s.Snapshot == "" {
		return nil
	}
	if err := s.store.SaveFile(s.Snapshot); err != nil {
		return fmt.Errorf("--snapshot %s: the counters are lost: %w", s.Snapshot, err)
	}
	s.log.Info("counters saved", zap.String("snapshot", s.Snapshot))
	return nil
}

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
