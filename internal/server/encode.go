package server

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
	reported *limit // nil: none applies
	left     uint32
	reset    int64 // seconds
}

// overall is what the answer says of the request.
type overall struct {
	over     bool
	tightest int // the descriptor whose limit the headers report; -1: none
	wait     time.Duration
}

// encode turns decisions into the answer, appended to b, and counts them.
func (s *Service) encode(b []byte, r *request, now time.Time) []byte {
	o := s.judge(r, now)
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

// judge reads decisions into a verdict on each descriptor and on the whole.
func (s *Service) judge(r *request, now time.Time) overall {
	var (
		o                      = overall{tightest: -1}
		quotas, refusingQuotas int
		quotaWait              = algo.Never
	)
	for i := range r.descriptors {
		d := &r.descriptors[i]
		if d.rule != nil && d.rule.unlimited {
			d.left = math.MaxUint32
			d.stats.Allow(stats.Usage{Hits: max(d.hits, 0), Near: math.MaxInt64})
			continue
		}
		if d.role == backend.Quota {
			quotas++
		}
		if d.first == d.last {
			continue
		}
		at, allowed := r.reported(d)
		decision, limit := r.decisions[at], r.limits[at]
		d.reported = limit
		d.left = uint32(min(max(decision.Remaining, 0), math.MaxUint32))
		d.reset = seconds(decision.ResetAfter)
		count(d, limit, decision, allowed, now)
		if r.ask.Remembered && !allowed {
			d.stats.DenyLocally(max(d.hits, 0))
		}

		if o.tightest < 0 || !r.descriptors[o.tightest].over && d.left < r.descriptors[o.tightest].left {
			o.tightest = i
		}
		if allowed || d.role == backend.Shadow {
			continue
		}
		d.over = true
		if d.role == backend.Quota {
			refusingQuotas++
			quotaWait = min(quotaWait, decision.RetryAfter)
			continue
		}
		o.tightest = i
		o.wait = max(o.wait, decision.RetryAfter)
		o.over = true
	}
	if quotas > 0 && refusingQuotas == quotas {
		o.over = true
		o.wait = max(o.wait, quotaWait)
	}
	if o.over && s.opts.ShadowMode {
		s.opts.Stats.GlobalShadowMode.Add(1)
		o.over = false
	}
	return o
}

// reported returns which check of a descriptor its status reports, the one with
// the least room or, on refusal, the longest wait, and whether all passed.
func (r *request) reported(d *matched) (at int, allowed bool) {
	at = d.first
	for i := d.first + 1; i < d.last; i++ {
		a, b := &r.decisions[at], &r.decisions[i]
		switch {
		case a.Allowed != b.Allowed:
			if a.Allowed {
				at = i
			}
		case a.Allowed && b.Remaining < a.Remaining, !a.Allowed && b.RetryAfter > a.RetryAfter:
			at = i
		}
	}
	return at, r.decisions[at].Allowed
}

func count(d *matched, l *limit, decision algo.Decision, allowed bool, now time.Time) {
	capacity := l.algo.Capacity()
	u := stats.Usage{Hits: max(d.hits, 0), After: capacity - decision.Remaining, Near: l.near, Limit: capacity}
	u.Before = u.After
	if allowed || l.algo.DeniedHits() == algo.Count && d.role != backend.Shadow {
		u.Before = max(0, u.After-u.Hits)
	}
	if allowed {
		d.stats.Allow(u)
	} else {
		d.stats.Deny(u, now, d.role == backend.Shadow)
	}
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
		sizeReset = sizeUint(durationSeconds, uint64(v.reset))
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
		b = appendUint(b, durationSeconds, uint64(v.reset))
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

// seconds rounds up to whole seconds: Envoy's headers drop the fraction, and "0"
// would invite a client back too early.
func seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}
