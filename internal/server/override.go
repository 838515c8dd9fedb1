package server

import (
	"errors"
	"fmt"
	"math"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// override is the limit that a request brings along.
type override struct {
	requests      uint32
	unit          int32
	multiplier    uint32
	hasMultiplier bool
}

// units holds the windows of the units that an override may have; the messages
// of overrides and answers number them alike.
var units = map[pb.RateLimitResponse_RateLimit_Unit]time.Duration{
	pb.RateLimitResponse_RateLimit_SECOND: time.Second,
	pb.RateLimitResponse_RateLimit_MINUTE: time.Minute,
	pb.RateLimitResponse_RateLimit_HOUR:   time.Hour,
	pb.RateLimitResponse_RateLimit_DAY:    24 * time.Hour,
	pb.RateLimitResponse_RateLimit_WEEK:   7 * 24 * time.Hour,
	pb.RateLimitResponse_RateLimit_MONTH:  30 * 24 * time.Hour,
	pb.RateLimitResponse_RateLimit_YEAR:   365 * 24 * time.Hour,
}

// window returns the unit times its multiplier. The error begins with the field.
func (o *override) window() (time.Duration, error) {
	name := pb.RateLimitResponse_RateLimit_Unit(o.unit)
	unit, known := units[name]
	switch most := algo.MaxWindow / max(unit, 1); {
	case !known:
		return 0, fmt.Errorf("unit: %s: use SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR", name)
	case !o.hasMultiplier:
		return unit, nil
	case o.multiplier == 0:
		return 0, errors.New("unit_multiplier: 0: use at least 1, or leave it out")
	case time.Duration(o.multiplier) > most:
		return 0, fmt.Errorf("unit_multiplier: %d times %s is longer than 366 days: use at most %d", o.multiplier, name, most)
	}
	return unit * time.Duration(o.multiplier), nil
}

// override replaces what the rule of the i-th descriptor says by the limit that the
// request brings. It keeps how the rule's first limit decides, but no mode of it,
// for Envoy's operator asked for just this limit.
func (s *Service) override(r *request, i int, domain *descriptor.Domain) error {
	m := &r.descriptors[i]
	window, err := m.limit.window()
	if err != nil {
		return fmt.Errorf("descriptors[%d].limit.%w", i, err)
	}
	p := algo.Params{Limit: m.limit.requests, Window: window}
	mode := config.BackendErrorDefault
	switch first := m.rule.first(); {
	case first != nil:
		p = scale(first.algo.Params(), p.Limit, window)
		p.DeniedHits, mode = first.algo.DeniedHits(), first.onError
	case domain.Consume() == config.AllOrNothing || s.opts.DropRefused:
		p.DeniedHits = algo.Drop
	}
	a, err := algo.New(p)
	if err != nil {
		return fmt.Errorf("descriptors[%d].limit: %w", i, err)
	}
	l, err := s.compileLimit(a, mode)
	if err != nil {
		return fmt.Errorf("descriptors[%d].limit: it cannot be decided locally: set --on-backend-error to error, allow or deny", i)
	}
	l.index = -1
	l.report(m.limit.requests, m.limit.unit, m.limit.multiplier)
	m.override, m.rule = &l, nil
	m.role = backend.Required
	if s.opts.QuotaMode {
		m.role = backend.Quota
	}
	s.countOverride(r, m, domain)
	return nil
}

// countOverride says where calls under a limit that the request brings are counted:
// under their rule, where there is none under the keys of the entries, and with
// OverridesByValue under keys and values, as envoyproxy/ratelimit does.
func (s *Service) countOverride(r *request, m *matched, domain *descriptor.Domain) {
	if m.stats != nil && !s.opts.OverridesByValue {
		return
	}
	entries := r.entries[m.entries[0]:m.entries[1]]
	if m.stats == nil {
		m.stats = &s.overrides
	}
	if len(entries) == 0 {
		return
	}
	r.path = r.path[:0]
	for i := range entries {
		if i > 0 {
			r.path = append(r.path, '.')
		}
		r.path = s.appendOverrideLevel(r.path, &entries[i])
	}
	m.stats = s.opts.Stats.Detailed(domain.Name(), r.path, m.stats, func() (first, second string) {
		first = string(s.appendOverrideLevel(nil, &entries[0]))
		if len(entries) > 1 {
			second = string(s.appendOverrideLevel(nil, &entries[1]))
		}
		return first, second
	})
}

func (s *Service) appendOverrideLevel(b []byte, e *descriptor.Entry) []byte {
	b = append(b, e.Key...)
	if e.Value != "" && s.opts.OverridesByValue {
		b = append(append(b, '_'), e.Value...)
	}
	return b
}

// first returns the limit whose algorithm an override takes: the first that is
// enforced, or else the first; nil if there is none.
func (r *rule) first() *limit {
	if r == nil || len(r.limits) == 0 {
		return nil
	}
	for i := range r.limits {
		if !r.limits[i].candidate {
			return &r.limits[i]
		}
	}
	return &r.limits[0]
}

// scale returns p with another limit. What else p says of numbers stays in
// proportion to the limit: the burst, rounded up to at least 1, and the rate at
// which the bucket of hybrid refills, to the microsecond. A leaky bucket without a
// queue, which spaces requests evenly, stays one.
func scale(p algo.Params, limit uint32, window time.Duration) algo.Params {
	was, over := p.Limit, p.Window
	p.Limit, p.Window = limit, window
	if was == 0 || limit == 0 { // no proportion
		p.Burst, p.Refill = 0, algo.Rate{}
		return p
	}
	if p.Burst > 1 || p.Burst == 1 && p.Algorithm != algo.LeakyBucket {
		p.Burst = part(p.Burst, limit, was)
	}
	if p.Refill.Hits > 0 {
		hits := part(p.Refill.Hits, limit, was)
		// As many times longer as the window is, and as the hits were rounded up.
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

// part returns n · limit/was, rounded up.
func part(n, limit, was uint32) uint32 {
	product := uint64(n) * uint64(limit)
	return uint32(min((product+uint64(was)-1)/uint64(was), math.MaxUint32))
}
