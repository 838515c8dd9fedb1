package rulefile

import (
	"fmt"
	"math"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
)

// smallLimit is the limit below which the estimate of a sliding window is so coarse
// that a client gets twice the limit almost at once.
const smallLimit = 10

// Hints returns remarks on valid rules that may surprise: small limits that admit more
// than their number in some windows, request_headers that may never be sent, and address
// ranges that are written as values.
func Hints(r *config.Rules) (hints []config.Problem) {
	for rule := range r.All() {
		d := rule.Descriptor()
		for _, limit := range d.Limits {
			if limit.Unlimited {
				continue
			}
			if len(limit.RequestHeaders) > 0 && !d.ShadowMode && !d.QuotaMode && !limit.ShadowMode {
				hints = append(hints, config.Problem{
					Pos:    limit.Pos,
					What:   "request_headers mark requests that are over the limit and pass, and this limit refuses those",
					Remedy: "consider shadow_mode: true, unless the whole service is in shadow mode",
				})
			}
			for row := range limit.All() {
				p := row.Algo.Params()
				if most := mostEstimated(p); p.Limit < smallLimit && most > p.Limit {
					hints = append(hints, config.Problem{
						Pos:    limit.Pos,
						What:   fmt.Sprintf("a %s of %d admits up to %d in some windows", p.Algorithm, p.Limit, most),
						Remedy: "consider sliding_log, which is exact, or strict",
					})
					break // one row is enough
				}
			}
		}
	}
	return append(hints, prefixHints(r)...)
}

// mostEstimated returns the most hits that a limit admits in any window if it estimates
// the last window; 0 for other limits.
func mostEstimated(p algo.Params) uint32 {
	most := 2 * float64(p.Limit)
	switch {
	case p.Strict:
		return 0
	case p.Algorithm == algo.SlidingWindow:
	case p.Algorithm == algo.Hybrid:
		burst, refill := p.Burst, p.Refill
		if burst == 0 {
			burst = p.Limit
		}
		if refill == (algo.Rate{}) {
			refill = algo.Rate{Hits: p.Limit, Per: p.Window}
		}
		// Add the hits that refill in less than a window.
		refilled := math.Ceil(float64(refill.Hits)*float64(p.Window)/float64(refill.Per)) - 1
		most = min(most, float64(burst)+refilled)
	default:
		return 0
	}
	return uint32(min(most, math.MaxUint32))
}
