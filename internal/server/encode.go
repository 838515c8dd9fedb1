package server

import (
	"strconv"
	"strings"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// Fields of RateLimitResponse and of the messages in it.
const (
	responseCode     protowire.Number = 1
	responseStatuses protowire.Number = 2
	responseHeaders  protowire.Number = 3
	requestHeaders   protowire.Number = 4
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

// encode appends the answer to b.
func (s *Service) encode(b []byte, r *limiter.Request) []byte {
	b = appendUint(b, responseCode, uint64(code(r.OverLimit)))
	for i := range r.Descriptors {
		b = appendStatus(b, &r.Descriptors[i].Status)
	}
	if r.Minimum != nil && s.headers {
		b = s.opts.Headers.append(b, r)
	}
	for _, h := range r.RequestHeaders() {
		b = appendHeader(b, requestHeaders, h.Name, h.Value)
	}
	if r.OverLimit {
		if body := r.RawBody(); len(body) > 0 {
			b = protowire.AppendTag(b, responseBody, protowire.BytesType)
			b = protowire.AppendBytes(b, body)
		}
	}
	if m := s.metadata(r); m != nil {
		b = appendMessage(b, responseMetadata, m)
	}
	return b
}

func code(over bool) pb.RateLimitResponse_Code {
	if over {
		return pb.RateLimitResponse_OVER_LIMIT
	}
	return pb.RateLimitResponse_OK
}

// appendStatus appends the status of a descriptor.
func appendStatus(b []byte, st *limiter.Status) []byte {
	overLimit := uint64(code(st.OverLimit))
	size := sizeUint(statusCode, overLimit) + sizeUint(statusLeft, uint64(st.Remaining))
	if st.Limit == nil {
		b = protowire.AppendTag(b, responseStatuses, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(size))
		b = appendUint(b, statusCode, overLimit)
		return appendUint(b, statusLeft, uint64(st.Remaining))
	}
	current := st.Limit.Encoded
	if current == nil {
		current = EncodeLimit(st.Limit)
	}
	wait := uint64(seconds(st.PassesAfter))
	sizeReset := sizeUint(durationSeconds, wait)
	size += len(current) + protowire.SizeTag(statusReset) + protowire.SizeBytes(sizeReset)
	b = protowire.AppendTag(b, responseStatuses, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = appendUint(b, statusCode, overLimit)
	b = append(b, current...)
	b = appendUint(b, statusLeft, uint64(st.Remaining))
	b = protowire.AppendTag(b, statusReset, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(sizeReset))
	return appendUint(b, durationSeconds, wait)
}

// EncodeLimit returns current_limit of a status that reports l, as a field on the wire.
// It is for [limiter.Options].Encode.
func EncodeLimit(l *limiter.Limit) []byte {
	var m []byte
	m = appendUint(m, currentRequests, uint64(l.RequestsPerUnit))
	m = appendUint(m, currentUnit, uint64(l.Unit))
	if l.Name != "" {
		m = protowire.AppendTag(m, currentName, protowire.BytesType)
		m = protowire.AppendString(m, l.Name)
	}
	if l.UnitMultiplier > 1 {
		m = appendMessage(m, currentMultiplier, wrapperspb.UInt32(l.UnitMultiplier))
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, statusCurrent, protowire.BytesType), m)
}

// append adds the headers that report the request's Minimum.
func (h *Headers) append(b []byte, r *limiter.Request) []byte {
	v, st := &r.Verdict, r.Minimum
	b = appendNumber(b, h.Limit, int64(st.Limit.RequestsPerUnit))
	b = appendNumber(b, h.Remaining, int64(st.Remaining))
	b = appendNumber(b, h.Reset, seconds(st.ResetAfter))
	if v.OverLimit && v.RetryAfter != algo.Never {
		b = appendNumber(b, h.RetryAfter, seconds(v.RetryAfter))
	}
	if h.Draft {
		policy, state := draft(st)
		b = appendHeader(b, responseHeaders, "RateLimit-Policy", policy)
		b = appendHeader(b, responseHeaders, "RateLimit", state)
	}
	if h.Rule != "" {
		if rule := r.RuleOf(st); rule != "" {
			b = appendHeader(b, responseHeaders, h.Rule, headerText(rule))
		}
	}
	return b
}

// appendNumber adds a header, unless it has no name.
func appendNumber(b []byte, name string, value int64) []byte {
	if name == "" {
		return b
	}
	var digits [20]byte
	return appendHeader(b, responseHeaders, name, strconv.AppendInt(digits[:0], value, 10))
}

// appendHeader adds a header to one of the answer's lists of them.
func appendHeader[T string | []byte](b []byte, list protowire.Number, name string, value T) []byte {
	size := protowire.SizeTag(headerKey) + protowire.SizeBytes(len(name)) + protowire.SizeTag(headerValue) + protowire.SizeBytes(len(value))
	b = protowire.AppendTag(b, list, protowire.BytesType)
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
// whole number of them (one of requests in flight has a unit, qu, instead), and the state with what remains, r, and the seconds until
// the quota is whole again, t.
func draft(st *limiter.Status) (policy, state string) {
	name := structuredString(st.Limit.Name)
	p := st.Limit.Algo.Params()
	policy = name + ";q=" + strconv.FormatUint(uint64(p.Limit), 10)
	switch {
	case p.Algorithm.AlwaysHolds():
		policy += `;qu="concurrent-requests"`
	case p.Window > 0 && p.Window%time.Second == 0: // those of a calendar differ in length
		policy += ";w=" + strconv.FormatInt(int64(p.Window/time.Second), 10)
	}
	state = name + ";r=" + strconv.FormatUint(uint64(st.Remaining), 10) + ";t=" + strconv.FormatInt(seconds(st.ResetAfter), 10)
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

// headerText returns s as the value of a header: as it is if it is visible ASCII, else
// as a string of Go, for rules may hold anything.
func headerText(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) || strings.TrimSpace(s) != s {
		return strconv.QuoteToASCII(s)
	}
	return s
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
