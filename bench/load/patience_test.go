package load_test

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Clients give up and reset their streams; each of their requests ends in one of
// the numbers.
func TestClientsGiveUp(t *testing.T) {
	reset := make(chan struct{}, 1<<20)
	s := serve(t, func(ctx context.Context, req *pb.RateLimitRequest) (pb.RateLimitResponse_Code, error) {
		switch client := req.Descriptors[0].Entries[0].Value; {
		case strings.HasSuffix(client, "1"):
			return 0, status.Error(codes.ResourceExhausted, "shed")
		case strings.HasSuffix(client, "2"):
			<-ctx.Done() // by the client's reset: its deadline is far
			reset <- struct{}{}
		}
		return pb.RateLimitResponse_OK, nil
	})
	o := options(t, s, 300, 1, 3)
	o.Rate, o.Patience = 500, time.Second
	r := run(t, o)
	if want := (map[codes.Code]int{codes.ResourceExhausted: r.Failed[codes.ResourceExhausted]}); !maps.Equal(r.Failed, want) || want[codes.ResourceExhausted] < 100 {
		t.Errorf("failed: %v", r.Failed)
	}
	if r.Answers < 300 || r.Late == 0 || r.Unsent != 0 {
		t.Errorf("%d answers, %d late, %d not sent", r.Answers, r.Late, r.Unsent)
	}
	<-reset
}

// What a client may not send it gives up, too: the server takes one at a time of
// each connection, and answers none.
func TestRequestsThatCannotBeSentAreGivenUp(t *testing.T) {
	s := serve(t, func(ctx context.Context, _ *pb.RateLimitRequest) (pb.RateLimitResponse_Code, error) {
		<-ctx.Done()
		return pb.RateLimitResponse_OK, nil
	}, grpc.MaxConcurrentStreams(1))
	o := options(t, s, 0, 1, 1)
	o.Rate, o.Patience, o.Warmup, o.Duration = 2000, 20*time.Millisecond, 50*time.Millisecond, 500*time.Millisecond
	r := run(t, o)
	if r.Late < 50 || r.Answers != 0 {
		t.Errorf("%d late, %d answers", r.Late, r.Answers)
	}
	o.Most = 2
	if r := run(t, o); r.Unsent < 50 || r.Answers != 0 {
		t.Errorf("%d not sent, %d answers", r.Unsent, r.Answers)
	}
}
