package overload

import (
	"math"
	"runtime/metrics"
	"time"
)

// waits reads how long goroutines waited for a processor. The runtime measures that for
// a sample of them.
type waits struct {
	sample [1]metrics.Sample
	before []uint64
	n      uint64 // waits since the last mean
	sum    float64
	reads  int
}

const (
	// fewest is the least number of waits for a mean.
	fewest = 8
	// mostReads is the most reads for one mean. A server that has had so few waits by
	// then is not overloaded.
	mostReads = 10
)

func newWaits() *waits {
	w := &waits{sample: [1]metrics.Sample{{Name: "/sched/latencies:seconds"}}}
	w.mean() // discard the waits so far
	w.n, w.sum, w.reads = 0, 0, 0
	return w
}

// mean returns the mean wait since the last mean. ok is false if it needs more reads.
func (w *waits) mean() (mean time.Duration, ok bool) {
	w.read()
	switch {
	case w.n >= fewest:
		mean = time.Duration(w.sum / float64(w.n) * float64(time.Second))
	case w.reads < mostReads:
		return 0, false
	}
	w.n, w.sum, w.reads = 0, 0, 0
	return mean, true
}

func (w *waits) read() {
	w.reads++
	metrics.Read(w.sample[:])
	if w.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return // a runtime without this metric
	}
	h := w.sample[0].Value.Float64Histogram()
	if w.before == nil {
		w.before = make([]uint64, len(h.Counts))
	}
	for i, count := range h.Counts {
		if more := count - w.before[i]; more > 0 {
			w.n += more
			w.sum += float64(more) * middle(h.Buckets[i], h.Buckets[i+1])
			w.before[i] = count
		}
	}
}

// middle returns the middle of a bucket. The outermost buckets have only one bound.
func middle(from, to float64) float64 {
	switch {
	case math.IsInf(from, -1):
		return max(to, 0)
	case math.IsInf(to, 1):
		return from
	}
	return (from + to) / 2
}
