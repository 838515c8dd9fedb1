// Package limiter decides rate limit requests: it matches a request's descriptors,
// asks the store about the limits that apply, and derives a verdict from its
// decisions. It also owns the answer when the store fails. It leaves the transport of
// requests and verdicts to server, the meaning of a rule to descriptor, the meaning
// of a limit to algo, and the counters to a backend.
package limiter

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/live"
	"github.com/distlimiter/ratelimit/internal/sparing"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// Options configure a Limiter.
type Options struct {
	// Backend decides. Required.
	Backend backend.Backend
	// Log gets failures of the backend. Required.
	Log *zap.Logger
	// Stats counts requests and hits. Required.
	Stats *stats.Stats

	// ShadowMode decides and counts everything and refuses nothing.
	ShadowMode bool
	// QuotaMode treats every descriptor as one with quota_mode.
	QuotaMode bool
	// DropRefused charges nothing for a request that is refused, even in domains that
	// are not all or nothing: limits that do not set denied_hits drop denied hits, and
	// hits that were charged for other descriptors are given back.
	DropRefused bool
	// Spread is set for a Backend that can't decide all counters of a request in one
	// step. DropRefused then gives back after the refusal, in a second call.
	Spread bool
	// Live gets decisions for watchers. Nil: nobody can watch.
	Live *live.Feed
	// NearLimitRatio is the fraction of a limit above which hits count as near it; 0
	// means DefaultNearLimitRatio.
	NearLimitRatio float64
	// OverridesByValue makes statistics count requests with an override by the values
	// of their entries, as envoyproxy/ratelimit does, rather than under their rule.
	OverridesByValue bool

	// OnBackendError is the answer for limits that the backend failed to decide, if
	// their rules set none; BackendErrorDefault means BackendErrorError.
	OnBackendError config.BackendErrorMode
	// Local decides for BackendErrorLocal. Required if that mode is used.
	Local backend.Backend
	// Replicas is the divisor of limits when Local decides, at most MaxReplicas; 0
	// means 1.
	Replicas int

	// Encode, if set, returns Limit.Encoded: the part of an answer that is the same
	// whenever this limit is reported. It is called once per limit, not per request.
	Encode func(*Limit) []byte
}

// MaxReplicas bounds Options.Replicas: a replica may have one hit in as many windows, whose
// microseconds an int64 must hold.
const MaxReplicas = 100_000

// DefaultNearLimitRatio is the default of Options.NearLimitRatio.
const DefaultNearLimitRatio = 0.8

// ErrNoRules is returned before SetRules.
var ErrNoRules = errors.New("no rate limit configuration loaded")

// RequestError is the error of a request that cannot be decided because of its own
// content. A retry fails too.
type RequestError struct{ Err error }

// Error implements error.
func (e *RequestError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *RequestError) Unwrap() error { return e.Err }

// OptionError is an error that another value of an option would prevent. The code that
// sets the options can add how a user sets it.
type OptionError struct {
	Option string // the name of the field of the package's Options
	Err    error
}

// Error implements error.
func (e *OptionError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *OptionError) Unwrap() error { return e.Err }

// Limiter decides requests. It is safe for concurrent use.
type Limiter struct {
	opts      Options
	rules     atomic.Pointer[ruleset]
	setRules  sync.Mutex
	debug     bool        // whether Log takes a line for each request
	failures  *zap.Logger // for those that each request may meet
	overrides stats.Rule  // counts overrides without statistics of their own

	givingBack atomic.Int32   // the number of requests that give back in the background
	gaveBack   sync.WaitGroup // done when none does
}

// New returns a limiter without rules.
func New(o Options) *Limiter {
	o.NearLimitRatio = cmp.Or(o.NearLimitRatio, DefaultNearLimitRatio)
	o.OnBackendError = cmp.Or(o.OnBackendError, config.BackendErrorError)
	o.Replicas = max(o.Replicas, 1)
	return &Limiter{opts: o, debug: o.Log.Core().Enabled(zap.DebugLevel), failures: sparing.Log(o.Log, 10, 10*time.Second)}
}

// SetRules puts rules in force: requests that begin later see all of them, those under
// way none. Counters survive, because their keys name the descriptors that are limited,
// not the rule. After an error the old rules stay in force.
func (l *Limiter) SetRules(rules *config.Rules) error {
	l.setRules.Lock()
	defer l.setRules.Unlock()
	rs, err := l.compile(rules)
	if err != nil {
		return err
	}
	l.rules.Store(rs)
	return nil
}

// Matcher returns the compiled rules in force; nil before SetRules.
func (l *Limiter) Matcher() *descriptor.Matcher {
	if rs := l.rules.Load(); rs != nil {
		return rs.matcher
	}
	return nil
}

// Decide decides r, which arrived at now, and writes the verdict to it: r.Verdict, and
// the Status of each descriptor. Its error is a *RequestError, ErrNoRules, a
// *BackendError, or that of ctx if the client has left; r has no verdict then.
func (l *Limiter) Decide(ctx context.Context, r *Request, now time.Time) error {
	err := l.decide(ctx, r, now)
	l.observe(r, err, now)
	return err
}

func (l *Limiter) decide(ctx context.Context, r *Request, now time.Time) error {
	if err := l.limitsToCheck(r, now); err != nil {
		l.opts.Stats.ServiceErrors.Add(1)
		return err
	}
	if len(r.ask.Checks) == 0 {
		l.judge(r)
		l.count(r, now)
		return nil
	}
	failure := l.opts.Backend.Decide(ctx, &r.ask, r.decisions)
	if failure != nil {
		out := l.decideWithout(ctx, r, failure)
		l.judge(r)
		if err := l.settleOutage(r, out, time.Since(now)); err != nil {
			return err
		}
	} else if l.judge(r); r.refused && r.givesBack {
		l.giveBack(ctx, r)
		l.judge(r)
	}
	if weight := l.opts.Stats.Sample(&r.sampler, now); weight > 0 {
		r.countHottest(weight, now)
	}
	l.count(r, now)
	return nil
}

// limitsToCheck matches the request's descriptors and builds the backend's request.
func (l *Limiter) limitsToCheck(r *Request, now time.Time) error {
	switch {
	case r.Domain == "":
		return &RequestError{errors.New("rate limit domain must not be empty: set domain in Envoy's rate limit filter")}
	case len(r.Descriptors) == 0:
		return &RequestError{errors.New("rate limit descriptor list must not be empty: add rate_limits actions to the route or virtual host")}
	}
	rules := l.rules.Load()
	if rules == nil {
		return ErrNoRules
	}
	domain := rules.matcher.Domain(r.Domain)
	if domain == nil {
		l.missDomain(r, rules, now)
		return nil
	}
	if err := l.match(r, rules, domain); err != nil {
		return &RequestError{err}
	}
	l.missRules(r, rules, domain, now)
	return nil
}

// Refused reports to watchers and to the log a request that its caller refused without
// calling Decide.
func (l *Limiter) Refused(r *Request, err error, now time.Time) { l.observe(r, err, now) }

// Close waits until requests have finished giving back hits in the background, whether
// they succeed or fail. No request may be under way or follow.
func (l *Limiter) Close() { l.gaveBack.Wait() }
