package app

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"
)

// A request leaves little garbage, and the live heap of a small set of counters is a
// few MB. At Go's default percentage the collector would run all the time. With
// millions of counters, it would let as much garbage pile up again. So the service
// sets the percentage such that the garbage stays near a fixed headroom, whatever is
// live. A collection costs as much as the memory that it scans for pointers. Counters
// have no pointers, but rules do: with a hundred thousand rules the headroom is twice
// the scanned memory, so that requests do not wait for collections most of the time.
// In a small container the headroom is smaller.
const (
	leastHeadroom = 32 << 20
	mostHeadroom  = 128 << 20
	headroomShare = 8 // of the memory limit
	mostPercent   = 400
	leastPercent  = 25
	tuneInterval  = 2 * time.Second
	// A container's limit may change while it runs.
	limitInterval = time.Minute
)

// tuneGC maintains the percentage until ctx is done, and makes the collector work
// harder near the container's memory limit. It leaves the operator's own settings
// alone.
func (s *service) tuneGC(ctx context.Context) error {
	switch limit, err := memlimit.Set(memlimit.WithRefreshInterval(ctx, limitInterval)); {
	case errors.Is(err, memlimit.ErrNoCgroup) || errors.Is(err, memlimit.ErrCgroupsNotSupported):
	case err != nil:
		s.log.Warn("the container's memory limit is not known: set "+s.opts.Names.Of("MemoryLimit")+" if there is one", zap.Error(err))
	default:
		s.log.Debug("memory limit of the garbage collector", zap.Int64("bytes", limit))
	}
	if s.opts.GCIsTuned {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(tuneInterval)
	defer ticker.Stop()
	set := 0
	for {
		if percent := gcPercent(heap(), debug.SetMemoryLimit(-1)); percent != set {
			debug.SetGCPercent(percent)
			set = percent
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// memoryLimit returns how many bytes the process may take: Go's own limit if one is
// set, or else the container's limit, or else the machine's memory. It is
// math.MaxInt64 if none of them is known.
func memoryLimit() int64 {
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		return limit
	}
	for _, provider := range []memlimit.Provider{memlimit.FromCgroup, memlimit.FromSystem} {
		if limit, err := provider(); err == nil && limit > 0 && limit < math.MaxInt64 {
			return int64(limit)
		}
	}
	return math.MaxInt64
}

// gcPercent returns how much garbage may pile up under a memory limit, as a percentage
// of the live heap. It is coarse, because each change costs a pause.
func gcPercent(h heapSizes, limit int64) int {
	if h.live == 0 {
		return mostPercent
	}
	headroom := min(max(leastHeadroom, 2*h.scanned), mostHeadroom, uint64(limit)/headroomShare)
	percent := headroom * 100 / h.live
	return int(min(max(percent/25*25, leastPercent), mostPercent))
}

// heapSizes are the bytes that the last collection found live, and those that it
// scanned.
type heapSizes struct{ live, scanned uint64 }

func heap() heapSizes {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}}
	metrics.Read(samples)
	if samples[0].Value.Kind() != metrics.KindUint64 || samples[1].Value.Kind() != metrics.KindUint64 {
		return heapSizes{}
	}
	return heapSizes{samples[0].Value.Uint64(), samples[1].Value.Uint64()}
}
