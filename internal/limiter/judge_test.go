package limiter_test

import (
	"context"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// request decides a request and returns it with its verdict.
func (f *fixture) request(descriptors ...*ask) *limiter.Request {
	f.t.Helper()
	r := &limiter.Request{Domain: "edge"}
	for _, d := range descriptors {
		added := r.AddDescriptor(d.entries...)
		added.Hits, added.HasHits, added.Override = d.hits, d.hasHits, d.override
	}
	if err := f.Decide(context.Background(), r, time.Now()); err != nil {
		f.t.Fatal(err)
	}
	return r
}

// As in envoyproxy/ratelimit, headers report the first of the descriptors with the least
// room.
func TestTheFirstOfEqualsIsReported(t *testing.T) {
	f := serve(t, perUser)
	if a := f.ask(desc("user=a"), desc("user=b")); a.Minimum != 0 {
		t.Errorf("descriptor %d is reported", a.Minimum)
	}
}

// A request that all of its quotas refuse passes as soon as one of them does.
func TestTheNextQuotaEndsTheWait(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: soon, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: late, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 1}}
`)
	for _, order := range [][2]string{{"soon=a", "late=a"}, {"late=b", "soon=b"}} {
		f.request(desc(order[0]), desc(order[1]))
		if r := f.request(desc(order[0]), desc(order[1])); !r.OverLimit || r.RetryAfter != time.Minute {
			t.Errorf("%v: over limit: %v, retry after %v", order, r.OverLimit, r.RetryAfter)
		}
	}
}

// A descriptor that several rules refuse passes when the last of them lets it.
func TestTheSlowestRuleEndsTheWait(t *testing.T) {
	f := serve(t, `
domain: edge
limits:
  - {name: slow, match: {user: {}}, rate_limit: {algorithm: sliding_log, unit: hour, requests_per_unit: 1}}
  - {name: quick, match: {user: {}}, rate_limit: {algorithm: sliding_log, unit: minute, requests_per_unit: 1}}
`)
	f.ask(desc("user=a"))
	if a := f.ask(desc("user=a")); a.Statuses[0].DurationUntilReset != time.Hour {
		t.Errorf("%+v", a.Statuses[0])
	}
}

// Waits that differ by less than the clocks of stores do are equal: of two such limits
// the first is reported, as if the clocks were one.
func TestWaitsThatHardlyDifferAreEqual(t *testing.T) {
	f := serve(t, `
domain: edge
limits:
  - {name: first, match: {user: {}}, rate_limit: {name: first, algorithm: sliding_log, window: 60s, requests_per_unit: 1}}
  - {name: second, match: {user: {}}, rate_limit: {name: second, algorithm: sliding_log, window: 60005ms, requests_per_unit: 1}}
`)
	f.ask(desc("user=a"))
	if a := f.ask(desc("user=a")); a.Statuses[0].CurrentLimit.Name != "first" {
		t.Errorf("%s is reported", a.Statuses[0].CurrentLimit.Name)
	}
}

// A call that no wait would let pass is told when the counter is whole again.
func TestARequestThatNeverFitsWaitsForAWholeCounter(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: hour, requests_per_unit: 10}}]\n")
	f.advance(45 * time.Minute)
	if a := f.ask(withHits(desc("user=a"), 11)); a.OverallCode != over || a.Statuses[0].DurationUntilReset != 15*time.Minute {
		t.Errorf("%+v", a)
	}
}

func TestTheBodyIsThatOfARefusal(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: passes, rate_limit: {unit: hour, requests_per_unit: 10, raw_body: passed}}
  - {key: refuses, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: says, rate_limit: {unit: hour, requests_per_unit: 0, raw_body: refused}}
`)
	if body := f.request(desc("passes=a"), desc("refuses=a")).RawBody(); body != nil {
		t.Errorf("%q", body)
	}
	if body := f.request(desc("passes=a"), desc("refuses=a"), desc("says=a")).RawBody(); string(body) != "refused" {
		t.Errorf("%q", body)
	}
}

// A quota that is used up keeps no required limit beside it from being charged, even one
// that does not count denied hits.
func TestRequiredLimitsAreChargedBesideAUsedQuota(t *testing.T) {
	f := serve(t, `
domain: edge
limits:
  - {name: monthly, match: {user: {}}, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
  - {name: extra, match: {pool: {}}, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 100}}
  - {name: rate, match: {user: {}}, rate_limit: {algorithm: token_bucket, unit: minute, requests_per_unit: 3}}
`)
	want(t, f.admitted(9, desc("user=a"), desc("pool=1")), 3)
}

// A limit of 0 that a request brings refuses, whatever the numbers of the rule are.
func TestAnOverrideOf0Refuses(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: hybrid, rate_limit: {algorithm: hybrid, sliding_window: {unit: minute, requests_per_unit: 100}, token_bucket: {capacity: 10, refill_rate: 2/s}}}
  - {key: bucket, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 50, burst: 5}}
`)
	for _, key := range []string{"hybrid=a", "bucket=a"} {
		if a := f.ask(override(desc(key), 0, config.Hour)); a.OverallCode != over {
			t.Errorf("%s: %+v", key, a)
		}
	}
}

// A replica's share of a limit is rounded so that all replicas together stay within it.
func TestSharesAreRoundedDown(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors: [{key: user, rate_limit: {algorithm: token_bucket, unit: second, requests_per_unit: 3, burst: 1, on_backend_error: local}}]
`, func(o *limiter.Options) {
		o.Local, o.Backend, o.Replicas = o.Backend, broken{}, 4
	})
	want(t, f.admitted(2, desc("user=a")), 1) // one in 1,333,333.3 µs
	f.advance(1_333_333 * time.Microsecond)
	want(t, f.admitted(1, desc("user=a")), 0)
	f.advance(time.Microsecond)
	want(t, f.admitted(1, desc("user=a")), 1)
}

// leased is a store that records the shares which may be taken ahead.
type leased struct {
	backend.Backend
	shares []float64
}

func (l *leased) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	for _, c := range req.Checks {
		l.shares = append(l.shares, c.Lease)
	}
	return l.Backend.Decide(ctx, req, out)
}

// A lease spends hits of one counter without the store, which would miss those of the
// others.
func TestNoLeaseAmongSeveralLimits(t *testing.T) {
	l := &leased{}
	f := serve(t, `
domain: edge
limits:
  - {name: lone, match: {lone: {}}, rate_limit: {unit: hour, requests_per_unit: 100, lease: 0.1}}
  - {name: a, match: {user: {}}, rate_limit: {unit: hour, requests_per_unit: 100, lease: 0.1}}
  - {name: b, match: {user: {}}, rate_limit: {unit: hour, requests_per_unit: 100, lease: 0.1}}
`, func(o *limiter.Options) { l.Backend, o.Backend = o.Backend, l })
	f.ask(desc("lone=a"))
	f.ask(desc("user=a"))
	want(t, l.shares, []float64{0.1, 0, 0})
}

// What another limit of the descriptor refuses is not granted.
func TestARefusedDescriptorIsNotCountedAsGranted(t *testing.T) {
	f := serve(t, inFlight+`
  - {name: blocked, match: {user: {}}, rate_limit: {unit: hour, requests_per_unit: 0}}
`)
	f.ask(begins("a", 1))
	for _, r := range f.stats.Rules() {
		if r.Name.Path != "limits.in_flight" {
			continue
		}
		if h, _ := r.Holds(); h != (stats.Holds{}) {
			t.Errorf("%+v", h)
		}
	}
}

// A request that settles is over, so that nothing of it is given back, and what it cost
// counts, though another descriptor of it is refused.
func TestASettlementOfARefusedRequestStaysCharged(t *testing.T) {
	f := serve(t, `
domain: edge
limits:
  - name: tokens
    match: {kind: {}}
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {unit: hour, requests_per_unit: 100}
descriptors:
  - {key: passes, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 10}}
  - {key: refuses, rate_limit: {unit: hour, requests_per_unit: 0}}
`, func(o *limiter.Options) { o.DropRefused, o.Spread = true, true })
	f.ask(withHits(desc("kind=llm,request_id=1"), 30))
	a := f.ask(withHits(desc("kind=llm,request_id=1,phase=done"), 20), desc("passes=a"), desc("refuses=a"))
	if a.OverallCode != over || a.Statuses[0].LimitRemaining != 80 || a.Statuses[1].LimitRemaining != 9 {
		t.Errorf("%+v", a)
	}
	if a := f.ask(withHits(desc("passes=a"), 0)); a.Statuses[0].LimitRemaining != 9 {
		t.Errorf("what passed was given back: %+v", a)
	}
	for _, r := range f.stats.Rules() {
		if c := r.Counts(); r.Name.Path == "limits.tokens" && c.WithinLimit != 20 {
			t.Errorf("%+v", c)
		}
	}
}
