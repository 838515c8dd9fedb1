package load_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/distlimiter/ratelimit/bench/load"
)

// service answers as a function says and keeps count.
type service struct {
	pb.UnimplementedRateLimitServiceServer
	address string
	answer  func(context.Context, *pb.RateLimitRequest) (pb.RateLimitResponse_Code, error)

	mu             sync.Mutex
	calls          int
	underWay, most int
}

func serve(t *testing.T, answer func(context.Context, *pb.RateLimitRequest) (pb.RateLimitResponse_Code, error), options ...grpc.ServerOption) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{address: l.Addr().String(), answer: answer}
	g := grpc.NewServer(options...)
	pb.RegisterRateLimitServiceServer(g, s)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

// ShouldRateLimit implements the gRPC method.
func (s *service) ShouldRateLimit(ctx context.Context, req *pb.RateLimitRequest) (*pb.RateLimitResponse, error) {
	s.mu.Lock()
	s.calls++
	s.underWay++
	s.most = max(s.most, s.underWay)
	s.mu.Unlock()
	code, err := s.answer(ctx, req)
	s.mu.Lock()
	s.underWay--
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return &pb.RateLimitResponse{OverallCode: code}, nil
}

func (s *service) mostAtOnce() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

func ok(context.Context, *pb.RateLimitRequest) (pb.RateLimitResponse_Code, error) {
	return pb.RateLimitResponse_OK, nil
}

// options ask for that many answers, in the closed loop.
func options(t *testing.T, s *service, answers, descriptors, clients int) load.Options {
	t.Helper()
	calls, err := load.NewCalls("edge", descriptors, clients, false, 7)
	if err != nil {
		t.Fatal(err)
	}
	return load.Options{
		Address: s.address, Workload: calls, Connections: 3, InFlight: 20,
		Duration: time.Minute, Requests: answers, Seed: 7,
	}
}

func run(t *testing.T, o load.Options) *load.Result {
	t.Helper()
	r, err := load.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRequestsAreThoseOfEnvoy(t *testing.T) {
	var mu sync.Mutex
	users, paths := map[string]int{}, map[string]int{}
	s := serve(t, func(ctx context.Context, req *pb.RateLimitRequest) (pb.RateLimitResponse_Code, error) {
		mu.Lock()
		defer mu.Unlock()
		md, _ := metadata.FromIncomingContext(ctx)
		if _, limited := ctx.Deadline(); !limited || strings.Join(md.Get("x-envoy-internal"), ",") != "true" {
			t.Errorf("deadline: %v, metadata: %v", limited, md)
		}
		if req.Domain != "edge" || len(req.Descriptors) != 2 || req.HitsAddend != 0 {
			t.Errorf("got %v", req)
			return 0, nil
		}
		for i, seen := range []map[string]int{users, paths} {
			e := req.Descriptors[i].Entries
			if len(e) != 1 || e[0].Key != load.DescriptorKeys[i] || len(e[0].Key)+len(e[0].Value) != 24 {
				t.Errorf("descriptor %d: %v", i, e)
				continue
			}
			seen[e[0].Value]++
		}
		return pb.RateLimitResponse_OK, nil
	})
	r := run(t, options(t, s, 2000, 2, 3))
	if r.Answers < 2000 || r.Refused != 0 || r.Latency.TotalCount() != int64(r.Answers) {
		t.Errorf("%d answers, %d over limit, %d latencies", r.Answers, r.Refused, r.Latency.TotalCount())
	}
	mu.Lock()
	defer mu.Unlock()
	for _, seen := range []map[string]int{users, paths} {
		for i := range 3 {
			client := "client-000000000000" + string(rune('0'+i))
			if seen[client] < 500 {
				t.Errorf("%d requests of %s in %v", seen[client], client, seen)
			}
		}
		if len(seen) != 3 {
			t.Errorf("not three clients: %v", seen)
		}
	}
}

func TestSequentialCallsReachEveryClient(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	s := serve(t, func(_ context.Context, req *pb.RateLimitRequest) (pb.RateLimitResponse_Code, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, d := range req.Descriptors {
			seen[d.Entries[0].Key+"="+d.Entries[0].Value]++
		}
		return pb.RateLimitResponse_OK, nil
	})
	calls, err := load.NewCalls("edge", 25, 100, true, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, s, 4, 1, 1)
	o.Workload, o.Connections, o.InFlight = calls, 1, 1
	run(t, o)
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 100 || seen["user=client-0000000000099"] != 1 {
		t.Errorf("%d clients: %v", len(seen), seen)
	}
}

func TestOverLimitIsCounted(t *testing.T) {
	s := serve(t, func(_ context.Context, req *pb.RateLimitRequest) (pb.RateLimitResponse_Code, error) {
		if strings.HasSuffix(req.Descriptors[0].Entries[0].Value, "1") {
			return pb.RateLimitResponse_OVER_LIMIT, nil
		}
		return pb.RateLimitResponse_OK, nil
	})
	if r := run(t, options(t, s, 1000, 1, 2)); r.Refused < r.Answers/3 || r.Refused > r.Answers*2/3 {
		t.Errorf("%d of %d over limit, want about half", r.Refused, r.Answers)
	}
}

func TestErrorsEndTheRun(t *testing.T) {
	s := serve(t, func(context.Context, *pb.RateLimitRequest) (pb.RateLimitResponse_Code, error) {
		return 0, status.Error(codes.Unavailable, "out to lunch")
	})
	_, err := load.Run(t.Context(), options(t, s, 10, 1, 1))
	if err == nil || !strings.Contains(err.Error(), `grpc-status "14": out to lunch`) {
		t.Errorf("got %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	o := options(t, s, 10, 1, 1)
	o.Address = l.Addr().String()
	if _, err := load.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
	o.InFlight = 2
	if _, err := load.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "2 requests in flight on 3 connections") {
		t.Errorf("too few in flight: %v", err)
	}
}

// Enough bytes that both sides' flow-control windows are used up many times, and
// a server that takes only four requests of a connection at once.
func TestFlowControl(t *testing.T) {
	s := serve(t, ok, grpc.MaxConcurrentStreams(4))
	o := options(t, s, 1, 1, 1)
	calls, err := load.NewCalls("edge", 300, 300, true, 0)
	if err != nil {
		t.Fatal(err)
	}
	o.Workload, o.Connections, o.Requests = calls, 1, 1000
	r := run(t, o)
	if most := s.mostAtOnce(); most > 4 || r.Answers < 1000 {
		t.Errorf("%d answers, %d requests at once, want at most 4", r.Answers, most)
	}
}

// In the open loop requests are sent whether or not others are answered.
func TestOpenLoopDoesNotWait(t *testing.T) {
	const together = 200
	all := make(chan struct{})
	arrived := make(chan struct{}, 1<<20)
	go func() {
		for range together {
			<-arrived
		}
		close(all)
	}()
	s := serve(t, func(context.Context, *pb.RateLimitRequest) (pb.RateLimitResponse_Code, error) {
		arrived <- struct{}{}
		<-all
		return pb.RateLimitResponse_OK, nil
	})
	o := options(t, s, together, 1, 1)
	o.InFlight, o.Rate = 0, 5000
	r := run(t, o)
	if r.Answers < together {
		t.Errorf("%d answers", r.Answers)
	}
	// The first was due that much before the last one could be.
	if least := r.Latency.Max(); least < (10 * time.Millisecond).Nanoseconds() {
		t.Errorf("none of %d requests held back waited longer than %v", together, time.Duration(least))
	}
}

func TestMeasuredIntervalBeginsAfterWarmup(t *testing.T) {
	s := serve(t, ok)
	o := options(t, s, 100, 1, 1)
	var before, after int
	count := func(to *int) func() error {
		return func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			*to = s.calls
			return nil
		}
	}
	o.Warmup, o.Begin, o.End = 500*time.Millisecond, count(&before), count(&after)
	r := run(t, o)
	if before == 0 || after < before+r.Answers-o.InFlight {
		t.Errorf("%d calls before, %d after, %d answers measured", before, after, r.Answers)
	}
}

func TestCallsAreWholeMessages(t *testing.T) {
	calls, err := load.NewCalls("edge", 8, 1e8, false, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		block, body := calls.Append(nil, []byte("before"))
		var req pb.RateLimitRequest
		if err := proto.Unmarshal(body[len("before")+5:], &req); err != nil || len(block) != 0 || len(req.Descriptors) != 8 {
			t.Fatalf("%v: %v", err, &req)
		}
	}
	for _, c := range []struct {
		descriptors, clients int
		sequential           bool
		want                 string
	}{
		{0, 1, false, "0 descriptors"}, {9, 1, false, "use 1 to 8"}, {1, 0, false, "0 clients"}, {1000, 1, true, "does not fit one frame"},
	} {
		if _, err := load.NewCalls("edge", c.descriptors, c.clients, c.sequential, 1); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Envoy, or any server of HTTP/2 without TLS, can be loaded too.
func TestGets(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		client := r.Header.Get(load.Header)
		seen[client]++
		if r.Method != http.MethodGet || r.URL.Path != "/" || r.ProtoMajor != 2 {
			t.Errorf("got %s %s over %s", r.Method, r.URL, r.Proto)
		}
		if strings.HasSuffix(client, "1") {
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	gets, err := load.NewGets(2, 1)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, load.Options{
		Address: s.Listener.Addr().String(), Workload: gets, Connections: 2, InFlight: 8, Duration: time.Minute, Requests: 1000,
	})
	mu.Lock()
	defer mu.Unlock()
	if r.Refused < r.Answers/3 || r.Refused > r.Answers*2/3 || len(seen) != 2 || seen["client-0000000000001"] < r.Refused {
		t.Errorf("%d answers, %d over limit: %v", r.Answers, r.Refused, seen)
	}
	if _, err := load.NewGets(0, 1); err == nil {
		t.Error("no error for 0 clients")
	}
}
