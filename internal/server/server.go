// Package server owns the protocol of the rate limit service: it decodes a request, asks
// a limiter to decide it, and encodes the answer, over gRPC and as JSON. It also bounds
// and sheds requests. It leaves the decision to limiter.
package server

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/named"
	"github.com/distlimiter/ratelimit/internal/server/wire"
	"github.com/distlimiter/ratelimit/internal/sparing"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// Options configure a Service.
type Options struct {
	// Stats counts the times of answers and requests that are too large. Required.
	Stats *stats.Stats
	// Log gets a line a minute for requests that can't be decided. Nil: no log.
	Log *zap.Logger

	// DynamicMetadata adds the domain, the descriptors and the metadata of the
	// rules that passed to each answer.
	DynamicMetadata bool
	// WhyMetadata adds to each answer the rules and limits that the request is over.
	WhyMetadata bool
	// Observe, if set, gets each request with the context of its call, the limits that it
	// is over and, if it was not decided, the error that says why. The request and the
	// reasons are valid until it returns.
	Observe func(context.Context, *limiter.Request, iter.Seq[limiter.Reason], error)
	// Headers are added to each answer that reports a limit.
	Headers Headers
	// Bounds limits the size of requests.
	Bounds wire.Bounds

	// Admit, if set, is called before a request is decided. If it returns an error, that
	// is the answer.
	Admit func(context.Context) error
	// Names says how an operator sets the option that a *limiter.OptionError names.
	Names named.Fields
}

// Service implements envoy.service.ratelimit.v3.RateLimitService on top of a limiter. It
// answers Unavailable until the limiter has rules, and is safe for concurrent use.
type Service struct {
	pb.UnimplementedRateLimitServiceServer

	limiter  *limiter.Limiter
	opts     Options
	headers  bool // whether answers have headers
	log      *zap.Logger
	requests sync.Pool // of *request
	replies  sync.Pool // of *reply
}

// New returns a service on top of l, whose options should set wire.EncodeLimit.
func New(l *limiter.Limiter, o Options) *Service {
	o.Bounds = o.Bounds.OrDefaults()
	s := &Service{limiter: l, opts: o, headers: o.Headers != (Headers{}), log: zap.NewNop()}
	if o.Log != nil {
		s.log = sparing.Log(o.Log, 1, time.Minute)
	}
	s.requests.New = func() any { return &request{bounds: &s.opts.Bounds} }
	s.replies.New = func() any { return &reply{data: make([]byte, 0, replyBytes), service: s} }
	return s
}

// request is a request on its way from the wire to the answer.
type request struct {
	limiter.Request
	bounds   *wire.Bounds
	buffer   mem.Buffer // the memory of its strings, if it is grpc-go's; otherwise nil
	tooLarge error      // if it exceeds a bound
}

// decode fills the empty r with the RateLimitRequest in b, whose memory it shares.
func (r *request) decode(b []byte) (err error) {
	r.tooLarge, err = wire.Decode(b, &r.Request, r.bounds)
	return err
}

// release returns a request to the pool.
func (s *Service) release(r *request) {
	r.reset()
	s.requests.Put(r)
}

// reset makes r empty.
func (r *request) reset() {
	r.Reset()
	r.tooLarge = nil
	if r.buffer != nil {
		r.buffer.Free()
		r.buffer = nil
	}
}

// ShouldRateLimit implements the gRPC method for callers that use messages of the
// protobuf library. Its errors are InvalidArgument for requests that cannot be
// decided and Unavailable when there are no rules or the backend failed.
func (s *Service) ShouldRateLimit(ctx context.Context, msg *pb.RateLimitRequest) (*pb.RateLimitResponse, error) {
	data, err := proto.Marshal(msg)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	r := s.requests.Get().(*request)
	defer s.release(r)
	if err := r.decode(data); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	a, err := s.answer(ctx, r)
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

// Answer decides the encoded RateLimitRequest in message and appends the encoded
// RateLimitResponse to out. It keeps neither. Its errors are those of ShouldRateLimit,
// and Internal for a message that can't be read, as of grpc-go.
func (s *Service) Answer(ctx context.Context, out, message []byte) ([]byte, error) {
	r := s.requests.Get().(*request)
	defer s.release(r)
	if err := r.decode(message); err != nil {
		return out, status.Error(codes.Internal, "grpc: failed to unmarshal the received message: "+err.Error())
	}
	if err := s.decide(ctx, r); err != nil {
		return out, err
	}
	return s.encode(out, &r.Request), nil
}

// encode appends the answer to b.
func (s *Service) encode(b []byte, r *limiter.Request) []byte {
	b = wire.AppendCode(b, r.OverLimit)
	for i := range r.Descriptors {
		b = wire.AppendStatus(b, &r.Descriptors[i].Status)
	}
	if r.Minimum != nil && s.headers {
		b = s.opts.Headers.append(b, r)
	}
	for _, h := range r.RequestHeaders() {
		b = wire.AppendRequestHeader(b, h.Name, h.Value)
	}
	if r.OverLimit {
		if body := r.RawBody(); len(body) > 0 {
			b = wire.AppendBody(b, body)
		}
	}
	if m := s.metadata(r); m != nil {
		b = wire.AppendMetadata(b, m)
	}
	return b
}

// answer decides a decoded request. The reply shares no memory with the request.
func (s *Service) answer(ctx context.Context, r *request) (*reply, error) {
	if err := s.decide(ctx, r); err != nil {
		return nil, err
	}
	a := s.replies.Get().(*reply)
	a.data = s.encode(a.data[:0], &r.Request)
	return a, nil
}

// decide decides a decoded request.
func (s *Service) decide(ctx context.Context, r *request) (err error) {
	now := time.Now()
	defer func() {
		s.opts.Stats.Answered(time.Since(now))
		if s.opts.Observe != nil {
			s.opts.Observe(ctx, &r.Request, s.limiter.Reasons(&r.Request), err)
		}
	}()
	if s.opts.Admit != nil {
		if err := s.opts.Admit(ctx); err != nil {
			s.limiter.Refused(&r.Request, plain{err}, now)
			return err
		}
	}
	if err := r.tooLarge; err != nil {
		s.opts.Stats.ServiceErrors.Add(1)
		s.limiter.Refused(&r.Request, err, now)
		return s.refusal(r.Domain, err)
	}
	if err := s.limiter.Decide(ctx, &r.Request, now); err != nil {
		return s.refusal(r.Domain, err)
	}
	return nil
}

// plain is a gRPC error whose text is only its message.
type plain struct{ error }

// Error implements error.
func (p plain) Error() string { return status.Convert(p.error).Message() }

// refusal returns err as a gRPC error with its code. It logs that of a request that can't
// be decided, because Envoy shows it to nobody, and lets the request pass by default.
func (s *Service) refusal(domain string, err error) error {
	message := err.Error()
	if option, is := errors.AsType[*limiter.OptionError](err); is {
		message += " (see " + s.opts.Names.Of(option.Option) + ")"
	}
	var request *limiter.RequestError
	var backend *limiter.BackendError
	switch {
	case errors.As(err, &request):
		s.log.Warn("a request can't be decided: "+message, zap.String("domain", domain))
		return status.Error(codes.InvalidArgument, message)
	case errors.As(err, &backend), errors.Is(err, limiter.ErrNoRules):
		return status.Error(codes.Unavailable, message)
	}
	return status.FromContextError(err).Err()
}
