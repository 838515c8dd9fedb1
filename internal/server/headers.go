package server

import (
	"strconv"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/server/wire"
)

// Headers names the response headers; an empty name leaves that header out.
type Headers struct {
	Limit      string // requests per unit of the status with the least room
	Remaining  string // hits left of it
	Reset      string // seconds until its counter is whole again
	RetryAfter string // seconds until the request would pass; on refusals
	// Draft adds RateLimit-Policy and RateLimit as the IETF's draft defines them.
	Draft bool
	Rule  string // path of the rule that the status belongs to, as explain prints it
}

// append adds the headers that report the request's Minimum.
func (h *Headers) append(b []byte, r *limiter.Request) []byte {
	v, st := &r.Verdict, r.Minimum
	b = appendNumber(b, h.Limit, int64(st.Limit.RequestsPerUnit))
	b = appendNumber(b, h.Remaining, int64(st.Remaining))
	b = appendNumber(b, h.Reset, wire.Seconds(st.ResetAfter))
	if v.OverLimit && v.RetryAfter != algo.Never {
		b = appendNumber(b, h.RetryAfter, wire.Seconds(v.RetryAfter))
	}
	if h.Draft {
		policy, state := draft(st)
		b = wire.AppendResponseHeader(b, "RateLimit-Policy", policy)
		b = wire.AppendResponseHeader(b, "RateLimit", state)
	}
	if h.Rule != "" {
		if rule := r.RuleOf(st); rule != "" {
			b = wire.AppendResponseHeader(b, h.Rule, headerText(rule))
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
	return wire.AppendResponseHeader(b, name, strconv.AppendInt(digits[:0], value, 10))
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
	state = name + ";r=" + strconv.FormatUint(uint64(st.Remaining), 10) + ";t=" + strconv.FormatInt(wire.Seconds(st.ResetAfter), 10)
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

// headerText returns s as the value of a header. Rules may hold anything: a text that is
// not visible ASCII is quoted as in Go.
func headerText(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) || strings.TrimSpace(s) != s {
		return strconv.QuoteToASCII(s)
	}
	return s
}
