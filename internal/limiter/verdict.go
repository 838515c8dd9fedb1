package limiter

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// Verdict is the answer to a request as a whole.
type Verdict struct {
	// OverLimit refuses the request.
	OverLimit bool
	// Minimum is the status with the least room among those that are enforced; nil if
	// there is none.
	Minimum *Status
	// RetryAfter is when the request would pass, if it is refused; algo.Never if never.
	RetryAfter time.Duration

	refused bool // over limit, but for Options.ShadowMode
}

// Status is the answer to one descriptor.
type Status struct {
	// OverLimit reports that it is refused.
	OverLimit bool
	passes    bool // in shadow mode, too
	// Remaining hits of Limit; math.MaxUint32 if the descriptor is unlimited.
	Remaining uint32
	// Limit is the reported one, of those that apply that with the least room; nil:
	// none applies.
	Limit *Limit
	// ResetAfter is when the counter of Limit is unused again.
	ResetAfter time.Duration
	// PassesAfter is when the same descriptor would pass, if it is over limit and ever
	// passes; otherwise the time until its counters are unused. Of a refusal that no wait
	// would change and whose counters are unused, such as that of a limit of 0, it is the
	// length of a window.
	PassesAfter time.Duration

	check int // of Limit
}

// judge reads the decisions into a status of each descriptor and a verdict on the
// request.
func (l *Limiter) judge(r *Request) {
	r.Verdict = Verdict{}
	quotas, refusingQuotas, quotaWait := 0, 0, algo.Never
	for i := range r.Descriptors {
		d := &r.Descriptors[i]
		isQuota, quotaRefuses, refuses := false, false, false
		var wait, ownQuotaWait time.Duration // of its limits that are required, and of its quotas
		for p, parts := 0, r.partsOf(i); p < len(parts); p++ {
			part := &parts[p]
			partWait := r.reportPart(part)
			isQuota = isQuota || part.role == backend.Quota && !part.unlimited() && (part.Limit != nil || l.opts.QuotaMode)
			if part.OverLimit && part.role == backend.Quota {
				quotaRefuses, ownQuotaWait = true, max(ownQuotaWait, partWait)
			} else if part.OverLimit {
				refuses, wait = true, max(wait, partWait)
			}
			if d != part {
				d.take(part, p == 0)
			}
		}
		if isQuota {
			quotas++
		}
		if d.Limit == nil || d.role == backend.Shadow {
			continue
		}
		if m := r.Minimum; m == nil || !m.OverLimit && d.Remaining < m.Remaining {
			r.Minimum = &d.Status
		}
		if quotaRefuses {
			refusingQuotas++
			quotaWait = min(quotaWait, ownQuotaWait)
		}
		if refuses {
			r.Minimum = &d.Status
			r.RetryAfter = max(r.RetryAfter, wait)
			r.refused = true
		}
	}
	if quotas > 0 && refusingQuotas == quotas {
		r.refused = true
		r.RetryAfter = max(r.RetryAfter, quotaWait)
	}
	r.OverLimit = r.refused
	if l.opts.ShadowMode { // no limit is enforced, so that headers report none
		r.OverLimit, r.Minimum = false, nil
	}
}

// reportPart is report, for a part that may be unlimited or in shadow mode.
func (r *Request) reportPart(d *Descriptor) (wait time.Duration) {
	if d.unlimited() {
		d.Status = Status{Remaining: math.MaxUint32, passes: true}
		return 0
	}
	wait = r.report(d)
	d.OverLimit = d.Limit != nil && d.role != backend.Shadow && !d.passes
	return wait
}

// take gives the descriptor the status of a part, if the part is the first one or is
// preferred to those before it. Enforced parts are preferred to those in shadow mode, then
// those that refuse, then those with less room. A descriptor that is over limit passes when
// all parts that refuse it do.
func (d *Descriptor) take(part *Descriptor, first bool) {
	was, role := d.Status, d.role
	live := func(s *Status, role backend.Role) int {
		switch {
		case s.Limit == nil:
			return 0
		case role == backend.Shadow:
			return 1
		}
		return 2
	}
	a, b := live(&part.Status, part.role), live(&was, role)
	switch {
	case first || a > b || a == b && a > 0 && part.tighter(&was):
		d.Status, d.role = part.Status, part.role
	case a == 0 && b == 0 && part.unlimited():
		d.Status = part.Status
	}
	if !first && part.OverLimit && was.OverLimit {
		d.PassesAfter = max(part.PassesAfter, was.PassesAfter)
	}
}

// tie is how far waits may be apart that are the same: stores and what they remember
// read the clock one after the other.
const tie = 10 * time.Millisecond

// tighter reports whether a, which comes after b, is to be reported rather than b.
func (a *Status) tighter(b *Status) bool {
	if a.passes != b.passes {
		return b.passes
	}
	return a.Remaining < b.Remaining || a.Remaining == b.Remaining && a.PassesAfter-b.PassesAfter > tie
}

// report reads the decisions on a descriptor into its status, candidates aside. It
// reports the limit with the least room and, of a refusal, the longest wait of all
// limits that refuse: only then would the same request pass. It returns that wait,
// Never if none is long enough; the status then has the time until the counter is
// unused.
func (r *Request) report(d *Descriptor) (wait time.Duration) {
	d.passes, d.OverLimit, d.Limit, d.Remaining = true, false, nil, 0
	var least *algo.Decision
	var until time.Duration
	for i := d.first; i < d.last; i++ {
		if r.limits[i].candidate {
			continue
		}
		x := &r.decisions[i]
		if !x.Allowed {
			d.passes = false
			wait = max(wait, x.RetryAfter)
			switch {
			case x.RetryAfter != algo.Never:
				until = max(until, x.RetryAfter)
			case x.ResetAfter > 0:
				until = max(until, x.ResetAfter)
			default: // the counter is unused, and no wait helps: 0 would have clients return at once
				until = max(until, r.ask.Checks[i].Limit.Params().Length())
			}
		}
		if least == nil || tighter(x, least) {
			least, d.check = x, i
		}
	}
	if least == nil {
		return 0
	}
	d.Limit = r.limits[d.check]
	d.Remaining = uint32(min(max(least.Remaining, 0), math.MaxUint32))
	d.ResetAfter, d.PassesAfter = least.ResetAfter, least.ResetAfter
	if !d.passes && d.role != backend.Shadow {
		d.PassesAfter = until
	}
	return wait
}

// charged reports whether the store has charged the descriptor's checks that fitted.
// Candidates that stand alone, because the limits beside them are replaced, are so
// all or none, though whatever they say their descriptor passes.
func (r *Request) charged(d *Descriptor) bool {
	if d.first == d.last {
		return true
	}
	first, last := backend.DescriptorAt(r.ask.Checks, d.first) // all that are decided together with it
	return backend.Passes(r.ask.Checks[first:last], r.decisions[first:last])
}

// tighter reports whether a is to be reported rather than b: it refuses and b does
// not, or has less room or, with as much of it, the longer wait.
func tighter(a, b *algo.Decision) bool {
	if a.Allowed != b.Allowed {
		return b.Allowed
	}
	return a.Remaining < b.Remaining || a.Remaining == b.Remaining && a.RetryAfter > b.RetryAfter
}

// RawBody returns the body of the first refusing limit that has one; nil for none.
func (r *Request) RawBody() []byte {
	for i := range r.Descriptors {
		if d := &r.Descriptors[i]; d.OverLimit && len(d.Limit.RawBody) > 0 {
			return d.Limit.RawBody
		}
	}
	return nil
}

// MaxRequestHeaders is how many headers at most mark one request.
const MaxRequestHeaders = 16

// RequestHeaders returns the headers that mark the request if it passes: those of the
// limits that it is over all the same, because they are in shadow mode, or because
// another quota has room. Of equal ones there is one. Nil for none.
func (r *Request) RequestHeaders() (headers []config.Header) {
	if !r.marked || r.OverLimit {
		return nil
	}
	for at, l := range r.limits {
		if r.decisions[at].Allowed {
			continue
		}
		for _, h := range l.RequestHeaders {
			if len(headers) < MaxRequestHeaders && !slices.Contains(headers, h) {
				headers = append(headers, h)
			}
		}
	}
	return headers
}

// Metadata returns the metadata of the rules whose limits the request passed, merged:
// of two values for one key the earlier descriptor's wins.
func (r *Request) Metadata() map[string]any {
	passed := map[string]any{}
	for i := range r.Descriptors {
		for p, parts := 0, r.partsOf(i); p < len(parts); p++ {
			if d := &parts[p]; !d.OverLimit && d.first < d.last && d.rule != nil {
				passed = merge(passed, d.rule.match.Config.Metadata)
			}
		}
	}
	return passed
}

// merge returns a with what only b has; maps that both have are merged. Neither is
// changed, because they belong to the rules.
func merge(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	for key, v := range b {
		have, both := out[key]
		if !both {
			out[key] = v
			continue
		}
		x, isMap := have.(map[string]any)
		if y, alsoMap := v.(map[string]any); isMap && alsoMap {
			out[key] = merge(x, y)
		}
	}
	return out
}

// count counts a judged request in the statistics.
func (l *Limiter) count(r *Request, now time.Time) {
	if r.refused && !r.OverLimit {
		l.opts.Stats.GlobalShadowMode.Add(1)
	}
	whole := r.refused && (r.ask.AllOrNothing || r.givesBack) && !r.settles() // nothing was charged that counts no denied hits
	for i := range r.Descriptors {
		parts := r.partsOf(i)
		for p := range parts {
			d := &parts[p]
			r.countPart(d, whole || len(parts) > 1 && !r.charged(d), now)
		}
	}
}

// countPart counts a rule's part of a descriptor. whole says that nothing was charged
// that counts no denied hits.
func (r *Request) countPart(d *Descriptor, whole bool, now time.Time) {
	hits := max(d.cost, 0)
	if d.rule != nil && d.rule.holds {
		hits = r.countHold(d, hits, whole)
	}
	switch {
	case d.Limit != nil:
		switch u := r.usage(d.check, hits, d.passes); {
		case !d.passes:
			d.stats.Deny(u, now, d.role == backend.Shadow)
			if r.decisions[d.check].Remembered {
				d.stats.DenyLocally(hits)
			}
		case whole && d.Limit.Algo.DeniedHits() != algo.Count:
			d.stats.AllowWithoutCharge(hits)
		default:
			d.stats.Allow(u)
		}
	case d.unlimited() && whole:
		d.stats.AllowWithoutCharge(hits)
	case d.unlimited():
		d.stats.Allow(stats.Usage{Hits: hits, Near: math.MaxInt64})
	}
	if d.last-d.first > 1 || d.Limit == nil {
		r.countCandidates(d, hits, whole, now)
	}
}

// countCandidates counts the limits in shadow mode beside others, each on its own.
func (r *Request) countCandidates(d *Descriptor, hits int64, whole bool, now time.Time) {
	for at := d.first; at < d.last; at++ {
		l, fits := r.limits[at], r.decisions[at].Allowed
		if !l.candidate {
			continue
		}
		u := r.usage(at, hits, fits)
		switch {
		case !fits:
			over := l.stats.Deny(u, now, true)
			if d.passes {
				d.stats.LetThrough(over)
			}
		case (whole || !r.charged(d)) && l.Algo.DeniedHits() != algo.Count:
			l.stats.AllowWithoutCharge(hits)
		default:
			l.stats.Allow(u)
		}
	}
}

// usage returns how a check moved its counter, which was charged if it was allowed
// or if its limit counts denied hits.
func (r *Request) usage(at int, hits int64, allowed bool) stats.Usage {
	l := r.limits[at]
	capacity := l.Algo.Capacity()
	u := stats.Usage{Hits: hits, After: capacity - r.decisions[at].Remaining, Near: l.near, Limit: capacity}
	u.Before = u.After
	if allowed || l.Algo.DeniedHits() == algo.Count {
		u.Before = max(0, u.After-u.Hits)
	}
	return u
}
