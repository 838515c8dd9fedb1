package limiter

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// Override is the limit that a request's descriptor brings with it.
type Override struct {
	RequestsPerUnit uint32
	Unit            config.Unit
	// UnitMultiplier lengthens the window, if HasMultiplier; 0 is an error then.
	UnitMultiplier uint32
	HasMultiplier  bool
}

// window returns the unit times its multiplier. The error begins with the name of the
// field.
func (o *Override) window() (time.Duration, error) {
	unit := o.Unit.Duration()
	switch most := algo.MaxWindow / max(unit, 1); {
	case unit == 0 && o.Unit == config.UnitUnknown:
		return 0, errors.New("unit: UNKNOWN: use SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR")
	case unit == 0:
		return 0, fmt.Errorf("unit: %d: use SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR", o.Unit)
	case !o.HasMultiplier:
		return unit, nil
	case o.UnitMultiplier == 0:
		return 0, errors.New("unit_multiplier: 0: use at least 1, or leave it out")
	case time.Duration(o.UnitMultiplier) > most:
		return 0, fmt.Errorf("unit_multiplier: %d times %s is longer than 366 days: use at most %d", o.UnitMultiplier, strings.ToUpper(o.Unit.String()), most)
	}
	return unit * time.Duration(o.UnitMultiplier), nil
}

// override replaces the limits of the i-th descriptor's rule by the descriptor's
// override. It keeps the algorithm of the rule's first limit, but not its mode, because
// Envoy's operator asked for exactly this limit.
func (l *Limiter) override(r *Request, i int, domain *descriptor.Domain) error {
	d := &r.Descriptors[i]
	window, err := d.Override.window()
	if err != nil {
		return fmt.Errorf("descriptors[%d].limit.%w", i, err)
	}
	p := algo.Params{Limit: d.Override.RequestsPerUnit, Window: window}
	limit := &Limit{RequestsPerUnit: p.Limit, Unit: d.Override.Unit, UnitMultiplier: d.Override.UnitMultiplier, index: -1}
	switch first := d.rule.first(r.entriesOf(d)); {
	case first != nil:
		p = scale(first.Algo.Params(), p.Limit, window)
		if first.percent != 0 {
			burst, fits := first.percent.Of(p.Limit)
			if !fits {
				return fmt.Errorf("descriptors[%d].limit.requests_per_unit: %d: its burst, %v of it, is more than %d: use a smaller limit", i, p.Limit, first.percent, uint32(math.MaxUint32))
			}
			p.Burst = burst
		}
		p.DeniedHits, limit.onError = first.Algo.DeniedHits(), first.onError
	case domain.Consume() == config.AllOrNothing || l.opts.DropRefused:
		p.DeniedHits = algo.Drop
	}
	if limit.Algo, err = algo.New(p); err != nil {
		return fmt.Errorf("descriptors[%d].limit: %w", i, err)
	}
	if l.compileLimit(limit) != nil {
		return fmt.Errorf("descriptors[%d].limit: %w", i, &OptionError{"OnBackendError", errors.New("it cannot be decided locally, only by error, allow or deny")})
	}
	d.override, d.rule = limit, nil
	d.role = backend.Required
	if l.opts.QuotaMode {
		d.role = backend.Quota
	}
	l.countOverride(r, d, domain)
	return nil
}

// countOverride selects the statistics of a descriptor with an override: those of its
// rule, or if there is none, of the keys of its entries. With OverridesByValue it is
// those of keys and values, as in envoyproxy/ratelimit.
func (l *Limiter) countOverride(r *Request, d *Descriptor, domain *descriptor.Domain) {
	if d.stats != nil && !l.opts.OverridesByValue {
		return
	}
	entries := r.entriesOf(d)
	if d.stats == nil {
		d.stats = &l.overrides
	}
	if len(entries) == 0 {
		return
	}
	r.path = r.path[:0]
	for i := range entries {
		if i > 0 {
			r.path = append(r.path, '.')
		}
		r.path = l.appendOverrideLevel(r.path, &entries[i])
	}
	d.stats = l.opts.Stats.Detailed(domain.Name(), r.path, d.stats, func() (first, second string) {
		first = string(l.appendOverrideLevel(nil, &entries[0]))
		if len(entries) > 1 {
			second = string(l.appendOverrideLevel(nil, &entries[1]))
		}
		return first, second
	})
}

func (l *Limiter) appendOverrideLevel(b []byte, e *descriptor.Entry) []byte {
	b = append(b, e.Key...)
	if e.Value != "" && l.opts.OverridesByValue {
		b = append(append(b, '_'), e.Value...)
	}
	return b
}

// first returns the limit whose algorithm an override uses for a descriptor with these
// entries: the first that is enforced, or else the first; nil if the rule has none.
func (r *rule) first(entries []descriptor.Entry) *Limit {
	if r == nil || len(r.limits) == 0 {
		return nil
	}
	for i := range r.limits {
		if !r.limits[i].candidate {
			return r.limits[i].of(entries)
		}
	}
	return r.limits[0].of(entries)
}

// scale returns p with another limit and window. Its other numbers stay in proportion
// to the limit: the burst, rounded up to at least 1, and the rate at which the bucket of
// hybrid refills, to the microsecond. A leaky bucket without a queue, which spaces
// requests evenly, stays one.
func scale(p algo.Params, limit uint32, window time.Duration) algo.Params {
	was, over := p.Limit, p.Window
	p.Limit, p.Window, p.Calendar = limit, window, algo.Calendar{}
	if was == 0 || limit == 0 { // no proportion
		p.Burst, p.Refill = 0, algo.Rate{}
		return p
	}
	if p.Burst > 1 || p.Burst == 1 && p.Algorithm != algo.LeakyBucket {
		p.Burst = inProportion(p.Burst, limit, was)
	}
	if p.Refill.Hits > 0 {
		hits := inProportion(p.Refill.Hits, limit, was)
		// The time grows with the window, and with the rounding of the hits.
		rounded := float64(hits) * float64(was) / (float64(p.Refill.Hits) * float64(limit))
		per := float64(p.Refill.Per) * (float64(window) / float64(over)) * rounded
		if least := float64(algo.MinWindow); per < least {
			more := math.Ceil(least / per)
			hits, per = uint32(min(float64(hits)*more, math.MaxUint32)), per*more
		}
		p.Refill = algo.Rate{Hits: hits, Per: min(time.Duration(math.Round(per/1e3))*time.Microsecond, algo.MaxWindow)}
	}
	return p
}

// inProportion returns n · limit/was, rounded up.
func inProportion(n, limit, was uint32) uint32 {
	product := uint64(n) * uint64(limit)
	return uint32(min((product+uint64(was)-1)/uint64(was), math.MaxUint32))
}
