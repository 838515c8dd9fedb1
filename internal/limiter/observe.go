package limiter

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/live"
)

// observe reports the outcome of a request to watchers, and at debug level to the log.
// It allocates nothing unless a watcher or the log takes the report.
func (l *Limiter) observe(r *Request, err error, now time.Time) {
	watchers := l.opts.Live.Watchers()
	if watchers == nil && !l.debug {
		return
	}
	for i := range r.Descriptors {
		parts, hits := r.partsOf(i), r.costOf(&r.Descriptors[i])
		for p := range parts {
			part := &parts[p]
			o := l.outcome(r, part, err)
			watchers.Offer(&o.Subject, func() live.Decision { return r.describeOutcome(part, &o, hits, err, now) })
		}
	}
	if l.debug {
		l.logRequest(r, err, now)
	}
}

// outcome is the outcome of a descriptor under a rule.
type outcome struct {
	live.Subject
	decided *Limit // the limit that decided it; nil if none did
	at      int    // the index of that limit's check
}

func (l *Limiter) outcome(r *Request, d *Descriptor, err error) (o outcome) {
	o.Domain, o.Rule = r.Domain, d.path()
	switch o.decided, o.at = d.Limit, d.check; {
	case err != nil:
		o.Verdict, o.decided = live.Error, nil
	case d.unmatched():
		o.Verdict = live.Unmatched
	case d.OverLimit && !l.opts.ShadowMode:
		o.Verdict = live.Over
	case d.OverLimit || !d.passes:
		o.Verdict = live.Shadow
	default:
		for i := d.first; i < d.last; i++ {
			if c := r.limits[i]; c.candidate && !r.decisions[i].Allowed {
				o.Verdict, o.decided, o.at = live.Shadow, c, i
				break
			}
		}
	}
	if o.decided != nil {
		o.Limit = o.decided.Name
	}
	return o
}

func (r *Request) describeOutcome(d *Descriptor, o *outcome, hits int64, err error, now time.Time) live.Decision {
	out := live.Decision{Time: now, Verdict: o.Verdict, Rule: o.Rule, Brought: d.override != nil, Hits: hits}
	out.SetRequest(r.Domain, r.entriesOf(d))
	switch {
	case err != nil:
		out.Error = err.Error()
	case o.decided != nil:
		x := &r.decisions[o.at]
		left := max(x.Remaining, 0)
		out.Name, out.Limit, out.Left = o.decided.Name, d.textOf(o.decided, r.entriesOf(d)), &left
		out.ResetSeconds = x.ResetAfter.Seconds()
		if !x.Allowed && x.RetryAfter != algo.Never {
			out.RetrySeconds = x.RetryAfter.Seconds()
		}
	case d.unlimited():
		out.Limit = d.match.Config.LimitsText()
	}
	return out
}

// unmatched reports whether no rule applies and the request brought no limit.
func (d *Descriptor) unmatched() bool {
	return d.match == nil && d.override == nil && d.fromPart >= d.toPart && !d.byFirst
}

// logRequest logs a request with its look-ups, the keys of its counters and its
// decisions.
func (l *Limiter) logRequest(r *Request, err error, now time.Time) {
	fields := []zap.Field{zap.String("domain", r.Domain), zap.Duration("took", time.Since(now))}
	if err != nil {
		fields = append(fields, zap.Error(err))
	}
	var matcher *descriptor.Matcher
	if rules := l.rules.Load(); rules != nil {
		matcher = rules.matcher
	}
	var lines lookups
	for i := range r.Descriptors {
		parts, hits := r.partsOf(i), r.costOf(&r.Descriptors[i])
		for p := range parts {
			part := &parts[p]
			o := l.outcome(r, part, err)
			entries := r.entriesOf(part)
			line := lookup{Decision: r.describeOutcome(part, &o, hits, err, now), entries: descriptor.Entries(entries).String()}
			if o.Verdict == live.Unmatched && matcher != nil {
				line.reason = matcher.Explain(r.Domain, entries).Reason
			}
			for _, c := range r.ask.Checks[min(part.first, len(r.ask.Checks)):min(part.last, len(r.ask.Checks))] {
				line.keys = append(line.keys, string(c.Key))
			}
			lines = append(lines, line)
		}
	}
	l.opts.Log.Debug("request", append(fields, zap.Array("descriptors", lines))...)
}

// lookup is one descriptor of a request in the log, under one of its rules.
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
