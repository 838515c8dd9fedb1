package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
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
	"github.com/distlimiter/ratelimit/internal/server"
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
	stats *stats.Stats
	now   *atomic.Int64 // µs
	t     testing.TB
}

func serve(t testing.TB, yaml string, set ...func(*server.Options)) *fixture {
	t.Helper()
	f := &fixture{stats: stats.New(0), now: new(atomic.Int64), t: t}
	f.now.Store(noon)
	o := server.Options{Backend: store(t, f.now), Log: logger(t), Stats: f.stats}
	for _, s := range set {
		s(&o)
	}
	f.Service = server.New(o)
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
	r, err := config.Parse([]config.Source{{Name: "test.yaml", Data: []byte(yaml)}}, config.Options{})
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

// codes asks n times and returns how many were OK.
func (f *fixture) admitted(n int, descriptors ...*common.RateLimitDescriptor) (passed int) {
	f.t.Helper()
	for range n {
		if f.ask(descriptors...).OverallCode == ok {
			passed++
		}
	}
	return passed
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

func negative(d *common.RateLimitDescriptor) *common.RateLimitDescriptor {
	d.IsNegativeHits = true
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
		t.Error("bob pays for alice")
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
	f := serve(t, perUser, func(o *server.Options) { o.Bounds = server.Bounds{Descriptors: 2, Entries: 2, EntryBytes: 20} })
	for _, c := range []struct {
		name, domain string
		descriptors  []*common.RateLimitDescriptor
		says         string
	}{
		{"no domain", "", []*common.RateLimitDescriptor{desc("user=a")}, "domain must not be empty"},
		{"no descriptors", "edge", nil, "descriptor list must not be empty"},
		{"too many descriptors", "edge", []*common.RateLimitDescriptor{desc("a"), desc("b"), desc("c")}, "3 descriptors in a request: at most 2"},
		{"too many entries", "edge", []*common.RateLimitDescriptor{desc("a"), desc("a,b,c")}, "descriptors[1] has 3 entries: at most 2"},
		{"too long", "edge", []*common.RateLimitDescriptor{desc("user=" + strings.Repeat("x", 17))}, "descriptors[0] has keys and values of 21 bytes: at most 20"},
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
}

func TestNoRulesYet(t *testing.T) {
	s := server.New(server.Options{Log: zaptest.NewLogger(t), Stats: stats.New(0)})
	_, err := s.ShouldRateLimit(context.Background(), &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("a")}})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func TestHits(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 10}
`)
	remaining := func(want uint32, code pb.RateLimitResponse_Code, resp *pb.RateLimitResponse) {
		t.Helper()
		if got := resp.Statuses[0]; got.LimitRemaining != want || got.Code != code {
			t.Errorf("%v with %d left, want %v with %d", got.Code, got.LimitRemaining, code, want)
		}
	}
	a := func() *common.RateLimitDescriptor { return desc("user=a") }
	remaining(9, ok, f.ask(a()))
	remaining(9, ok, f.ask(withHits(a(), 0))) // looks
	remaining(6, ok, f.ask(withHits(a(), 3)))
	remaining(8, ok, f.ask(negative(withHits(a(), 2)))) // gives back
	remaining(10, ok, f.ask(negative(withHits(a(), 1<<63))))
	remaining(10, over, f.ask(withHits(a(), 11)))
	remaining(10, over, f.ask(withHits(a(), 1<<64-1)))
	resp, err := f.ShouldRateLimit(context.Background(), &pb.RateLimitRequest{
		Domain: "edge", HitsAddend: 4, Descriptors: []*common.RateLimitDescriptor{a(), withHits(desc("user=b"), 1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	remaining(6, ok, resp)
	if got := resp.Statuses[1].LimitRemaining; got != 9 {
		t.Errorf("a descriptor's own hits leave %d, want 9", got)
	}
}

func TestOverride(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    shadow_mode: true
    rate_limit: {name: per_user, unit: hour, requests_per_unit: 1000}
  - key: bucket
    rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 1000}
`)
	for _, text := range []string{"user=a", "unknown=a", "bucket=a"} {
		o := func() *common.RateLimitDescriptor { return override(desc(text), 2, typev3.RateLimitUnit_MINUTE) }
		if got := f.admitted(5, o()); got != 2 {
			t.Errorf("%s: an override of 2 admits %d", text, got)
		}
		want(t, f.ask(o()).Statuses[0].CurrentLimit, &pb.RateLimitResponse_RateLimit{RequestsPerUnit: 2, Unit: pb.RateLimitResponse_RateLimit_MINUTE})
	}
	if got := f.ask(desc("bucket=a")).Statuses[0].LimitRemaining; got != 999 {
		t.Errorf("the rule's own counter has %d left, want 999", got)
	}
	f.advance(30 * time.Second) // a token bucket has refilled by one, the windows have not
	if got := f.admitted(2, override(desc("bucket=a"), 2, typev3.RateLimitUnit_MINUTE)); got != 1 {
		t.Errorf("the override on a bucket admits %d, want 1", got)
	}
}

func TestShadowMode(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    shadow_mode: true
    rate_limit: {unit: hour, requests_per_unit: 1}
`)
	for range 3 {
		resp := f.ask(desc("user=a"))
		if resp.OverallCode != ok || resp.Statuses[0].Code != ok {
			t.Fatalf("shadow mode answers %v", resp)
		}
	}
	c := f.stats.Rules()[0].Counts()
	if c.Allowed != 1 || c.ShadowDenied != 2 || c.ShadowMode != 2 || c.Denied != 0 {
		t.Errorf("counted %+v", c)
	}
}

func TestGlobalShadowMode(t *testing.T) {
	f := serve(t, perUser, func(o *server.Options) { o.ShadowMode = true })
	if got := f.admitted(5, desc("user=a")); got != 5 {
		t.Errorf("admitted %d of 5", got)
	}
	if code := f.ask(desc("user=a")).Statuses[0].Code; code != over {
		t.Errorf("the descriptor's own code is %v, want OVER_LIMIT", code)
	}
	if n := f.stats.GlobalShadowMode.Load(); n != 4 {
		t.Errorf("%d answers counted as shadowed, want 4", n)
	}
}

func TestQuotaMode(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: gold, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: silver, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: hard, rate_limit: {unit: hour, requests_per_unit: 100}}
`)
	gold, silver := desc("gold=a"), desc("silver=a")
	for i, wanted := range []pb.RateLimitResponse_Code{ok, ok, over} {
		if got := f.ask(gold, silver, desc("hard=a")).OverallCode; got != wanted {
			t.Errorf("call %d: %v, want %v", i, got, wanted)
		}
	}
	if got := f.ask(withHits(desc("hard=b"), 101), desc("gold=new")).OverallCode; got != over {
		t.Errorf("a required descriptor that refuses gives %v", got)
	}
}

func TestGlobalQuotaMode(t *testing.T) {
	f := serve(t, perUser, func(o *server.Options) { o.QuotaMode = true })
	f.admitted(2, desc("user=a"))
	if got := f.ask(desc("user=a"), desc("user=b")).OverallCode; got != ok {
		t.Errorf("one of two quotas is left: %v", got)
	}
	if got := f.ask(desc("user=a"), desc("none=x")).OverallCode; got != ok {
		t.Errorf("a descriptor without a limit is a quota that never ends: %v", got)
	}
	if got := f.ask(desc("user=a")).OverallCode; got != over {
		t.Errorf("no quota is left: %v", got)
	}
}

func TestReplacesAndUnlimited(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {name: base, unit: hour, requests_per_unit: 1}}
  - {key: premium, rate_limit: {name: more, unit: hour, requests_per_unit: 3, replaces: [{name: base}]}}
  - {key: vip, rate_limit: {unlimited: true, replaces: [{name: base}, {name: more}]}}
`)
	if got := f.admitted(5, desc("user=a"), desc("premium=a")); got != 3 {
		t.Errorf("admitted %d, want what the replacing limit admits, 3", got)
	}
	resp := f.ask(desc("user=a"), desc("premium=a"), desc("vip=a"))
	want(t, resp, &pb.RateLimitResponse{OverallCode: ok, Statuses: []*pb.RateLimitResponse_DescriptorStatus{
		{Code: ok}, {Code: ok}, {Code: ok, LimitRemaining: 1<<32 - 1},
	}})
	if got := f.ask(desc("user=a")).Statuses[0].LimitRemaining; got != 0 {
		t.Errorf("the replaced limit was charged: %d left", got)
	}
	for _, r := range f.stats.Rules() {
		if r.Name.Path == "vip" && r.Counts().WithinLimit != 1 {
			t.Errorf("unlimited is not counted: %+v", r.Counts())
		}
	}
}

func TestSeveralLimitsReportTheTightest(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limits:
      - {name: burst, unit: second, requests_per_unit: 3}
      - {name: daily, unit: day, requests_per_unit: 5}
`)
	var got []string
	for range 7 {
		st := f.ask(desc("user=a")).Statuses[0]
		got = append(got, fmt.Sprintf("%v %s %d", st.Code, st.CurrentLimit.Name, st.LimitRemaining))
		f.advance(300 * time.Millisecond)
	}
	wanted := []string{
		"OK burst 2", "OK burst 1", "OK burst 0", "OVER_LIMIT burst 0",
		"OK daily 1", "OK daily 0", "OVER_LIMIT daily 0",
	}
	if strings.Join(got, "\n") != strings.Join(wanted, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
}

func TestAllOrNothing(t *testing.T) {
	const yaml = `
domain: edge
%sdescriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 10}}
  - {key: path, rate_limit: {unit: hour, requests_per_unit: 1}}
`
	for _, c := range []struct {
		consume string
		left    uint32
	}{{"", 6}, {"consume: all_or_nothing\n", 8}} {
		f := serve(t, fmt.Sprintf(yaml, c.consume))
		f.admitted(3, desc("user=a"), desc("path=/"))
		if got := f.ask(desc("user=a")).Statuses[0].LimitRemaining; got != c.left {
			t.Errorf("%q: %d left for the user, want %d", c.consume, got, c.left)
		}
	}
}

func TestHeaders(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: minute, requests_per_unit: 2}}
  - {key: path, rate_limit: {unit: hour, requests_per_unit: 10}}
`, func(o *server.Options) {
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
		t.Errorf("a call that can never pass is told %s", got)
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
`, func(o *server.Options) { o.DynamicMetadata = true })
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

func TestDetailedMetric(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, detailed_metric: true, rate_limit: {unit: hour, requests_per_unit: 9}}
  - key: route
    value_to_metric: true
    descriptors: [{key: method, rate_limit: {unit: hour, requests_per_unit: 9}}]
`)
	f.ask(desc("user=a"))
	f.ask(desc("user=b"))
	f.ask(desc("user=b"))
	f.ask(desc("route=r,method=GET"))
	got := map[string]uint64{}
	for _, r := range f.stats.Rules() {
		got[r.Name.Path] = r.Counts().WithinLimit
	}
	if got["user_a"] != 1 || got["user_b"] != 2 || got["route_r.method"] != 1 {
		t.Errorf("counted %v", got)
	}
}

// broken is a backend that is down. It stands for no real store: what is tested
// is what the service makes of an error.
type broken struct{}

func (broken) Decide(context.Context, *backend.Request, []algo.Decision) error {
	return errors.New("connection refused")
}

func TestBackendErrors(t *testing.T) {
	const yaml = `
domain: edge
descriptors:
  - {key: default, rate_limit: {unit: hour, requests_per_unit: 4}}
  - {key: error, rate_limit: {unit: hour, requests_per_unit: 4, on_backend_error: error}}
  - {key: allow, rate_limit: {unit: hour, requests_per_unit: 4, on_backend_error: allow}}
  - {key: deny, rate_limit: {unit: hour, requests_per_unit: 4, on_backend_error: deny}}
  - {key: local, rate_limit: {unit: hour, requests_per_unit: 4, on_backend_error: local}}
`
	f := serve(t, yaml, func(o *server.Options) {
		o.Backend, o.Replicas = broken{}, 2
		var now atomic.Int64
		now.Store(noon)
		o.Local = store(t, &now)
		o.OnBackendError = config.BackendErrorAllow
	})
	for text, wanted := range map[string]int{"default=a": 5, "allow=a": 5, "deny=a": 0, "local=a": 2} {
		if got := f.admitted(5, desc(text)); got != wanted {
			t.Errorf("%s: admitted %d of 5, want %d", text, got, wanted)
		}
	}
	for _, ds := range [][]*common.RateLimitDescriptor{{desc("error=a")}, {desc("allow=a"), desc("error=a")}} {
		_, err := f.ShouldRateLimit(context.Background(), &pb.RateLimitRequest{Domain: "edge", Descriptors: ds})
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v, want Unavailable with the cause", err)
		}
	}
	if n := f.stats.BackendErrors.Load(); n != 22 {
		t.Errorf("%d backend errors counted, want 22", n)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.ShouldRateLimit(gone, &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("allow=a")}}); status.Code(err) != codes.Canceled {
		t.Errorf("got %v for a client that has left, want Canceled", err)
	}
}

func TestLocalWithoutAStoreIsRefused(t *testing.T) {
	f := serve(t, perUser)
	err := f.SetRules(rules(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 4, on_backend_error: local}}
`))
	if err == nil || !strings.Contains(err.Error(), "test.yaml:4:") || !strings.Contains(err.Error(), "on_backend_error") {
		t.Errorf("got %v, want an error with the place", err)
	}
	if got := f.admitted(3, desc("user=a")); got != 2 {
		t.Errorf("the old rules admit %d, want 2", got)
	}
}

// remembering is a store that remembers whom it has refused.
type remembering struct {
	backend.Backend
	refused map[string]algo.Decision
}

func (r *remembering) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	key := string(req.Checks[0].Key)
	if known, is := r.refused[key]; is {
		out[0], req.Remembered = known, true
		return nil
	}
	err := r.Backend.Decide(ctx, req, out)
	if !out[0].Allowed {
		r.refused[key] = out[0]
	}
	return err
}

// TestRefusalsOutOfMemoryAreCounted, with the others and on their own, and those
// of a request do not count for the next.
func TestRefusalsOutOfMemoryAreCounted(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: minute, requests_per_unit: 1, denied_hits: drop}}\n",
		func(o *server.Options) { o.Backend = &remembering{o.Backend, map[string]algo.Decision{}} })
	for range 4 {
		f.ask(desc("user=a"))
	}
	f.ask(desc("user=b"))
	f.ask(desc("user=b"))
	c := f.stats.Rules()[0].Counts()
	c.LastDenied = time.Time{}
	if want := (stats.Counts{WithinLimit: 2, NearLimit: 2, DeniedHits: 4, OverLimit: 4, OverLimitWithLocalCache: 2, Allowed: 2, Denied: 4}); c != want {
		t.Errorf("counted %+v, want %+v", c, want)
	}
}

func TestNearLimitIsCountedAsTheIncumbentDoes(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 10}}
`)
	for _, n := range []uint64{7, 2, 3, 4} { // uses 7, 9, 12, 16 of 10; near above 8
		f.ask(withHits(desc("user=a"), n))
	}
	c := f.stats.Rules()[0].Counts()
	c.LastDenied = time.Time{}
	if wanted := (stats.Counts{WithinLimit: 9, DeniedHits: 7, OverLimit: 2 + 4, NearLimit: 1 + 1, Allowed: 2, Denied: 2}); c != wanted {
		t.Errorf("counted %+v\nwant    %+v", c, wanted)
	}
	if c.TotalHits() != 16 {
		t.Errorf("%d hits in all, want 16", c.TotalHits())
	}
}

// TestNearLimitRatioIsTheIncumbents, which multiplies in single precision.
func TestNearLimitRatioIsTheIncumbents(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: hour, requests_per_unit: 100}}\n",
		func(o *server.Options) { o.NearLimitRatio = 0.29 })
	f.ask(withHits(desc("user=a"), 29))
	if n := f.stats.Rules()[0].Counts().NearLimit; n != 0 {
		t.Errorf("%d of 29 hits are near, want none", n)
	}
	f.ask(withHits(desc("user=a"), 2))
	if n := f.stats.Rules()[0].Counts().NearLimit; n != 2 {
		t.Errorf("%d hits are near, want the 2 above 29", n)
	}
}

func TestCountersSurviveAReload(t *testing.T) {
	f := serve(t, perUser)
	f.admitted(2, desc("user=a"))
	f.load(strings.Replace(perUser, "requests_per_unit: 2", "requests_per_unit: 5", 1))
	if got := f.admitted(9, desc("user=a")); got != 3 {
		t.Errorf("admitted %d more after the limit rose from 2 to 5, want 3", got)
	}
	if c := f.stats.Rules()[0].Counts(); c.Allowed != 5 {
		t.Errorf("statistics begin anew: %+v", c)
	}
}

func TestReloadUnderLoad(t *testing.T) {
	f := serve(t, perUser)
	stop := make(chan struct{})
	started := make(chan struct{}, 8) // of each client when it has its first answer, and when it ends
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			defer func() { started <- struct{}{} }()
			for asked := 0; ; asked++ {
				select {
				case <-stop:
					return
				default:
				}
				if asked == 1 {
					started <- struct{}{}
				}
				resp, err := f.ShouldRateLimit(context.Background(), &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("user=a"), desc("path=/")}})
				if err != nil || len(resp.Statuses) != 2 {
					t.Errorf("got %v, %v", resp, err)
					return
				}
			}
		})
	}
	for range 4 {
		<-started
	}
	with, without := rules(t, perUser+"  - {key: path, rate_limit: {unit: second, requests_per_unit: 1}}\n"), rules(t, perUser)
	for range 200 {
		for _, r := range []*config.Rules{with, without} {
			if err := f.SetRules(r); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	clients.Wait()
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
