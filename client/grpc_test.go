package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/distlimiter/ratelimit/client"
)

func interceptors(t *testing.T, c *client.Client, o client.GRPCOptions) *client.Interceptors {
	t.Helper()
	o.Domain = "edge"
	i, err := client.NewInterceptors(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// backend is a gRPC server with unary and streaming methods: health and reflection.
func backend(t *testing.T, server []grpc.ServerOption, dial ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(server...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	go s.Serve(l) //nolint:errcheck // stopped at the end
	t.Cleanup(s.Stop)
	c, err := grpc.NewClient(l.Addr().String(), append(dial, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// check makes a unary call.
func check(ctx context.Context, c *grpc.ClientConn) error {
	_, err := healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

// talk opens a stream, sends messages on it, waits for the answer to each, and returns
// how many there were.
func talk(ctx context.Context, c *grpc.ClientConn, messages int) (answers int, err error) {
	stream, err := reflectionpb.NewServerReflectionClient(c).ServerReflectionInfo(ctx)
	if err != nil {
		return 0, err
	}
	for range messages {
		if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
			if errors.Is(err, io.EOF) { // the server has ended the stream, and Recv says why
				_, err = stream.Recv()
			}
			return answers, err
		}
		if _, err := stream.Recv(); err != nil {
			return answers, err
		}
		answers++
	}
	return answers, stream.CloseSend()
}

func isRefusal(t *testing.T, err error) {
	t.Helper()
	s, _ := status.FromError(err)
	if s.Code() != codes.ResourceExhausted || !strings.Contains(s.Message(), "limit per_user; again in ") {
		t.Errorf("%v is no refusal that names the limit and the time", err)
	}
	for _, d := range s.Details() {
		if retry, is := d.(*errdetails.RetryInfo); is && retry.GetRetryDelay().AsDuration() > 0 {
			return
		}
	}
	t.Errorf("%v has no RetryInfo", s.Details())
}

func byUser(ctx context.Context, _ string) []client.Entry {
	if name := client.Metadata(ctx, "user"); name != "" {
		return []client.Entry{user(name)}
	}
	return nil
}

func as(t *testing.T, name string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "user", name)
}

func TestServerInterceptors(t *testing.T) {
	i := interceptors(t, started(t, client.Options{}), client.GRPCOptions{Entries: byUser})
	c := backend(t, []grpc.ServerOption{grpc.UnaryInterceptor(i.UnaryServer()), grpc.StreamInterceptor(i.StreamServer())})
	for n := range 10 {
		if err := check(as(t, "unary"), c); err != nil {
			t.Fatalf("call %d: %v", n, err)
		}
		if answers, err := talk(as(t, "streaming"), c, 2); answers != 2 || err != nil {
			t.Fatalf("stream %d: %d answers, %v", n, answers, err)
		}
	}
	isRefusal(t, check(as(t, "unary"), c))
	_, err := talk(as(t, "streaming"), c, 1)
	isRefusal(t, err)
	if err := check(t.Context(), c); err != nil {
		t.Errorf("a call without a descriptor: %v", err)
	}
}

func TestServerInterceptorChargesEachMessage(t *testing.T) {
	i := interceptors(t, started(t, client.Options{}), client.GRPCOptions{Entries: byUser, PerMessage: true})
	c := backend(t, []grpc.ServerOption{grpc.StreamInterceptor(i.StreamServer())})
	answers, err := talk(as(t, "alice"), c, 20)
	isRefusal(t, err)
	if answers != 9 {
		t.Errorf("%d messages were answered, want 9: the call itself takes the tenth hit", answers)
	}
}

func TestClientInterceptors(t *testing.T) {
	entries := func(context.Context, string) []client.Entry { return []client.Entry{user("me")} }
	i := interceptors(t, started(t, client.Options{}), client.GRPCOptions{Entries: entries, PerMessage: true})
	c := backend(t, nil, grpc.WithUnaryInterceptor(i.UnaryClient()), grpc.WithStreamInterceptor(i.StreamClient()))
	for n := range 4 {
		if err := check(t.Context(), c); err != nil {
			t.Fatalf("call %d: %v", n, err)
		}
	}
	answers, err := talk(t.Context(), c, 20)
	isRefusal(t, err)
	if answers != 5 {
		t.Errorf("%d messages were answered, want 5 after 4 calls and the stream's own hit", answers)
	}
	_, err = talk(t.Context(), c, 1)
	isRefusal(t, err)
}

func TestExemptMethods(t *testing.T) {
	i := interceptors(t, dial(t, closed(t), client.Options{Timeout: 50 * time.Millisecond}), client.GRPCOptions{Entries: byUser, ExemptMethods: []string{"/grpc.health.v1.Health/*"}})
	c := backend(t, []grpc.ServerOption{grpc.UnaryInterceptor(i.UnaryServer()), grpc.StreamInterceptor(i.StreamServer())})
	if err := check(as(t, "alice"), c); err != nil {
		t.Error(err)
	}
	if _, err := talk(as(t, "alice"), c, 1); status.Code(err) != codes.Unavailable {
		t.Errorf("%v: without a decision a call is unavailable", err)
	}
}

func TestPeerOfACall(t *testing.T) {
	var seen string
	c := backend(t, []grpc.ServerOption{grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		seen = client.Peer(ctx)
		return handler(ctx, request)
	})})
	if err := check(t.Context(), c); err != nil || seen != "127.0.0.1" {
		t.Errorf("%q, %v", seen, err)
	}
}

func TestWrongGRPCOptionsAreNamedAllAtOnce(t *testing.T) {
	_, err := client.NewInterceptors(nil, client.GRPCOptions{ExemptMethods: []string{"Check"}})
	for _, want := range []string{"GRPCOptions.Domain", "GRPCOptions.Entries", `"Check"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}
