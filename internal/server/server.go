// Package server owns the rate-limit service as Envoy sees it: it decodes a
// request, has its descriptors matched and decided, and encodes the answer, over
// gRPC and as JSON. What a rule means is left to descriptor, what a limit means
// to algo, and where counters live to a backend.
package server

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/live"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// Options says how the service answers.
type Options struct {
	// Backend decides. Required.
	Backend backend.Backend
	// Log gets failures of the backend. Required; it should sample.
	Log *zap.Logger
	// Stats counts. Required.
	Stats *stats.Stats

	// Live gets decisions for those who watch. Nil: nobody can.
	Live *live.Feed

	// ShadowMode decides and counts everything and answers OK.
	ShadowMode bool
	// QuotaMode treats every descriptor as one with quota_mode.
	QuotaMode bool
	// DropRefused charges nothing for a request that is refused, in domains too that
	// are not all or nothing: limits that do not say drop denied hits, and what other
	// descriptors were charged is taken back.
	DropRefused bool
	// Spread is set for a Backend that can't decide all counters of a request in one
	// step. DropRefused then gives back after the refusal, in a second call.
	Spread bool
	// DynamicMetadata adds the domain, the descriptors and the metadata of the
	// rules that passed to each answer.
	DynamicMetadata bool
	// Headers are added to each answer that reports a limit.
	Headers Headers
	// NearLimitRatio is the part of a limit above which hits count as near it; 0
	// means DefaultNearLimitRatio.
	NearLimitRatio float64
	// OverridesByValue counts calls under limits that requests bring by the values of
	// their entries, as envoyproxy/ratelimit does, rather than under their rule.
	OverridesByValue bool
	// Bounds on requests.
	Bounds Bounds

	// Admit is asked, if it is there, before a request is decided; its error is the
	// answer then.
	Admit func(context.Context) error

	// OnBackendError is what to answer for limits that the backend failed to decide,
	// where their rules do not say; BackendErrorDefault means BackendErrorError.
	OnBackendError config.BackendErrorMode
	// Local decides for BackendErrorLocal. Required if that mode is used.
	Local backend.Backend
	// Replicas is by how much limits are divided when Local decides; 0 means 1.
	Replicas int
}

// Headers names the response headers; an empty name leaves that header out.
type Headers struct {
	Limit      string // requests per unit of the status with the least room
	Remaining  string // what is left of it
	Reset      string // seconds until it is as good as new
	RetryAfter string // seconds until the request would pass; on refusals
	// Draft adds RateLimit-Policy and RateLimit as the IETF's draft has them.
	Draft bool
}

// Bounds on a request, against mistakes and attacks; 0 means the default.
type Bounds struct {
	Descriptors int // DefaultMaxDescriptors
	Entries     int // of one descriptor; DefaultMaxEntries
	EntryBytes  int // of the keys and values of one descriptor together; DefaultMaxEntryBytes
}

// Defaults of Options.
const (
	DefaultNearLimitRatio = 0.8
	DefaultMaxDescriptors = 64
	DefaultMaxEntries     = 32
	DefaultMaxEntryBytes  = 8 << 10
)

// Service implements envoy.service.ratelimit.v3.RateLimitService. It answers
// Unavailable until SetRules was called, and is safe for concurrent use.
type Service struct {
	pb.UnimplementedRateLimitServiceServer

	opts      Options
	rules     atomic.Pointer[ruleset]
	setRules  sync.Mutex
	requests  sync.Pool  // of *request
	answers   sync.Pool  // of *answer
	debug     bool       // Log takes a line for each request
	overrides stats.Rule // counts overrides that find no place of their own

	givingBack atomic.Int32   // how many requests, beside their answers
	gaveBack   sync.WaitGroup // all of them
}

// New returns a service without rules.
func New(o Options) *Service {
	if o.NearLimitRatio == 0 {
		o.NearLimitRatio = DefaultNearLimitRatio
	}
	if o.OnBackendError == config.BackendErrorDefault {
		o.OnBackendError = config.BackendErrorError
	}
	o.Replicas = max(o.Replicas, 1)
	for _, b := range []struct {
		bound *int
		def   int
	}{
		{&o.Bounds.Descriptors, DefaultMaxDescriptors},
		{&o.Bounds.Entries, DefaultMaxEntries},
		{&o.Bounds.EntryBytes, DefaultMaxEntryBytes},
	} {
		if *b.bound == 0 {
			*b.bound = b.def
		}
	}
	s := &Service{opts: o, debug: o.Log.Core().Enabled(zap.DebugLevel)}
	s.requests.New = func() any { return &request{bounds: &s.opts.Bounds} }
	s.answers.New = func() any { return &answer{data: make([]byte, 0, answerBytes), service: s} }
	return s
}

// SetRules makes rules the ones in force: requests that begin later see all of
// them, those under way none. Counters go on, for they are keyed by what a rule
// limits and not by the rule.
func (s *Service) SetRules(rules *config.Rules) error {
	s.setRules.Lock()
	defer s.setRules.Unlock()
	rs, err := s.compile(rules)
	if err != nil {
		return err
	}
	s.rules.Store(rs)
	return nil
}

// Matcher returns the compiled rules in force; nil before SetRules.
func (s *Service) Matcher() *descriptor.Matcher {
	if rs := s.rules.Load(); rs != nil {
		return rs.matcher
	}
	return nil
}

// ShouldRateLimit implements the gRPC method for callers that have messages of the
// protobuf library. Its errors are InvalidArgument for requests that cannot be
// decided and Unavailable when there are no rules or the backend failed.
func (s *Service) ShouldRateLimit(ctx context.Context, msg *pb.RateLimitRequest) (*pb.RateLimitResponse, error) {
	data, err := proto.Marshal(msg)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	r := s.take()
	defer s.release(r)
	if err := r.decode(data, r.bounds); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	a, err := s.serve(ctx, r)
	if err != nil {
		return nil, err
	}
	defer a.release()
	resp := new(pb.RateLimitResponse)
	if err := proto.Unmarshal(a.data, resp); err != nil {
		return nil, status.Errorf(codes.Internal, "the answer can't be read: %v", err)
	}
	return resp, nil
}

// serve answers a decoded request. Nothing of the answer is the request's.
func (s *Service) serve(ctx context.Context, r *request) (*answer, error) {
	start := time.Now()
	a, err := s.answer(ctx, r, start)
	s.opts.Stats.Answered(time.Since(start))
	s.observe(r, err, start)
	return a, err
}

func (s *Service) answer(ctx context.Context, r *request, now time.Time) (*answer, error) {
	if s.opts.Admit != nil {
		if err := s.opts.Admit(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.check(); err != nil {
		s.opts.Stats.ServiceErrors.Add(1)
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	rules := s.rules.Load()
	if rules == nil {
		s.opts.Stats.ServiceErrors.Add(1)
		return nil, status.Error(codes.Unavailable, ErrNoRules.Error())
	}
	if domain := rules.matcher.Domain(r.domain); domain == nil {
		s.missDomain(r, rules, now)
	} else if err := s.match(r, rules, domain); err != nil {
		s.opts.Stats.ServiceErrors.Add(1)
		return nil, status.Error(codes.InvalidArgument, err.Error())
	} else {
		s.missRules(r, rules, domain, now)
	}
	var failed *outage
	if len(r.ask.Checks) > 0 {
		if err := s.opts.Backend.Decide(ctx, &r.ask, r.decisions); err != nil {
			failed = s.decideWithout(ctx, r, err)
		}
	}
	o := s.judge(r)
	switch {
	case failed != nil:
		if err := s.settleOutage(r, failed, o, time.Since(now)); err != nil {
			return nil, err
		}
	case o.refused && r.givesBack:
		s.giveBack(ctx, r)
		o = s.judge(r)
	}
	if len(r.ask.Checks) > 0 {
		if weight := s.opts.Stats.Sample(&r.sampler, now); weight > 0 {
			r.heat(weight, now)
		}
	}
	r.tally(o, now)
	if o.refused && !o.over {
		s.opts.Stats.GlobalShadowMode.Add(1)
	}
	a := s.answers.Get().(*answer)
	a.data = s.encode(a.data[:0], r, o)
	return a, nil
}

// heat has the counters of a request that stands for so many counted among the
// hottest of their rules.
func (r *request) heat(weight int64, now time.Time) {
	for i := range r.descriptors {
		if d := &r.descriptors[i]; d.rule != nil && d.first < d.last {
			d.rule.stats.Heat(r.ask.Checks[d.first].Key, weight, now)
		}
	}
}
