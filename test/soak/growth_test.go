package soak

import (
	"math/rand/v2"
	"testing"
)

func TestGrew(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	saw := func(i int) float64 { return 100 + float64(i%17) + 3*rng.Float64() }
	for _, c := range []struct {
		name  string
		value func(i int) float64
		grew  bool
	}{
		{"a saw", saw, false},
		{"a saw that climbs by half", func(i int) float64 { return saw(i) + float64(i)/4 }, true},
		{"that starts from nothing", func(i int) float64 { return min(saw(i), float64(10*i)) }, false},
		{"with a peak at the end", func(i int) float64 {
			if i > 390 {
				return 10_000
			}
			return saw(i)
		}, false},
		{"a step in the middle", func(i int) float64 {
			if i > 220 {
				return saw(i) + 40
			}
			return saw(i)
		}, true},
		{"a leak of one in a hundred samples", func(i int) float64 { return saw(i) + 10*float64(i/100) }, true},
		{"that shrinks", func(i int) float64 { return 1000 - float64(i) }, false},
	} {
		s := series{name: c.name, ratio: 0.1, more: 5}
		for i := range 400 {
			s.values = append(s.values, c.value(i))
		}
		if err := s.grew(); (err != nil) != c.grew {
			t.Errorf("%s: %v, want growth %t", c.name, err, c.grew)
		}
	}
	short := series{name: "short", values: make([]float64, fewest-1)}
	if short.grew() == nil {
		t.Error("too few samples pass for no growth")
	}
}
