// Package soak runs the service under mixed load for a chosen time, with counters in
// memory and in Redis, and checks that memory, goroutines, file descriptors and keys do not
// grow. docs/dev/reliability.md has its plots.
package soak

import (
	"fmt"
	"slices"
)

// series is a quantity over the time of a run, sampled at equal intervals.
type series struct {
	name   string
	values []float64
	// ratio and more bound how much the last quarter may exceed the second.
	ratio, more float64
}

// fewest is the least number of samples for a comparison of quarters.
const fewest = 40

// grew compares the median of the second quarter, when everything is warm, with that of the
// last, and returns an error if it grew too much. Medians ignore single peaks, such as
// garbage that is about to be collected.
func (s *series) grew() error {
	n := len(s.values)
	if n < fewest {
		return fmt.Errorf("%s: %d samples are too few: at least %d", s.name, n, fewest)
	}
	before, after := median(s.values[n/4:n/2]), median(s.values[n-n/4:])
	if most := before*(1+s.ratio) + s.more; after > most {
		return fmt.Errorf("%s grew from %.4g to %.4g, more than %.0f %% and %.4g allow", s.name, before, after, 100*s.ratio, s.more)
	}
	return nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
