package limiter

import (
	"math"
	"strconv"
	"strings"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// Fields of RateLimitResponse and of the messages in it.
const (
	responseCode     protowire.Number = 1
	responseStatuses protowire.Number = 2
	responseHeaders  protowire.Number = 3
	responseBody     protowire.Number = 5
	responseMetadata protowire.Number = 6

	statusCode    protowire.Number = 1
	statusCurrent protowire.Number = 2
	statusLeft    protowire.Number = 3
	statusReset   protowire.Number = 4

	currentRequests   protowire.Number = 1
	currentUnit       protowire.Number = 2
	currentName       protowire.Number = 3
	currentMultiplier protowire.Number = 4

	headerKey   protowire.Number = 1
	headerValue protowire.Number = 2

	durationSeconds protowire.Number = 1
)

// verdict is what the answer says of one descriptor.
type verdict struct {
	over     bool
	passes   bool   // shadow mode or not
	at       int    // the check that is reported
	reported *limit // nil: none applies
	left     uint32
	reset    int64 // seconds until the counter is as good as new
	wait     int64 // what the status says: over limit the seconds until the same request would pass, else reset
}

// overall is what the answer says of the request.
type overall struct {
	over     bool
	refused  bool // over, but for shadow mode for all
	tightest int  // the descriptor whose limit the headers report; -1: none
	wait     time.Duration
}

// encode appends the answer to b.
func (s *Service) encode(b []byte, r *request, o overall) []byte {
	b = appendUint(b, responseCode, uint64(code(o.over)))
	for i := range r.descriptors {
		b = r.descriptors[i].verdict.append(b)
	}
	if o.tightest >= 0 {
		b = s.opts.Headers.append(b, &r.descriptors[o.tightest].verdict, o)
	}
	if o.over {
		if body := r.body(); len(body) > 0 {
			b = protowire.AppendTag(b, responseBody, protowire.BytesType)
			b = protowire.AppendBytes(b, body)
		}
	}
	if s.opts.DynamicMetadata {
		b = appendMessage(b, responseMetadata, r.metadata())
	}
	return b
}

func code(over bool) pb.RateLimitResponse_Code {
	if over {
		return pb.RateLimitResponse_OVER_LIMIT
	}
	return pb.RateLimitResponse_OK
}

// judge reads the decisions into a verdict on each descriptor and on the whole.
func (s *Service) judge(r *request) overall {
	var (
		o                      = overall{tightest: -1}
		quotas, refusingQuotas int
		quotaWait              = algo.Never
	)
	for i := range r.descriptors {
		d := &r.descriptors[i]
		if d.rule != nil && d.rule.unlimited {
			d.verdict = verdict{left: math.MaxUint32, passes: true}
			continue
		}
		wait := r.report(d)
		if d.role == backend.Quota && (d.reported != nil || s.opts.QuotaMode) {
			quotas++
		}
		if d.reported == nil || d.role == backend.Shadow {
			continue
		}
		if o.tightest < 0 || !r.descriptors[o.tightest].over && d.left < r.descriptors[o.tightest].left {
			o.tightest = i
		}
		if d.passes {
			continue
		}
		d.over = true
		if d.role == backend.Quota {
			refusingQuotas++
			quotaWait = min(quotaWait, wait)
			continue
		}
		o.tightest = i
		o.wait = max(o.wait, wait)
		o.refused = true
	}
	if quotas > 0 && refusingQuotas == quotas {
		o.refused = true
		o.wait = max(o.wait, quotaWait)
	}
	o.over = o.refused
	if s.opts.ShadowMode { // no limit is enforced, so that headers report none
		o.over, o.tightest = false, -1
	}
	return o
}

// report reads the decisions on a descriptor into its status, candidates aside. It
// reports the limit with the least room and, of a refusal, the longest wait of all
// limits that refuse: only then would the same request pass. It returns that wait,
// Never if none is long enough; the status then says when the counter is as good as
// new.
func (r *request) report(d *matched) (wait time.Duration) {
	d.verdict = verdict{passes: true}
	var least *algo.Decision
	var until time.Duration
	for i := d.first; i < d.last; i++ {
		if r.limits[i].candidate {
			continue
		}
		x := &r.decisions[i]
		if !x.Allowed {
			wait = max(wait, x.RetryAfter)
			if x.RetryAfter == algo.Never {
				until = max(until, x.ResetAfter)
			} else {
				until = max(until, x.RetryAfter)
			}
		}
		if least == nil || tighter(x, least) {
			least, d.at = x, i
		}
		d.passes = d.passes && x.Allowed
	}
	if least == nil {
		return 0
	}
	d.reported = r.limits[d.at]
	d.left = uint32(min(max(least.Remaining, 0), math.MaxUint32))
	d.reset = seconds(least.ResetAfter)
	d.wait = d.reset
	if !d.passes && d.role != backend.Shadow {
		d.wait = seconds(until)
	}
	return wait
}

// charged reports whether the store has charged the descriptor's checks that fitted.
// Candidates that stand alone, because the limits beside them are replaced, are so
// all or none, though whatever they say their descriptor passes.
func (r *request) charged(d *matched) bool {
	return backend.Passes(r.ask.Checks[d.first:d.last], r.decisions[d.first:d.last])
}

// tighter reports whether a is to be reported rather than b: it refuses and b does
// not, or has less room or, with as much of it, the longer wait.
func tighter(a, b *algo.Decision) bool {
	if a.Allowed != b.Allowed {
		return b.Allowed
	}
	return a.Remaining < b.Remaining || a.Remaining == b.Remaining && a.RetryAfter > b.RetryAfter
}

// tally counts a judged request.
func (r *request) tally(o overall, now time.Time) {
	whole := o.refused && (r.ask.AllOrNothing || r.givesBack) // nothing was charged that counts no denied hits
	for i := range r.descriptors {
		d := &r.descriptors[i]
		hits := max(d.hits, 0)
		switch {
		case d.rule != nil && d.rule.unlimited && whole:
			d.stats.AllowWithoutCharge(hits)
		case d.rule != nil && d.rule.unlimited:
			d.stats.Allow(stats.Usage{Hits: hits, Near: math.MaxInt64})
		case d.reported != nil:
			u := r.usage(d.at, hits, d.passes)
			switch {
			case !d.passes:
				d.stats.Deny(u, now, d.role == backend.Shadow)
				if r.ask.Remembered {
					d.stats.DenyLocally(hits)
				}
			case whole && d.reported.algo.DeniedHits() != algo.Count:
				d.stats.AllowWithoutCharge(hits)
			default:
				d.stats.Allow(u)
			}
		}
		if d.last-d.first > 1 || d.reported == nil {
			r.tallyCandidates(d, hits, whole, now)
		}
	}
}

// tallyCandidates counts the limits in shadow mode beside others, each on its own.
func (r *request) tallyCandidates(d *matched, hits int64, whole bool, now time.Time) {
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
		case (whole || !r.charged(d)) && l.algo.DeniedHits() != algo.Count:
			l.stats.AllowWithoutCharge(hits)
		default:
			l.stats.Allow(u)
		}
	}
}

// usage returns how a check moved its counter, which was charged if it was allowed
// or if its limit counts denied hits.
func (r *request) usage(at int, hits int64, allowed bool) stats.Usage {
	l := r.limits[at]
	capacity := l.algo.Capacity()
	u := stats.Usage{Hits: hits, After: capacity - r.decisions[at].Remaining, Near: l.near, Limit: capacity}
	u.Before = u.After
	if allowed || l.algo.DeniedHits() == algo.Count {
		u.Before = max(0, u.After-u.Hits)
	}
	return u
}

// body returns the body of the first refusing limit that has one.
func (r *request) body() []byte {
	for i := range r.descriptors {
		if d := &r.descriptors[i]; d.over && len(d.reported.rawBody) > 0 {
			return d.reported.rawBody
		}
	}
	return nil
}

// append adds the verdict as a status.
func (v *verdict) append(b []byte) []byte {
	size := sizeUint(statusCode, uint64(code(v.over))) + sizeUint(statusLeft, uint64(v.left))
	sizeReset := 0
	if v.reported != nil {
		sizeReset = sizeUint(durationSeconds, uint64(v.wait))
		size += len(v.reported.current) + protowire.SizeTag(statusReset) + protowire.SizeBytes(sizeReset)
	}
	b = protowire.AppendTag(b, responseStatuses, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = appendUint(b, statusCode, uint64(code(v.over)))
	if v.reported != nil {
		b = append(b, v.reported.current...)
	}
	b = appendUint(b, statusLeft, uint64(v.left))
	if v.reported != nil {
		b = protowire.AppendTag(b, statusReset, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(sizeReset))
		b = appendUint(b, durationSeconds, uint64(v.wait))
	}
	return b
}

// report says how statuses report l.
func (l *limit) report(requests uint32, unit int32, multiplier uint32) {
	l.requests = requests
	var m []byte
	m = appendUint(m, currentRequests, uint64(requests))
	m = appendUint(m, currentUnit, uint64(unit))
	if l.name != "" {
		m = protowire.AppendTag(m, currentName, protowire.BytesType)
		m = protowire.AppendString(m, l.name)
	}
	if multiplier > 1 {
		m = appendMessage(m, currentMultiplier, wrapperspb.UInt32(multiplier))
	}
	l.current = protowire.AppendTag(nil, statusCurrent, protowire.BytesType)
	l.current = protowire.AppendBytes(l.current, m)
}

// append adds the headers that report v.
func (h *Headers) append(b []byte, v *verdict, o overall) []byte {
	if *h == (Headers{}) {
		return b
	}
	b = appendNumber(b, h.Limit, int64(v.reported.requests))
	b = appendNumber(b, h.Remaining, int64(v.left))
	b = appendNumber(b, h.Reset, v.reset)
	if o.over && o.wait != algo.Never {
		b = appendNumber(b, h.RetryAfter, seconds(o.wait))
	}
	if h.Draft {
		policy, state := draft(v)
		b = appendHeader(b, "RateLimit-Policy", policy)
		b = appendHeader(b, "RateLimit", state)
	}
	return b
}

// appendNumber adds a header, unless it has no name.
func appendNumber(b []byte, name string, value int64) []byte {
	if name == "" {
		return b
	}
	var digits [20]byte
	return appendHeader(b, name, strconv.AppendInt(digits[:0], value, 10))
}

func appendHeader[T string | []byte](b []byte, name string, value T) []byte {
	size := protowire.SizeTag(headerKey) + protowire.SizeBytes(len(name)) + protowire.SizeTag(headerValue) + protowire.SizeBytes(len(value))
	b = protowire.AppendTag(b, responseHeaders, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = protowire.AppendTag(b, headerKey, protowire.BytesType)
	b = protowire.AppendString(b, name)
	b = protowire.AppendTag(b, headerValue, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(value)))
	return append(b, value...)
}

// appendUint adds a number, unless it is 0, which is what an absent one is.
func appendUint(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

func sizeUint(number protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(number) + protowire.SizeVarint(v)
}

// appendMessage adds a message of the protobuf library. Its strings are UTF-8, for
// else it would not have been made of a request or a rule.
func appendMessage(b []byte, number protowire.Number, m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), data)
}

// draft returns the fields of draft-ietf-httpapi-ratelimit-headers-10: the policy
// with its quota q and window w in seconds, which is left out where it has no
// whole number of them, and the state with what remains, r, and the seconds until
// the quota is whole again, t.
func draft(v *verdict) (policy, state string) {
	name := structuredString(v.reported.name)
	p := v.reported.algo.Params()
	policy = name + ";q=" + strconv.FormatUint(uint64(p.Limit), 10)
	if p.Window%time.Second == 0 {
		policy += ";w=" + strconv.FormatInt(int64(p.Window/time.Second), 10)
	}
	state = name + ";r=" + strconv.FormatUint(uint64(v.left), 10) + ";t=" + strconv.FormatInt(v.reset, 10)
	return policy, state
}

// structuredString returns s as a string of RFC 9651, or "default" if it is empty
// or holds what such a string cannot.
func structuredString(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return `"default"`
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// seconds rounds up to whole seconds: Envoy's headers drop the fraction, and a client
// that waits as it is told would be refused again.
func seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}
