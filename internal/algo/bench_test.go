package algo_test

import (
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// benchmarks are rules under a load at which about half of the calls pass.
func benchmarks(b *testing.B, run func(*testing.B, *algo.Limit)) {
	for i, name := range algo.Algorithms() {
		for _, strict := range []bool{false, true} {
			p := algo.Params{Algorithm: algo.Algorithm(i), Limit: 1000, Window: time.Second, Strict: strict}
			if p.Algorithm == algo.LeakyBucket {
				p.Burst = 10
			}
			l, err := algo.New(p)
			if err != nil {
				continue // it has no strict mode
			}
			if strict {
				name += "_strict"
			}
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				run(b, l)
			})
		}
	}
	l, err := algo.New(algo.Params{Limit: 1000, Calendar: algo.Calendar{Every: algo.EveryMonth, Zone: "Europe/Berlin"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("fixed_window_calendar", func(b *testing.B) {
		b.ReportAllocs()
		run(b, l)
	})
}

const benchStep = 500 // µs between calls: twice the rate of the limit

// One whole decision on a stored state: the cost for a store.
func BenchmarkInPlace(b *testing.B) {
	benchmarks(b, func(b *testing.B, l *algo.Limit) {
		var s algo.State
		now := int64(epoch)
		for b.Loop() {
			now += benchStep
			s = l.Settle(s, now, nil)
			allowed := l.Fits(s, now, 1)
			if allowed {
				s = l.Charge(s, now, 1)
			} else {
				s = l.Deny(s, now, 1)
			}
			l.Report(s, now, 1, allowed)
		}
	})
}

// The pure step copies the state.
func BenchmarkStep(b *testing.B) {
	benchmarks(b, func(b *testing.B, l *algo.Limit) {
		var s algo.State
		now := int64(epoch)
		for b.Loop() {
			now += benchStep
			s, _ = l.Step(s, now, 1)
		}
	})
}
