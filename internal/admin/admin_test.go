package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/health"

	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/live"
	"github.com/distlimiter/ratelimit/internal/rulestore"
	"github.com/distlimiter/ratelimit/internal/scrape"
	"github.com/distlimiter/ratelimit/internal/stats"
)

const rules = `domain: edge
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 10}
    descriptors:
      - {key: path, value: /x, shadow_mode: true, rate_limit: {algorithm: token_bucket, unit: second, requests_per_unit: 5, burst: 7}}
  - key: remote_address
    value: 10.0.0.1
    rate_limit: {unit: hour, requests_per_unit: 100}
`

// fixture is the handler over the real parts that it shows.
type fixture struct {
	file    string
	rules   *reload.Coordinator
	store   *rulestore.File
	stats   *stats.Stats
	limiter *limiter.Limiter
	now     *atomic.Int64 // µs
	health  *health.Server
	audit   *observer.ObservedLogs
	server  *httptest.Server
}

func newFixture(t *testing.T, set ...func(*Options)) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{file: filepath.Join(dir, "edge.yaml"), stats: stats.New(0), health: health.NewServer(), now: new(atomic.Int64)}
	f.now.Store(time.Now().UnixMicro())
	store, err := rulestore.NewFile(filepath.Join(dir, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	f.store = store
	counters := memory.New(memory.Options{Clock: f.now.Load})
	f.limiter = limiter.New(limiter.Options{Backend: counters, Log: zaptest.NewLogger(t), Stats: f.stats})
	provider := &rulestore.Provider{Store: store, Log: zaptest.NewLogger(t)}
	f.rules = reload.New(reload.Options{Load: reload.Adjusted(rulefile.NewParser(rulefile.Options{}).Parse, config.Default{}), Providers: []reload.Provider{
		&reload.Files{Paths: []string{f.file}}, provider,
	}})
	provider.Check = func(sources []rulefile.Source) (*config.Rules, error) {
		return f.rules.Check(config.FromAdmin, sources)
	}
	f.rules.Subscribe(f.limiter.SetRules)
	registry := prometheus.NewRegistry()
	registry.MustRegister(f.stats, reload.Metrics(f.rules.Status))
	core, audit := observer.New(zap.InfoLevel)
	f.audit = audit
	o := Options{
		Replica: Replica{StoreHealthy: func() bool { return true }},
		Rules:   f.rules.Rules, Reloads: f.rules.Status, Reload: f.rules.Reload, Store: provider, Limiter: f.limiter,
		Counters: inMemory{counters}, Stats: f.stats, Live: new(live.Feed), Metrics: scrape.New(registry), Health: f.health, Audit: zap.New(core),
	}
	for _, s := range set {
		s(&o)
	}
	f.server = httptest.NewServer(New(o))
	f.server.Client().Transport = newSpecified(t)
	t.Cleanup(func() {
		f.server.Close()
		if err := counters.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// inMemory is a Resetter of the store in memory.
type inMemory struct{ *memory.Store }

func (s inMemory) Reset(ctx context.Context, checks []backend.Check) (n int, err error) {
	for _, c := range checks {
		if used, _ := s.Store.Reset(ctx, c); used {
			n++
		}
	}
	return n, nil
}

func (s inMemory) ResetAll(ctx context.Context, goes func([]byte) bool) (n int, err error) {
	var checks []backend.Check
	for key := range s.Keys() {
		if goes(key) {
			checks = append(checks, backend.Check{Key: bytes.Clone(key)})
		}
	}
	return s.Reset(ctx, checks)
}

// load puts text in the rule file and reloads.
func (f *fixture) load(t *testing.T, text string) error {
	t.Helper()
	if err := os.WriteFile(f.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return f.rules.Reload(context.Background())
}

func (f *fixture) do(t *testing.T, method, path string) (status int, content string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, f.server.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := f.server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	read, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(read)
}

func (f *fixture) get(t *testing.T, path string) string {
	t.Helper()
	status, body := f.do(t, http.MethodGet, path)
	if status != http.StatusOK {
		t.Fatalf("GET %s: %d: %s", path, status, body)
	}
	return body
}

func expect(t *testing.T, body string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(body, part) {
			t.Errorf("no %q in:\n%s", part, body)
		}
	}
}

func TestIndexListsPagesThatAnswer(t *testing.T) {
	f := newFixture(t)
	index := f.get(t, "/")
	lines := strings.Split(strings.TrimSpace(index), "\n")
	if len(lines) < 6 {
		t.Fatalf("only %d pages:\n%s", len(lines), index)
	}
	for _, line := range lines {
		path, _, _ := strings.Cut(line, ": ")
		if path == livePath { // which does not end
			watchStream(t, f, "")
			continue
		}
		f.get(t, path)
	}
}

func TestRefusals(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/nothing", http.StatusNotFound},
		{http.MethodPost, "/stats", http.StatusMethodNotAllowed},
		{http.MethodDelete, "/", http.StatusMethodNotAllowed},
		{http.MethodGet, "/stats?format=xml", http.StatusBadRequest},
		{http.MethodGet, "/debug/pprof/cmdline", http.StatusNotFound},
	} {
		if status, body := f.do(t, tt.method, tt.path); status != tt.status {
			t.Errorf("%s %s: %d, want %d: %s", tt.method, tt.path, status, tt.status, body)
		}
	}
}

func TestRlconfig(t *testing.T) {
	f := newFixture(t)
	if got := f.get(t, "/rlconfig"); got != "" {
		t.Errorf("before there are rules: %q", got)
	}
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	want := `edge.user: unit=MINUTE requests_per_unit=10, shadow_mode: false, quota_mode: false
edge.user.path_/x: unit=SECOND requests_per_unit=5, shadow_mode: true, quota_mode: false, algorithm: token_bucket, burst: 7
edge.remote_address_10.0.0.1: unit=HOUR requests_per_unit=100, shadow_mode: false, quota_mode: false
`
	if got := f.get(t, "/rlconfig"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestStatusAfterBadReload(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	if err := f.load(t, strings.Replace(rules, "unit: minute", "unit: fortnight", 1)); err == nil {
		t.Fatal("a fortnight was accepted")
	}
	var status reload.Status
	if err := json.Unmarshal([]byte(f.get(t, "/rules/status")), &status); err != nil {
		t.Fatal(err)
	}
	if status.Successes != 1 || status.Failures != 1 || len(status.History) != 2 || status.Last.Outcome != reload.Failed || status.Last.Rules != 3 {
		t.Errorf("status %+v", status)
	}
	expect(t, strings.Join(status.Last.Problems, "\n"), "edge.yaml:4:", "fortnight")
	expect(t, f.get(t, "/rlconfig"), "unit=MINUTE") // the old rules stay
	expect(t, f.get(t, "/metrics"),
		`ratelimit_config_reloads_total{result="success"} 1`,
		`ratelimit_config_reloads_total{result="failure"} 1`,
		"ratelimit_config_last_reload_successful 0",
		"ratelimit_config_rules 3",
		"ratelimit_service_config_load_error 1")
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	expect(t, f.get(t, "/metrics"), "ratelimit_config_last_reload_successful 1")
}

func TestStats(t *testing.T) {
	f := newFixture(t)
	counters := f.stats.Bind([]stats.Name{{Domain: "edge", Path: "remote_address_10.0.0.1"}, {Domain: "a:b|c\nd", Path: "user"}}, nil)
	counters[0].Allow(stats.Usage{Hits: 8, Before: 0, After: 8, Near: 8, Limit: 10})
	counters[0].Deny(stats.Usage{Hits: 5, Before: 8, After: 8, Near: 8, Limit: 10}, time.Unix(1700000000, 0), false)
	f.stats.BackendErrors.Add(3)
	if got, want := f.get(t, "/stats"), `ratelimit.service.call.should_rate_limit.redis_error: 3
ratelimit.service.call.should_rate_limit.service_error: 0
ratelimit.service.config_load_error: 0
ratelimit.service.config_load_success: 0
ratelimit.service.domain_not_found: 0
ratelimit.service.global_shadow_mode: 0
ratelimit.service.rate_limit.a_b_c_d.user.near_limit: 0
ratelimit.service.rate_limit.a_b_c_d.user.over_limit: 0
ratelimit.service.rate_limit.a_b_c_d.user.over_limit_with_local_cache: 0
ratelimit.service.rate_limit.a_b_c_d.user.shadow_mode: 0
ratelimit.service.rate_limit.a_b_c_d.user.total_hits: 0
ratelimit.service.rate_limit.a_b_c_d.user.within_limit: 0
ratelimit.service.rate_limit.edge.remote_address_10_0_0_1.near_limit: 0
ratelimit.service.rate_limit.edge.remote_address_10_0_0_1.over_limit: 5
ratelimit.service.rate_limit.edge.remote_address_10_0_0_1.over_limit_with_local_cache: 0
ratelimit.service.rate_limit.edge.remote_address_10_0_0_1.shadow_mode: 0
ratelimit.service.rate_limit.edge.remote_address_10_0_0_1.total_hits: 13
ratelimit.service.rate_limit.edge.remote_address_10_0_0_1.within_limit: 8
`; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	var answer struct {
		Service map[string]uint64
		Rules   []ruleStats
	}
	if err := json.Unmarshal([]byte(f.get(t, "/stats?format=json")), &answer); err != nil {
		t.Fatal(err)
	}
	got := answer.Rules[1]
	if answer.Service["call.should_rate_limit.redis_error"] != 3 || got.Rule != "remote_address_10.0.0.1" ||
		got.Allowed != 1 || got.Denied != 1 || got.OverLimit != 5 || !got.LastDenied.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("%+v", answer)
	}
}

func TestMetricsFollowThePrometheusRules(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.New(strings.NewReader(f.get(t, "/metrics"))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "ratelimit_service_") { // the names of envoyproxy/ratelimit
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestHealthcheck(t *testing.T) {
	f := newFixture(t)
	if body := f.get(t, "/healthcheck"); body != "OK" {
		t.Errorf("healthy: %q", body)
	}
	f.health.Shutdown()
	if status, body := f.do(t, http.MethodGet, "/healthcheck"); status != http.StatusServiceUnavailable {
		t.Errorf("draining: %d: %s", status, body)
	}
}
