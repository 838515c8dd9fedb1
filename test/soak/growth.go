// Package soak runs the service under mixed load for as long as it is told, with
// counters in memory and in Redis, and checks that nothing grows: memory,
// goroutines, file descriptors, keys. docs/dev/reliability.md has its plots.
package soak

import (
	"fmt"
	"slices"
)

// series is a quantity over the time of a run, sampled at equal intervals.
type series struct {
	name   string
	values []float64
	// ratio and more are by how much the last quarter may exceed the second.
	ratio, more float64
}

// fewest is how many samples make quarters worth comparing.
const fewest = 40

// grew compares the median of the second quarter, by which all is warm, with that
// of the last, and returns what is wrong, if anything. Medians are deaf to single
// peaks, such as of garbage that is about to be collected.
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
