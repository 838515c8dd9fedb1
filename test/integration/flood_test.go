package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// The floods of this file are small: they show that bounds hold, which codes clients
// get, and that others are still answered. `make flood` has them in full, with
// figures.

// floodClient is a service to be flooded, and one of its ordinary clients.
func floodClient(t *testing.T, settings ...string) (*harness.Service, rls.RateLimitServiceClient) {
	t.Helper()
	service := startService(t, rulesAllowing(1_000_000_000), settings...)
	return service, rls.NewRateLimitServiceClient(service.Dial(t))
}

// answers asks as an ordinary client, who must be answered.
func answers(t *testing.T, service *harness.Service) {
	t.Helper()
	for range 20 {
		if got := service.Ask(t, harness.Request("edge", 1, "user", "ordinary")); got.GetOverallCode() != rls.RateLimitResponse_OK {
			t.Fatalf("an ordinary client got %v", got)
		}
	}
}

// TestOverloadIsRefused lets nothing wait, so that all load is overload. The lean front
// refuses only what waits for Redis: it decides in memory as soon as it has read a request.
func TestOverloadIsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		settings []string
		refuses  bool
	}{
		{"grpc-go in memory", []string{"--grpc-front", "grpc-go"}, true},
		{"lean in Redis", patiently("REDIS_URL="+redistest.Start(t, redistest.Config{}).Addr, "--grpc-front", "lean"), true},
		{"lean in memory", []string{"--grpc-front", "lean", "--backend", "memory"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// One processor, so that the callers have more than the service even where
			// other work leaves them little.
			service, client := floodClient(t, append([]string{"GOMAXPROCS=1"}, append(tt.settings, "--max-wait", "1ns")...)...)
			overload(t, service, client, tt.refuses)
		})
	}
}

func overload(t *testing.T, service *harness.Service, client rls.RateLimitServiceClient, refuses bool) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	seen := map[codes.Code]int{}
	var clients sync.WaitGroup
	const load = 1000 // requests at once
	for range load {
		clients.Go(func() {
			for ctx.Err() == nil {
				_, err := client.ShouldRateLimit(ctx, harness.Request("edge", 1, "user", "alice"))
				if ctx.Err() != nil {
					return
				}
				if err != nil && !(refuses && strings.Contains(err.Error(), "overloaded and did not decide")) {
					t.Errorf("refused with %v", err)
				}
				mu.Lock()
				seen[status.Code(err)]++
				mu.Unlock()
			}
		})
	}
	if refuses {
		harness.Eventually(t, "requests are refused and the log says so", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return seen[codes.ResourceExhausted] > 0 && seen[codes.OK] > 0 && service.Printed("overloaded: requests were refused")
		})
	} else {
		harness.Eventually(t, "there is overload, and requests are answered", func() bool {
			mu.Lock()
			answered := seen[codes.OK]
			mu.Unlock()
			return answered > load && service.Metric(t, "ratelimit_overload") == 1
		})
	}
	health := healthv1.NewHealthClient(service.Dial(t))
	for range 20 {
		if answer, err := health.Check(ctx, &healthv1.HealthCheckRequest{}); err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health under load: %v, %v", answer, err)
		}
	}
	stop()
	clients.Wait()
	refused := int(service.Metric(t, "ratelimit_overload_refused_total"))
	// Those under way at the end may be counted on one side only.
	if refused < seen[codes.ResourceExhausted] || refused > seen[codes.ResourceExhausted]+load {
		t.Errorf("the metric counts %d, clients %v", refused, seen)
	}
	if decided := int(service.Metric(t, `ratelimit_decisions_total{domain="edge",result="allowed",rule="user"}`)); decided > seen[codes.OK]+load {
		t.Errorf("%d charged, clients have seen %v", decided, seen)
	}
}

// TestKeysAreBounded counts many more keys than there may be.
func TestKeysAreBounded(t *testing.T) {
	t.Parallel()
	const most, keys, each = 2000, 50_000, 50
	service, client := floodClient(t, "--max-keys", fmt.Sprint(most))
	for from := 0; from < keys; from += each {
		request := &rls.RateLimitRequest{Domain: "edge"}
		for i := range each {
			d := harness.Request("edge", 1, "user", fmt.Sprint("client-", from+i)).Descriptors
			request.Descriptors = append(request.Descriptors, d...)
		}
		if _, err := client.ShouldRateLimit(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	if kept := service.Metric(t, "ratelimit_store_keys"); kept == 0 || kept > most {
		t.Errorf("%v keys are kept, want at most %d", kept, most)
	}
	answers(t, service)
}

// TestTooMuchInARequest sends what is larger than it may be.
func TestTooMuchInARequest(t *testing.T) {
	t.Parallel()
	service, client := floodClient(t)
	many := &rls.RateLimitRequest{Domain: "edge"}
	for range 1000 {
		many.Descriptors = append(many.Descriptors, harness.Request("edge", 1, "user", "alice").Descriptors...)
	}
	for _, tt := range []struct {
		name    string
		request *rls.RateLimitRequest
		code    codes.Code
		says    string
	}{
		{"a message of 4 MiB", harness.Request("edge", 1, "user", strings.Repeat("x", 4<<20)), codes.ResourceExhausted, "larger than max"},
		{"1,000 descriptors", many, codes.InvalidArgument, "1000 descriptors in a request: at most 64 are accepted (see --max-descriptors)"},
	} {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 10 {
					if _, err := client.ShouldRateLimit(t.Context(), tt.request); status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.says) {
						t.Errorf("%s: %v", tt.name, err)
					}
				}
			})
		}
		all.Wait()
	}
	answers(t, service)
	if heap := service.Metric(t, "go_memstats_heap_inuse_bytes"); heap > 256<<20 {
		t.Errorf("%v bytes of heap", heap)
	}
}

// TestConnectionsAreBounded opens as many connections as there may be, and then more.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	const most = 300
	service, _ := floodClient(t, "--max-connections", fmt.Sprint(most))
	answers(t, service) // has its connection
	open := func() error {
		conn, err := net.Dial("tcp", service.GRPC)
		if err != nil {
			return err
		}
		t.Cleanup(func() { conn.Close() })
		// A server of HTTP/2 speaks as soon as it is spoken to.
		if _, err := io.WriteString(conn, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
			return err
		}
		_, err = io.ReadFull(conn, make([]byte, 9))
		return err
	}
	refused := 0
	for range most + 50 {
		if err := open(); err != nil {
			refused++
		}
	}
	if refused < 50 || refused > 55 { // the ordinary client and the health check have theirs
		t.Errorf("%d of %d connections refused", refused, most+50)
	}
	if n := service.Metric(t, "ratelimit_grpc_connections_refused_total"); int(n) != refused {
		t.Errorf("the metric counts %v refused, clients %d", n, refused)
	}
	answers(t, service)
	_, err := rls.NewRateLimitServiceClient(service.Dial(t)).ShouldRateLimit(t.Context(), harness.Request("edge", 1, "user", "alice"))
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a client too many got %v", err)
	}
}

// rude is a connection of a client without manners.
type rude struct {
	net.Conn
	framer *http2.Framer
	out    bytes.Buffer
	block  []byte
	next   uint32
}

func beRude(t *testing.T, service *harness.Service) *rude {
	t.Helper()
	// Segments of a network's size, not loopback's 64 KiB: the service's socket would hold
	// megabytes of answers.
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if controlErr := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1460)
		}); controlErr != nil {
			return controlErr
		}
		return err
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", service.GRPC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := &rude{Conn: conn, next: 1}
	r.framer = http2.NewFramer(&r.out, conn)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":authority", "flood"}, {":path", rls.RateLimitService_ShouldRateLimit_FullMethodName},
		{"te", "trailers"}, {"content-type", "application/grpc"},
	} {
		// Sensitive fields are in no table, so that one block does for all requests.
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}); err != nil {
			t.Fatal(err)
		}
	}
	r.block = block.Bytes()
	r.out.WriteString(http2.ClientPreface)
	if err := r.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return r
}

// open sends that many requests, without their ends if they have no message.
func (r *rude) open(requests int, message []byte) error {
	var err error
	for range requests {
		err = errors.Join(err, r.put(message))
	}
	_, sendErr := r.Write(r.out.Bytes())
	r.out.Reset()
	return errors.Join(err, sendErr)
}

func (r *rude) put(message []byte) error {
	err := r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: r.next, BlockFragment: r.block, EndHeaders: true})
	if message != nil {
		body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
		err = errors.Join(err, r.framer.WriteData(r.next, true, body))
	}
	r.next += 2
	return err
}

// TestStreamsAreBounded opens streams and leaves them. Those beyond the bound are
// refused, and others are answered. The machine may well be too slow for the rest of
// the tests: that shall not count as overload here.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	const most, more, connections = 200, 50, 10
	service, _ := floodClient(t, "--max-streams", fmt.Sprint(most), "--max-wait", "1m")
	for range connections {
		r := beRude(t, service)
		for range most + more {
			if err := r.open(1, nil); err != nil {
				t.Fatal(err)
			}
		}
		for refused := 0; refused < more; {
			f, err := r.framer.ReadFrame()
			if err != nil {
				t.Fatalf("after %d streams were refused: %v", refused, err)
			}
			if f, ok := f.(*http2.RSTStreamFrame); ok {
				refused++
				if f.ErrCode != http2.ErrCodeRefusedStream {
					t.Fatalf("stream %d: %v", f.StreamID, f.ErrCode)
				}
			}
		}
	}
	answers(t, service)
	if n := service.Metric(t, "go_goroutines"); n > connections*(most+10)+200 {
		t.Errorf("%v goroutines", n)
	}
}

// TestClientThatReadsNoAnswers goes on asking. The server stops to read from it
// before its answers fill memory.
func TestClientThatReadsNoAnswers(t *testing.T) {
	t.Parallel()
	service, _ := floodClient(t)
	message, err := proto.Marshal(harness.Request("edge", 1, "user", "alice"))
	if err != nil {
		t.Fatal(err)
	}
	r := beRude(t, service)
	if err := r.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	for {
		// It takes requests by the thousand each second, or none any more. Or it may close
		// the connection.
		if err := r.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := r.open(100, message); err != nil {
			t.Logf("after %d requests: %v", r.next/2, err)
			break
		}
	}
	answers(t, service)
	if heap := service.Metric(t, "go_memstats_heap_inuse_bytes"); heap > 512<<20 {
		t.Errorf("%v bytes of heap", heap)
	}
}

// TestLongHeaders are refused, and cost the connection's other requests nothing.
func TestLongHeaders(t *testing.T) {
	t.Parallel()
	service, _ := floodClient(t, "--max-header-bytes", "4096")
	client := rls.NewRateLimitServiceClient(service.Dial(t))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := client.ShouldRateLimit(metadata.AppendToOutgoingContext(ctx, "x-long", strings.Repeat("x", 8192)), harness.Request("edge", 1, "user", "alice"))
	if err == nil {
		t.Error("no error")
	}
	if _, err := client.ShouldRateLimit(ctx, harness.Request("edge", 1, "user", "alice")); err != nil {
		t.Error(err)
	}
}

// TestReloadStorm saves many rules every 50 ms under load: no request fails, each
// is decided, and the last rules are in force at the end.
func TestReloadStorm(t *testing.T) {
	t.Parallel()
	const rules, saves = 500, 30
	path := filepath.Join(t.TempDir(), "rules.yaml")
	text := func(version int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: year, requests_per_unit: %d}}\n", 1_000_000_000+version)
		for i := range rules {
			fmt.Fprintf(&b, "  - {key: user, value: nobody-%d, rate_limit: {unit: minute, requests_per_unit: %d}}\n", i, 100+version)
		}
		return b.String()
	}
	write(t, path, text(0))
	service := harness.StartService(t, path, "--reload-delay", "10ms")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	for range 4 {
		client := rls.NewRateLimitServiceClient(service.Dial(t))
		clients.Go(func() {
			for ctx.Err() == nil {
				answer, err := client.ShouldRateLimit(ctx, harness.Request("edge", 1, "user", "alice"), grpc.WaitForReady(true))
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				if limit := answer.GetStatuses()[0].GetCurrentLimit().GetRequestsPerUnit(); limit < 1_000_000_000 || limit > 1_000_000_000+saves {
					t.Errorf("%v", answer)
					return
				}
			}
		})
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for i := range saves {
		<-ticker.C
		rename(t, path, text(i+1))
	}
	harness.Eventually(t, "the last rules are in force", func() bool {
		answer := service.Ask(t, harness.Request("edge", 1, "user", "bob"))
		return answer.GetStatuses()[0].GetCurrentLimit().GetRequestsPerUnit() == 1_000_000_000+saves
	})
	stop()
	clients.Wait()
}
