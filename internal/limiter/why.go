package limiter

import (
	"iter"
	"time"

	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/live"
)

// Reason is a limit that a descriptor is over.
type Reason struct {
	Entries []descriptor.Entry // of the descriptor; the request owns their memory
	// Rule is the path of the rule that applies. It is empty if none does, and the
	// limit is an override.
	Rule  string
	Name  string // of the limit; may be empty
	Limit string // as a text
	// Shadow reports whether the limit is in shadow mode, and so refuses nothing.
	Shadow    bool
	Remaining int64 // hits, of the limit
	// RetryAfter is the time until the same descriptor would pass; algo.Never if never.
	RetryAfter time.Duration
}

// Verdict returns live.Shadow or live.Over.
func (r *Reason) Verdict() live.Verdict {
	if r.Shadow {
		return live.Shadow
	}
	return live.Over
}

// Reasons returns why a decided request is over limit. For each descriptor that is its
// refusal, or the refusal that shadow mode prevents. After it come those limits of the
// descriptor that are in shadow mode beside others.
func (l *Limiter) Reasons(r *Request) iter.Seq[Reason] {
	return func(yield func(Reason) bool) {
		for i := range r.Descriptors {
			parts := r.partsOf(i)
			for p := range parts {
				if !l.reasonsOf(r, &parts[p], yield) {
					return
				}
			}
		}
	}
}

// reasonsOf yields the reasons of a descriptor under one of its rules. It reports whether
// to continue.
func (l *Limiter) reasonsOf(r *Request, d *Descriptor, yield func(Reason) bool) bool {
	if d.Limit != nil && !d.passes && !yield(r.reason(d, d.check, d.role == backend.Shadow || l.opts.ShadowMode)) {
		return false
	}
	for at := d.first; at < d.last; at++ {
		if r.limits[at].candidate && !r.decisions[at].Allowed && !yield(r.reason(d, at, true)) {
			return false
		}
	}
	return true
}

// reason returns why the check refuses. If several limits cause the refusal, it reports
// the one with the least room, and the longest wait of all.
func (r *Request) reason(d *Descriptor, check int, shadow bool) Reason {
	l := r.limits[check]
	out := Reason{
		Entries: r.entriesOf(d), Rule: d.path(), Name: l.Name, Limit: d.textOf(l, r.entriesOf(d)), Shadow: shadow,
		Remaining: max(r.decisions[check].Remaining, 0), RetryAfter: r.decisions[check].RetryAfter,
	}
	if l.candidate {
		return out
	}
	for i := d.first; i < d.last; i++ {
		if x := &r.decisions[i]; !x.Allowed && !r.limits[i].candidate {
			out.RetryAfter = max(out.RetryAfter, x.RetryAfter)
		}
	}
	return out
}

// path returns the path of the rule that applies; "" if none does.
func (d *Descriptor) path() string {
	if d.match == nil {
		return ""
	}
	return d.match.Path
}

// textOf returns the text of a limit that applies to the descriptor.
func (d *Descriptor) textOf(l *Limit, entries []descriptor.Entry) string {
	if l.index >= 0 {
		applies, _, _ := d.match.Config.Limits[l.index].For(entries)
		return applies.String()
	}
	brought := config.Limit{Algo: l.Algo, RequestsPerUnit: l.RequestsPerUnit, Unit: l.Unit, UnitMultiplier: l.UnitMultiplier}
	return brought.String()
}

// RuleOf returns the path of the rule to which a status of the request belongs; "" if no
// rule applies and the limit is an override.
func (r *Request) RuleOf(st *Status) string {
	if part := r.partOf(st); part != nil {
		return part.path()
	}
	return ""
}

// LimitOf returns the text of the limit that a status of the request reports; "" if it
// reports none.
func (r *Request) LimitOf(st *Status) string {
	if part := r.partOf(st); part != nil && st.Limit != nil {
		return part.textOf(st.Limit, r.entriesOf(part))
	}
	return ""
}

// partOf returns the part of a descriptor that a status of the request reports; nil for
// the status of another request.
func (r *Request) partOf(st *Status) *Descriptor {
	for i := range r.Descriptors {
		if st != &r.Descriptors[i].Status {
			continue
		}
		parts := r.partsOf(i)
		for p := range parts {
			if parts[p].Limit == st.Limit && parts[p].check == st.check {
				return &parts[p]
			}
		}
	}
	return nil
}
