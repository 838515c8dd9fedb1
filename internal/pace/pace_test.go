package pace_test

import (
	"math"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/pace"
)

// TestPace holds the samples of each second near what was asked for, at rates from few
// events to many and back, and their periods to standing for all events.
func TestPace(t *testing.T) {
	const perSecond = 100
	p := pace.New(perSecond)
	now := time.Unix(1_700_000_000, 0)
	for _, rate := range []int{10, 50_000, 50_000, 50_000, 50_000, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20} {
		samples, stands := 0, 0.0
		for i := range rate {
			at := now.Add(time.Duration(i) * time.Second / time.Duration(rate))
			if period, taken := p.Draw(); taken {
				p.Take(at)
				samples++
				stands += float64(period)
			}
		}
		now = now.Add(time.Second)
		p.Relax(now)
		if samples > 12*perSecond {
			t.Errorf("%d samples of %d events", samples, rate)
		}
		if rate == 50_000 && math.Abs(stands-float64(rate)) > 0.5*float64(rate) {
			t.Errorf("samples stand for %.0f events of %d", stands, rate)
		}
	}
	if p.Period() != 1 {
		t.Errorf("one of %d few events is taken after a rush, want all", p.Period())
	}
}
