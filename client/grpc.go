package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// GRPCOptions say how [Interceptors] limit calls.
type GRPCOptions struct {
	// Domain is that of the rules. Required.
	Domain string
	// Entries returns the descriptor of a call of a method such as /pkg.Service/Method; none:
	// the call is not limited. Required. See [Metadata] and [Peer].
	Entries func(ctx context.Context, method string) []Entry
	// ExemptMethods are not limited: methods, or starts of methods that end in *, such as
	// /grpc.health.v1.Health/*.
	ExemptMethods []string
	// PerMessage charges a hit for each message that a streaming call receives (server) or
	// sends (client), beside the one that the call itself takes.
	PerMessage bool
}

// Interceptors limit the calls that a gRPC server serves, or that a client makes. A
// refused call ends with ResourceExhausted and a google.rpc.RetryInfo; one about which
// there is no decision, if the client has [Return] or [Deny], with Unavailable.
type Interceptors struct {
	client  *Client
	options GRPCOptions
}

// NewInterceptors returns interceptors. The error names the options that are wrong.
func NewInterceptors(c *Client, o GRPCOptions) (*Interceptors, error) {
	var wrong []error
	if o.Domain == "" {
		wrong = append(wrong, errors.New("client: GRPCOptions.Domain is empty: name one that the service has rules for"))
	}
	if o.Entries == nil {
		wrong = append(wrong, errors.New("client: GRPCOptions.Entries is nil: return the entries of a call's descriptor"))
	}
	for _, m := range o.ExemptMethods {
		if !strings.HasPrefix(m, "/") || strings.Contains(strings.TrimSuffix(m, "*"), "*") {
			wrong = append(wrong, fmt.Errorf("client: GRPCOptions.ExemptMethods has %q: write a method such as /pkg.Service/Method, or the start of methods such as /pkg.Service/*", m))
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return &Interceptors{c, o}, nil
}

// Metadata returns the first value of a call's incoming metadata, which any client can
// choose; empty: none.
func Metadata(ctx context.Context, name string) string {
	if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Peer returns the IP address of a call's other end; empty for a Unix socket.
func Peer(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	if a, ok := p.Addr.(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("").String()
	}
	return ""
}

// UnaryServer limits the unary calls that a server serves.
func (i *Interceptors) UnaryServer() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if err := i.charge(ctx, i.entries(ctx, info.FullMethod)); err != nil {
			return nil, err
		}
		return handler(ctx, request)
	}
}

// StreamServer limits the streaming calls that a server serves.
func (i *Interceptors) StreamServer() grpc.StreamServerInterceptor {
	return func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		entries := i.entries(stream.Context(), info.FullMethod)
		if err := i.charge(stream.Context(), entries); err != nil {
			return err
		}
		if i.options.PerMessage {
			stream = &limitedServerStream{stream, i, entries}
		}
		return handler(service, stream)
	}
}

// UnaryClient limits the unary calls that a client makes.
func (i *Interceptors) UnaryClient() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		if err := i.charge(ctx, i.entries(ctx, method)); err != nil {
			return err
		}
		return invoke(ctx, method, request, reply, connection, options...)
	}
}

// StreamClient limits the streaming calls that a client makes.
func (i *Interceptors) StreamClient() grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, connection *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		entries := i.entries(ctx, method)
		if err := i.charge(ctx, entries); err != nil {
			return nil, err
		}
		if !i.options.PerMessage {
			return open(ctx, desc, connection, method, options...)
		}
		ctx, abort := context.WithCancel(ctx)
		stream, err := open(ctx, desc, connection, method, options...)
		if err != nil {
			abort()
			return nil, err
		}
		return &limitedClientStream{stream, i, entries, abort, !desc.ServerStreams}, nil
	}
}

// entries returns the descriptor of a call; nil if it is not limited.
func (i *Interceptors) entries(ctx context.Context, method string) []Entry {
	exempt := func(m string) bool {
		start, starts := strings.CutSuffix(m, "*")
		return m == method || starts && strings.HasPrefix(method, start)
	}
	if slices.ContainsFunc(i.options.ExemptMethods, exempt) {
		return nil
	}
	return i.options.Entries(ctx, method)
}

// charge takes a hit and returns how the call ends if it is refused.
func (i *Interceptors) charge(ctx context.Context, entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	d, err := i.client.Allow(ctx, i.options.Domain, entries...)
	if err == nil && !d.Allowed {
		err = d.Err
	}
	if err != nil {
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		return status.Error(codes.Unavailable, "the rate limit can't be checked: "+err.Error())
	}
	if d.Allowed {
		return nil
	}
	message := "too many requests"
	if d.Limit != nil && d.Limit.Name != "" {
		message += ", limit " + d.Limit.Name
	}
	if d.RetryAfter > 0 {
		message += "; again in " + d.RetryAfter.Round(time.Second).String()
	}
	refusal := status.New(codes.ResourceExhausted, message)
	if detailed, err := refusal.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(d.RetryAfter)}); err == nil {
		refusal = detailed
	}
	return refusal.Err()
}

// limitedServerStream charges for each message that comes.
type limitedServerStream struct {
	grpc.ServerStream
	interceptors *Interceptors
	entries      []Entry
}

// RecvMsg implements [grpc.ServerStream].
func (s *limitedServerStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.interceptors.charge(s.Context(), s.entries)
}

// limitedClientStream charges for each message that goes.
type limitedClientStream struct {
	grpc.ClientStream
	interceptors *Interceptors
	entries      []Entry
	abort        context.CancelFunc
	single       bool // one answer ends the stream
}

// SendMsg implements [grpc.ClientStream]. A refused message aborts the stream, as any
// error of SendMsg does.
func (s *limitedClientStream) SendMsg(m any) error {
	if err := s.interceptors.charge(s.Context(), s.entries); err != nil {
		s.abort()
		return err
	}
	return s.ClientStream.SendMsg(m)
}

// RecvMsg implements [grpc.ClientStream].
func (s *limitedClientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil || s.single { // the stream has ended
		s.abort()
	}
	return err
}
