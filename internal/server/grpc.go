package server

import (
	"context"
	"errors"
	"runtime"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
)

// streamWorkers is the number of goroutines per processor that serve requests. They
// save a request a goroutine of its own, whose stack would have to grow. Workers of which
// each waits for Redis are soon too few: on a busy machine (load 14 and 22) 16 instead of
// 128 cost 13 to 31 % more CPU a request with Redis, and 1 to 17 % more in memory on 4
// connections; on 64 connections in memory they cost 6 to 11 % less.
const streamWorkers = 128

// Flow-control windows, per stream and per connection: the smallest possible, which
// hold some hundreds of requests. Fixed windows keep grpc-go from measuring the
// connection to adapt them. At low load that would cost a ping and a window update per
// request, and under load growing windows would let requests pile up unread.
const (
	streamWindow     = 64 << 10
	connectionWindow = 64 << 10
)

// GRPCOptions returns options for a gRPC server that serves a Service. connections sets
// how long a connection may live without a sign of its client, and in total.
func GRPCOptions(maxMessageBytes int, connections keepalive.ServerParameters) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}),
		grpc.NumStreamWorkers(streamWorkers * uint32(runtime.GOMAXPROCS(0))),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		grpc.WaitForHandlers(true), // so that a stopped server has made its last decision
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.KeepaliveParams(connections),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// Register registers s with a gRPC server that has GRPCOptions. Requests and answers
// are read and written without messages of the protobuf library. Interceptors and stats
// handlers see opaque values instead of messages.
func (s *Service) Register(g grpc.ServiceRegistrar) {
	desc := pb.RateLimitService_ServiceDesc
	desc.Methods = []grpc.MethodDesc{{MethodName: "ShouldRateLimit", Handler: s.handle}}
	g.RegisterService(&desc, s)
}

// handle implements the method for grpc-go, which ignores the answer if there is an error.
func (s *Service) handle(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // grpc-go has it so
	r := s.requests.Get().(*request)
	if err := decode(r); err != nil {
		s.release(r)
		return nil, err
	}
	if interceptor == nil {
		defer s.release(r)
		return s.answer(ctx, r)
	}
	// An interceptor may keep r and return first, so r is not used again.
	info := &grpc.UnaryServerInfo{Server: s, FullMethod: pb.RateLimitService_ShouldRateLimit_FullMethodName}
	return interceptor(ctx, r, info, func(ctx context.Context, _ any) (any, error) { return s.answer(ctx, r) })
}

// codec reads the requests of a Service and writes its answers. It leaves all other
// messages to the codec that it extends.
type codec struct{ encoding.CodecV2 }

// Unmarshal implements [encoding.CodecV2].
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ours := v.(*request)
	if !ours {
		return c.CodecV2.Unmarshal(data, v)
	}
	if r.buffer != nil {
		return errors.New("more than one RateLimitRequest in a call")
	}
	r.buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
	return r.decode(r.buffer.ReadOnlyData())
}

// Marshal implements [encoding.CodecV2].
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if a, ours := v.(*reply); ours {
		return a.send(), nil
	}
	return c.CodecV2.Marshal(v)
}

// reply is an encoded RateLimitResponse, in memory that is reused.
type reply struct {
	data    []byte
	buffers [1]mem.Buffer
	service *Service
}

// replyBytes is the initial capacity of a reply, and mostReplyBytes the most that is
// kept for reuse. grpc-go returns only buffers of more than 1 KB.
const (
	replyBytes     = 2 << 10
	mostReplyBytes = 64 << 10
)

// send hands the reply to grpc-go, which returns it once it has been written.
func (a *reply) send() mem.BufferSlice {
	a.buffers[0] = mem.NewBuffer(&a.data, a)
	return a.buffers[:]
}

// Get implements [mem.BufferPool]. The pool holds only the reply, so it allocates.
func (a *reply) Get(length int) *[]byte {
	data := make([]byte, length)
	return &data
}

// Put implements [mem.BufferPool]: the reply has been written.
func (a *reply) Put(*[]byte) { a.release() }

func (a *reply) release() {
	if cap(a.data) <= mostReplyBytes {
		a.service.replies.Put(a)
	}
}
