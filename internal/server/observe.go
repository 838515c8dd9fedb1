package server

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/status"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/live"
)

// observe shows what became of a request to those who watch, and at debug level to
// the log. It allocates nothing unless somebody takes what it shows.
func (s *Service) observe(r *request, err error, now time.Time) {
	watchers := s.opts.Live.Watchers()
	if watchers == nil && !s.debug {
		return
	}
	for i := range r.descriptors {
		d := &r.descriptors[i]
		o := s.outcome(r, d, err)
		watchers.Offer(&o.Subject, func() live.Decision { return r.describeOutcome(d, &o, err, now) })
	}
	if s.debug {
		s.logRequest(r, err, now)
	}
}

// outcome is what became of a descriptor.
type outcome struct {
	live.Subject
	decided *limit // nil if no limit did
	at      int    // its check
}

func (s *Service) outcome(r *request, d *matched, err error) (o outcome) {
	o.Domain = r.domain
	if d.match != nil {
		o.Rule = d.match.Path
	}
	switch o.decided, o.at = d.reported, d.at; {
	case err != nil:
		o.Verdict, o.decided = live.Error, nil
	case d.match == nil && d.override == nil:
		o.Verdict = live.Unmatched
	case d.over && !s.opts.ShadowMode:
		o.Verdict = live.Over
	case d.over || !d.passes:
		o.Verdict = live.Shadow
	default:
		for i := d.first; i < d.last; i++ {
			if l := r.limits[i]; l.candidate && !r.decisions[i].Allowed {
				o.Verdict, o.decided, o.at = live.Shadow, l, i
				break
			}
		}
	}
	if o.decided != nil {
		o.Limit = o.decided.name
	}
	return o
}

func (r *request) describeOutcome(d *matched, o *outcome, err error, now time.Time) live.Decision {
	out := live.Decision{Time: now, Verdict: o.Verdict, Rule: o.Rule, Brought: d.override != nil, Hits: r.cost(&d.asked)}
	out.SetRequest(r.domain, r.entries[d.entries[0]:d.entries[1]])
	switch {
	case err != nil:
		out.Error = status.Convert(err).Message()
	case o.decided != nil:
		x := &r.decisions[o.at]
		left := max(x.Remaining, 0)
		out.Name, out.Limit, out.Left = o.decided.name, descriptor.LimitText(o.decided.algo), &left
		out.ResetSeconds = x.ResetAfter.Seconds()
		if !x.Allowed && x.RetryAfter != algo.Never {
			out.RetrySeconds = x.RetryAfter.Seconds()
		}
	case d.rule != nil && d.rule.unlimited:
		out.Limit = "unlimited"
	}
	return out
}

// logRequest logs a request with its look-ups, the keys of its counters and what was
// decided.
func (s *Service) logRequest(r *request, err error, now time.Time) {
	fields := []zap.Field{zap.String("domain", r.domain), zap.Duration("took", time.Since(now))}
	if err != nil {
		fields = append(fields, zap.Error(err))
	}
	var matcher *descriptor.Matcher
	if rules := s.rules.Load(); rules != nil {
		matcher = rules.matcher
	}
	lines := make(lookups, len(r.descriptors))
	for i := range r.descriptors {
		d := &r.descriptors[i]
		o := s.outcome(r, d, err)
		line := &lines[i]
		line.Decision = r.describeOutcome(d, &o, err, now)
		entries := r.entries[d.entries[0]:d.entries[1]]
		line.entries = descriptor.Entries(entries).String()
		if o.Verdict == live.Unmatched && matcher != nil {
			line.reason = matcher.Explain(r.domain, entries).Reason
		}
		for _, c := range r.ask.Checks[min(d.first, len(r.ask.Checks)):min(d.last, len(r.ask.Checks))] {
			line.keys = append(line.keys, string(c.Key))
		}
	}
	s.opts.Log.Debug("request", append(fields, zap.Array("descriptors", lines))...)
}

// lookup is one descriptor of a request in the log.
type lookup struct {
	live.Decision
	entries string
	reason  string // why no rule applies
	keys    []string
}

type lookups []lookup

// MarshalLogArray implements zapcore.ArrayMarshaler.
func (l lookups) MarshalLogArray(to zapcore.ArrayEncoder) error {
	for i := range l {
		if err := to.AppendObject(&l[i]); err != nil {
			return err
		}
	}
	return nil
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (l *lookup) MarshalLogObject(to zapcore.ObjectEncoder) error {
	to.AddString("entries", l.entries)
	to.AddString("verdict", l.Verdict.String())
	for _, text := range []struct{ name, value string }{{"reason", l.reason}, {"rule", l.Rule}, {"limit", l.Limit}, {"name", l.Name}} {
		if text.value != "" {
			to.AddString(text.name, text.value)
		}
	}
	to.AddInt64("hits", l.Hits)
	if l.Left != nil {
		to.AddInt64("left", *l.Left)
		to.AddFloat64("reset_seconds", l.ResetSeconds)
	}
	if l.keys == nil {
		return nil
	}
	return to.AddArray("keys", zapcore.ArrayMarshalerFunc(func(to zapcore.ArrayEncoder) error {
		for _, key := range l.keys {
			to.AppendString(key)
		}
		return nil
	}))
}
