package server

import (
	"math"
	"strconv"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// encode turns decisions into the answer, and counts them.
func (s *Service) encode(r *request, msg *pb.RateLimitRequest, now time.Time) *pb.RateLimitResponse {
	n := len(r.descriptors)
	statuses := make([]pb.RateLimitResponse_DescriptorStatus, n)
	resets := make([]durationpb.Duration, n)
	resp := &pb.RateLimitResponse{OverallCode: pb.RateLimitResponse_OK, Statuses: make([]*pb.RateLimitResponse_DescriptorStatus, n)}

	var (
		tightest               = -1 // the descriptor whose status the headers report
		refused                = -1 // the first descriptor that refuses the request
		quotas, refusingQuotas int
		wait, quotaWait        time.Duration = 0, algo.Never
	)
	for i := range r.descriptors {
		d, st := &r.descriptors[i], &statuses[i]
		resp.Statuses[i] = st
		st.Code = pb.RateLimitResponse_OK
		if d.rule != nil && d.rule.unlimited {
			st.LimitRemaining = math.MaxUint32
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
		st.CurrentLimit = limit.current
		st.LimitRemaining = uint32(min(max(decision.Remaining, 0), math.MaxUint32))
		st.DurationUntilReset = &resets[i]
		resets[i].Seconds = seconds(decision.ResetAfter)
		count(d, limit, decision, allowed, now)
		if r.ask.Remembered && !allowed {
			d.stats.DenyLocally(max(d.hits, 0))
		}

		if tightest < 0 || statuses[tightest].Code == pb.RateLimitResponse_OK && st.LimitRemaining < statuses[tightest].LimitRemaining {
			tightest = i
		}
		if allowed || d.role == backend.Shadow {
			continue
		}
		st.Code = pb.RateLimitResponse_OVER_LIMIT
		if d.role == backend.Quota {
			refusingQuotas++
			quotaWait = min(quotaWait, decision.RetryAfter)
			continue
		}
		tightest = i
		wait = max(wait, decision.RetryAfter)
		if refused < 0 {
			refused = i
		}
	}
	over := refused >= 0
	if quotas > 0 && refusingQuotas == quotas {
		over = true
		wait = max(wait, quotaWait)
	}
	if over && s.opts.ShadowMode {
		s.opts.Stats.GlobalShadowMode.Add(1)
		over = false
	}
	if over {
		resp.OverallCode = pb.RateLimitResponse_OVER_LIMIT
		resp.RawBody = r.body(resp)
	}
	if tightest >= 0 {
		at, _ := r.reported(&r.descriptors[tightest])
		resp.ResponseHeadersToAdd = s.opts.Headers.of(&statuses[tightest], r.limits[at], over, wait)
	}
	if s.opts.DynamicMetadata {
		resp.DynamicMetadata = r.metadata(msg, resp)
	}
	return resp
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
func (r *request) body(resp *pb.RateLimitResponse) []byte {
	for i := range r.descriptors {
		d := &r.descriptors[i]
		if resp.Statuses[i].Code != pb.RateLimitResponse_OVER_LIMIT {
			continue
		}
		if at, _ := r.reported(d); len(r.limits[at].rawBody) > 0 {
			return r.limits[at].rawBody
		}
	}
	return nil
}

// of returns the headers that report st, the status of l.
func (h Headers) of(st *pb.RateLimitResponse_DescriptorStatus, l *limit, over bool, wait time.Duration) []*core.HeaderValue {
	if h == (Headers{}) {
		return nil
	}
	var list []*core.HeaderValue
	add := func(name string, value int64) {
		if name != "" {
			list = append(list, &core.HeaderValue{Key: name, Value: strconv.FormatInt(value, 10)})
		}
	}
	add(h.Limit, int64(st.CurrentLimit.RequestsPerUnit))
	add(h.Remaining, int64(st.LimitRemaining))
	add(h.Reset, st.DurationUntilReset.Seconds)
	if over && wait != algo.Never {
		add(h.RetryAfter, seconds(wait))
	}
	if h.Draft {
		policy, state := draft(st, l)
		list = append(list, &core.HeaderValue{Key: "RateLimit-Policy", Value: policy}, &core.HeaderValue{Key: "RateLimit", Value: state})
	}
	return list
}

// draft returns the fields of draft-ietf-httpapi-ratelimit-headers-10: the policy
// with its quota q and window w in seconds, which is left out where it has no
// whole number of them, and the state with what remains, r, and the seconds until
// the quota is whole again, t.
func draft(st *pb.RateLimitResponse_DescriptorStatus, l *limit) (policy, state string) {
	name := structuredString(l.name)
	p := l.algo.Params()
	policy = name + ";q=" + strconv.FormatUint(uint64(p.Limit), 10)
	if p.Window%time.Second == 0 {
		policy += ";w=" + strconv.FormatInt(int64(p.Window/time.Second), 10)
	}
	state = name + ";r=" + strconv.FormatUint(uint64(st.LimitRemaining), 10) + ";t=" + strconv.FormatInt(st.DurationUntilReset.Seconds, 10)
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
