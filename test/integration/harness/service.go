package harness

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/distlimiter/ratelimit/internal/freeport"
)

// Service is a running ratelimit serve.
//
// What starts one takes its settings as a shell would: variables, as NAME=value, and then
// flags. It has no others, see [Environment].
type Service struct {
	*Process
	GRPC, HTTP, Admin string // host:port

	grpcPort    int
	program     string
	environment []string
	args        []string
	conn        *grpc.ClientConn
}

func newService(t testing.TB) *Service {
	t.Helper()
	grpc := freeport.ForTest(t)
	return &Service{
		grpcPort: grpc.Number,
		GRPC:     grpc.Addr(),
		HTTP:     freeport.ForTest(t).Addr(),
		Admin:    freeport.ForTest(t).Addr(),
	}
}

// StartBare starts the service with neither command nor flags, like the container of
// envoyproxy/ratelimit. All settings are variables, to which StartBare adds those for hosts
// and ports. It does not wait until the service is healthy.
func StartBare(t testing.TB, variables ...string) *Service {
	t.Helper()
	s := newService(t)
	for _, a := range []struct{ host, port, addr string }{
		{"GRPC_HOST", "GRPC_PORT", s.GRPC}, {"HOST", "PORT", s.HTTP}, {"DEBUG_HOST", "DEBUG_PORT", s.Admin},
	} {
		host, port, _ := strings.Cut(a.addr, ":")
		s.environment = append(s.environment, a.host+"="+host, a.port+"="+port)
	}
	s.program, s.environment = binary, append(s.environment, variables...)
	s.conn = s.Dial(t)
	s.start(t)
	return s
}

// StartService serves the rules of a file or directory, with settings, and waits until the
// service is healthy.
func StartService(t testing.TB, rules string, settings ...string) *Service {
	t.Helper()
	return StartProgram(t, binary, rules, settings...)
}

// StartProgram is StartService for another program than the tested one.
func StartProgram(t testing.TB, program, rules string, settings ...string) *Service {
	t.Helper()
	s := newService(t)
	variables, flags := split(settings)
	s.program, s.environment = program, slices.Clone(variables)
	s.args = append([]string{
		"serve", "--config", rules, "--grpc-addr", s.GRPC, "--http-addr", s.HTTP, "--admin-addr", s.Admin,
	}, flags...)
	s.conn = s.Dial(t)
	s.Restart(t)
	return s
}

// assignment is how a setting begins that is a variable.
var assignment = regexp.MustCompile(`^[A-Z][A-Z0-9_]*=`)

// split returns the settings up to the first flag, and those from there on.
func split(settings []string) (variables, flags []string) {
	for i, setting := range settings {
		if !assignment.MatchString(setting) {
			return settings[:i], settings[i:]
		}
	}
	return settings, nil
}

// Command returns a command of the binary that is not started yet.
func Command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = Environment()
	return cmd
}

// ServiceAt returns a service that the test has started by other means. It answers gRPC on
// a port of loopback.
func ServiceAt(t testing.TB, port int) *Service {
	t.Helper()
	s := &Service{grpcPort: port, GRPC: fmt.Sprintf("127.0.0.1:%d", port)}
	s.conn = s.Dial(t)
	return s
}

// Restart starts the service again, with the same settings and ports, after a Stop.
func (s *Service) Restart(t testing.TB) {
	t.Helper()
	s.start(t)
	s.AwaitHealthy(t)
}

func (s *Service) start(t testing.TB) {
	t.Helper()
	cmd := exec.Command(s.program, s.args...)
	cmd.Env = Environment(s.environment...)
	s.Process = StartCommand(t, "ratelimit", cmd)
}

// AwaitHealthy waits until the service reports by gRPC that it is healthy.
func (s *Service) AwaitHealthy(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	health := healthv1.NewHealthClient(s.conn)
	Eventually(t, "the service is healthy", func() bool {
		s.running(t)
		answer, err := health.Check(ctx, &healthv1.HealthCheckRequest{})
		return err == nil && answer.GetStatus() == healthv1.HealthCheckResponse_SERVING
	})
}

// Dial returns a connection to the service's gRPC address, which ends with the test.
func (s *Service) Dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
		// The default waits a second after the first refusal. Without a timeout of its own,
		// a connection attempt would have to succeed within the delay.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond},
			MinConnectTimeout: timeout,
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Conn returns the connection that Ask uses.
func (s *Service) Conn() *grpc.ClientConn { return s.conn }

// Request asks for hits of one descriptor; entries are keys and values in turn.
func Request(domain string, hits uint64, entries ...string) *rls.RateLimitRequest {
	d := &ratelimitv3.RateLimitDescriptor{HitsAddend: wrapperspb.UInt64(hits)}
	for i := 0; i+1 < len(entries); i += 2 {
		d.Entries = append(d.Entries, &ratelimitv3.RateLimitDescriptor_Entry{Key: entries[i], Value: entries[i+1]})
	}
	return &rls.RateLimitRequest{Domain: domain, Descriptors: []*ratelimitv3.RateLimitDescriptor{d}}
}

// Ask sends one request to the service.
func (s *Service) Ask(t testing.TB, request *rls.RateLimitRequest) *rls.RateLimitResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	answer, err := rls.NewRateLimitServiceClient(s.conn).ShouldRateLimit(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// Get returns the body of a page of the service's HTTP or Admin address.
func (s *Service) Get(t testing.TB, addr, path string) string {
	t.Helper()
	answer, err := http.Get("http://" + addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, answer.Status, err)
	}
	return string(body)
}

// Metric returns the value of a series, written as in the service's /metrics; 0 if it is
// missing.
func (s *Service) Metric(t testing.TB, series string) float64 {
	t.Helper()
	for line := range strings.Lines(s.Get(t, s.Admin, "/metrics")) {
		if value, found := strings.CutPrefix(line, series+" "); found {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}
