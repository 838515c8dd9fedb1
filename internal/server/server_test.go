package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/logtest"
	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/server/wire"
	"github.com/distlimiter/ratelimit/internal/stats"
)

const (
	ok   = pb.RateLimitResponse_OK
	over = pb.RateLimitResponse_OVER_LIMIT
)

// noon is aligned to every unit up to a day but 12 hours, in µs.
const noon = int64(1_700_000_000/86400*86400+43200) * 1e6

// fixture is a service on a memory store whose clock the test moves.
type fixture struct {
	*server.Service
	*limiter.Limiter
	stats *stats.Stats
	now   *atomic.Int64 // µs
	t     testing.TB
}

// options of a service and of its limiter.
type (
	limits  = limiter.Options
	options struct {
		limits
		server.Options
	}
)

func serve(t testing.TB, yaml string, set ...func(*options)) *fixture {
	t.Helper()
	f := &fixture{stats: stats.New(0), now: new(atomic.Int64), t: t}
	f.now.Store(noon)
	o := options{
		limits{Backend: store(t, f.now), Log: logger(t), Stats: f.stats, Encode: wire.EncodeLimit},
		server.Options{Stats: f.stats},
	}
	for _, s := range set {
		s(&o)
	}
	f.Limiter = limiter.New(o.limits)
	f.Service = server.New(f.Limiter, o.Options)
	f.load(yaml)
	return f
}

func logger(t testing.TB) *zap.Logger {
	if _, is := t.(*testing.T); !is { // a fuzzer must not log to the whole
		return zap.NewNop()
	}
	return zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel))
}

func store(t testing.TB, now *atomic.Int64) *memory.Store {
	s := memory.New(memory.Options{Clock: now.Load})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func rules(t testing.TB, yaml string) *config.Rules {
	t.Helper()
	r, err := rulefile.Parse([]rulefile.Source{{Name: "test.yaml", Data: []byte(yaml)}}, rulefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (f *fixture) load(yaml string) {
	f.t.Helper()
	if err := f.SetRules(rules(f.t, yaml)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) advance(d time.Duration) { f.now.Add(d.Microseconds()) }

// ask sends one request that must be decided.
func (f *fixture) ask(descriptors ...*common.RateLimitDescriptor) *pb.RateLimitResponse {
	f.t.Helper()
	resp, err := f.ShouldRateLimit(context.Background(), &pb.RateLimitRequest{Domain: "edge", Descriptors: descriptors})
	if err != nil {
		f.t.Fatal(err)
	}
	if len(resp.Statuses) != len(descriptors) {
		f.t.Fatalf("%d statuses for %d descriptors", len(resp.Statuses), len(descriptors))
	}
	return resp
}

// desc reads "user=alice,path=/x".
func desc(text string) *common.RateLimitDescriptor {
	d := new(common.RateLimitDescriptor)
	for e := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(e, "=")
		d.Entries = append(d.Entries, &common.RateLimitDescriptor_Entry{Key: key, Value: value})
	}
	return d
}

func withHits(d *common.RateLimitDescriptor, n uint64) *common.RateLimitDescriptor {
	d.HitsAddend = wrapperspb.UInt64(n)
	return d
}

func override(d *common.RateLimitDescriptor, n uint32, unit typev3.RateLimitUnit) *common.RateLimitDescriptor {
	d.Limit = &common.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: n, Unit: unit}
	return d
}

func want(t testing.TB, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", protojson.Format(got), protojson.Format(want))
	}
}

const perUser = `
domain: edge
descriptors:
  - key: user
    rate_limit: {name: per_user, unit: minute, requests_per_unit: 2}
`

func TestAnswerReportsTheLimit(t *testing.T) {
	f := serve(t, perUser)
	f.advance(20*time.Second + 500*time.Millisecond)
	limit := &pb.RateLimitResponse_RateLimit{Name: "per_user", RequestsPerUnit: 2, Unit: pb.RateLimitResponse_RateLimit_MINUTE}
	for i, wanted := range []struct {
		code      pb.RateLimitResponse_Code
		remaining uint32
	}{{ok, 1}, {ok, 0}, {over, 0}, {over, 0}} {
		resp := f.ask(desc("user=alice"))
		want(t, resp, &pb.RateLimitResponse{
			OverallCode: wanted.code,
			Statuses: []*pb.RateLimitResponse_DescriptorStatus{{
				Code: wanted.code, CurrentLimit: limit, LimitRemaining: wanted.remaining,
				DurationUntilReset: durationpb.New(40 * time.Second), // rounded up, as Envoy's headers need it
			}},
		})
		if t.Failed() {
			t.Fatalf("call %d", i)
		}
	}
	if f.ask(desc("user=bob")).OverallCode != ok {
		t.Error("bob is refused for the requests of alice")
	}
	f.advance(40 * time.Second)
	if f.ask(desc("user=alice")).OverallCode != ok {
		t.Error("alice is refused in a new window")
	}
}

func TestNoRuleIsOKWithoutALimit(t *testing.T) {
	f := serve(t, perUser)
	want(t, f.ask(desc("path=/x"), desc("user=a,path=/x")), &pb.RateLimitResponse{
		OverallCode: ok, Statuses: []*pb.RateLimitResponse_DescriptorStatus{{Code: ok}, {Code: ok}},
	})
	resp, err := f.ShouldRateLimit(context.Background(), &pb.RateLimitRequest{Domain: "elsewhere", Descriptors: []*common.RateLimitDescriptor{desc("user=a")}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, resp, &pb.RateLimitResponse{OverallCode: ok, Statuses: []*pb.RateLimitResponse_DescriptorStatus{{Code: ok}}})
	if n := f.stats.DomainNotFound.Load(); n != 1 {
		t.Errorf("%d unknown domains counted", n)
	}
}

func TestRequestsThatCannotBeDecided(t *testing.T) {
	log, lines := logtest.New(zap.WarnLevel)
	f := serve(t, perUser, func(o *options) {
		o.Bounds, o.Options.Log = wire.Bounds{Descriptors: 2, Entries: 2, EntryBytes: 20}, log
	})
	for _, c := range []struct {
		name, domain string
		descriptors  []*common.RateLimitDescriptor
		says         string
	}{
		{"no domain", "", []*common.RateLimitDescriptor{desc("user=a")}, "domain must not be empty"},
		{"no descriptors", "edge", nil, "descriptor list must not be empty"},
		{"too many descriptors", "edge", []*common.RateLimitDescriptor{desc("a"), desc("b"), desc("c")}, "3 descriptors in a request: at most 2 are accepted (see Bounds.Descriptors)"},
		{"too many entries", "edge", []*common.RateLimitDescriptor{desc("a"), desc("a,b,c")}, "descriptors[1] has 3 entries: at most 2 are accepted (see Bounds.Entries)"},
		{"too long", "edge", []*common.RateLimitDescriptor{desc("user=" + strings.Repeat("x", 17))}, "descriptors[0] has keys and values of 21 bytes: at most 20 are accepted (see Bounds.EntryBytes)"},
		{"override without unit", "edge", []*common.RateLimitDescriptor{override(desc("user=a"), 1, 0)}, "descriptors[0].limit.unit: UNKNOWN: use SECOND"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := f.ShouldRateLimit(context.Background(), &pb.RateLimitRequest{Domain: c.domain, Descriptors: c.descriptors})
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want InvalidArgument with %q", err, c.says)
			}
		})
	}
	if n := f.stats.ServiceErrors.Load(); n != 6 {
		t.Errorf("%d service errors counted, want 6", n)
	}
	// Those about descriptors[0] and [1] count as one.
	said := lines.FilterMessageSnippet("a request can't be decided: ")
	if said.Len() != 4 || said.FilterMessageSnippet("(see Bounds.Descriptors)").Len() != 1 {
		t.Errorf("the log has %v", lines.All())
	}
}

func TestNoRulesYet(t *testing.T) {
	counts := stats.New(0)
	s := server.New(limiter.New(limiter.Options{Log: zaptest.NewLogger(t), Stats: counts}), server.Options{Stats: counts})
	_, err := s.ShouldRateLimit(context.Background(), &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("a")}})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func TestHeaders(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: minute, requests_per_unit: 2}}
  - {key: path, rate_limit: {unit: hour, requests_per_unit: 10}}
`, func(o *options) {
		o.Headers = server.Headers{Limit: "RateLimit-Limit", Remaining: "RateLimit-Remaining", Reset: "RateLimit-Reset", RetryAfter: "Retry-After"}
	})
	headers := func(resp *pb.RateLimitResponse) string {
		var b strings.Builder
		for _, h := range resp.ResponseHeadersToAdd {
			fmt.Fprintf(&b, "%s=%s ", strings.TrimPrefix(h.Key, "RateLimit-"), h.Value)
		}
		return strings.TrimSpace(b.String())
	}
	f.advance(time.Second)
	for i, wanted := range []string{"Limit=2 Remaining=1 Reset=59", "Limit=2 Remaining=0 Reset=59", "Limit=2 Remaining=0 Reset=59 Retry-After=59"} {
		if got := headers(f.ask(desc("path=/"), desc("user=a"))); got != wanted {
			t.Errorf("call %d: %s, want %s", i, got, wanted)
		}
	}
	if got := headers(f.ask(withHits(desc("user=b"), 3))); got != "Limit=2 Remaining=0 Reset=59" {
		t.Errorf("a call that can never pass gets %s", got)
	}
	if got := headers(f.ask(desc("none=a"))); got != "" {
		t.Errorf("no limit, but headers %s", got)
	}
}

func TestRawBody(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: minute, requests_per_unit: 1, raw_body: "slow down"}}
`)
	if body := f.ask(desc("user=a")).RawBody; body != nil {
		t.Errorf("an OK answer has the body %q", body)
	}
	if body := f.ask(desc("user=a")).RawBody; string(body) != "slow down" {
		t.Errorf("got the body %q", body)
	}
}

func TestDynamicMetadata(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, metadata: {tier: {name: base}, owner: a-team}, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: path, metadata: {tier: {name: other, group: web}}, rate_limit: {unit: minute, requests_per_unit: 9}}
`, func(o *options) { o.DynamicMetadata = true })
	for _, wanted := range []string{
		`{"domain":"edge","descriptors":[{"entries":["user=a"]},{"entries":["path=/"],"hitsAddend":2}],"metadata":{"owner":"a-team","tier":{"name":"base","group":"web"}}}`,
		`{"domain":"edge","descriptors":[{"entries":["user=a"]},{"entries":["path=/"],"hitsAddend":2}],"metadata":{"tier":{"name":"other","group":"web"}}}`,
	} {
		got := f.ask(desc("user=a"), withHits(desc("path=/"), 2)).DynamicMetadata
		expected := got.ProtoReflect().New().Interface()
		if err := protojson.Unmarshal([]byte(wanted), expected); err != nil {
			t.Fatal(err)
		}
		want(t, got, expected)
	}
}

// broken is a backend that is down. It stands for no real store: the tests are about the
// service's answer to an error.
type broken struct{}

func (broken) Decide(context.Context, *backend.Request, []algo.Decision) error {
	return errors.New("connection refused")
}

// TestErrorCodes of requests that the backend failed to decide.
func TestErrorCodes(t *testing.T) {
	f := serve(t, perUser, func(o *options) { o.Backend = broken{} })
	req := &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("user=a")}}
	if _, err := f.ShouldRateLimit(context.Background(), req); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v, want Unavailable with the cause", err)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.ShouldRateLimit(gone, req); status.Code(err) != codes.Canceled {
		t.Errorf("got %v for a client that has left, want Canceled", err)
	}
}

func TestJSON(t *testing.T) {
	f := serve(t, perUser)
	srv := httptest.NewServer(server.JSON(f))
	defer srv.Close()
	const alice = `{"domain": "edge", "descriptors": [{"entries": [{"key": "user", "value": "alice"}]}]}`
	for i, c := range []struct {
		method, body string
		status       int
		says         string
	}{
		{"POST", alice, 200, `"overallCode":"OK"`},
		{"POST", alice, 200, `"name":"per_user"`},
		{"POST", alice, 429, `"overallCode":"OVER_LIMIT"`},
		{"POST", `{"domain": "edge"}`, 400, "descriptor list must not be empty"},
		{"POST", `{"domain": `, 400, "the body is no RateLimitRequest"},
		{"POST", `{"domani": "edge"}`, 400, "domani"},
		{"POST", `{"domain": "` + strings.Repeat("x", 2<<20) + `"}`, 413, "larger than 1048576 bytes"},
		{"GET", "", 405, "POST a RateLimitRequest"},
	} {
		req, err := http.NewRequestWithContext(context.Background(), c.method, srv.URL+"/json", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		// protojson varies its spaces on purpose.
		if text := strings.ReplaceAll(string(body), `": "`, `":"`); resp.StatusCode != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%d: %s %.80s: %d %s, want %d with %s", i, c.method, c.body, resp.StatusCode, body, c.status, c.says)
		}
	}
}

func BenchmarkShouldRateLimit(b *testing.B) {
	f := serve(b, perUser)
	req := &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("user=alice")}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.ShouldRateLimit(context.Background(), req); err != nil {
			b.Fatal(err)
		}
	}
}
