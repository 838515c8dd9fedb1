package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Requests leave small garbage, and the live heap of a small set of counters is
// a few MB: at Go's default the collector would run all the time, and with
// millions of counters let as much garbage pile up again. So what may pile up is
// kept at about headroom whatever is live, by the percentage that Go understands.
const (
	headroom     = 32 << 20
	mostPercent  = 400
	leastPercent = 25
	tuneInterval = 2 * time.Second
)

// tuneGC keeps the percentage until ctx is done. An operator's GOGC is left alone.
func tuneGC(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(tuneInterval)
	defer ticker.Stop()
	set := 0
	for {
		if percent := gcPercent(liveHeap()); percent != set {
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

// gcPercent returns how much garbage to let pile up, as a percentage of what is
// live. It is coarse, for each new one costs a pause.
func gcPercent(live uint64) int {
	if live == 0 {
		return mostPercent
	}
	percent := headroom * 100 / live
	return int(min(max(percent/25*25, leastPercent), mostPercent))
}

// liveHeap returns the bytes that the last collection found in use.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}
