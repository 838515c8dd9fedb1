package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// What Envoy AI Gateway v1.1 gives its rate-limit service.
const (
	aiGatewayNode   = "envoy-ai-gateway-ratelimit"
	aiGatewayDomain = "ai-gateway-quota"
)

// quotaPolicy is what AI Gateway makes of a QuotaPolicy with 100,000 tokens an hour for the
// model small, and for the model large 1,000 for all and 5,000 more for each tenant.
func quotaPolicy() *ratelimit.RateLimitConfig {
	hourly := func(n uint32) *ratelimit.RateLimitPolicy {
		return &ratelimit.RateLimitPolicy{Unit: ratelimit.RateLimitUnit_HOUR, RequestsPerUnit: n}
	}
	return &ratelimit.RateLimitConfig{Name: aiGatewayDomain, Domain: aiGatewayDomain, Descriptors: []*ratelimit.RateLimitDescriptor{{
		Key: "backend_name", Value: "default/openai", Descriptors: []*ratelimit.RateLimitDescriptor{
			{Key: "model_name_override", Value: "small", RateLimit: hourly(100_000), QuotaMode: true},
			{Key: "model_name_override", Value: "large", Descriptors: []*ratelimit.RateLimitDescriptor{
				{Key: "rule-0-x-tenant-id-match-0", RateLimit: hourly(5_000), QuotaMode: true},
				{Key: "rule-1-match--1", Value: "rule-1-match--1", RateLimit: hourly(1_000), QuotaMode: true},
			}},
		},
	}}}
}

// startForAIGateway starts the binary with the environment of AI Gateway's rate-limit
// service, which gets the policy from a control plane, and with a rule file beside it.
func startForAIGateway(t *testing.T) *harness.Service {
	t.Helper()
	control := newPlainPlane(t)
	snapshot, err := cache.NewSnapshot("1", map[resource.Type][]types.Resource{resource.RateLimitConfigType: {quotaPolicy()}})
	if err == nil {
		err = control.cache.SetSnapshot(t.Context(), aiGatewayNode, snapshot)
	}
	if err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(t.TempDir(), "llm-budget.yaml")
	write(t, rules, example(t, "llm-budget.yaml"))
	service := harness.StartBare(t, patiently(
		"LOG_LEVEL=debug",
		"REDIS_SOCKET_TYPE=tcp",
		"REDIS_URL="+redistest.Start(t, redistest.Config{}).Addr,
		"RUNTIME_ROOT=/data",
		"RUNTIME_SUBDIRECTORY=ratelimit",
		"USE_STATSD=false",
		"CONFIG_TYPE=GRPC_XDS_SOTW",
		"CONFIG_GRPC_XDS_NODE_ID="+aiGatewayNode,
		"CONFIG_GRPC_XDS_SERVER_URL="+control.addr,
		"CONFIG_PATH="+rules,
	)...)
	service.AwaitHealthy(t)
	harness.Eventually(t, "the quotas are in force", func() bool {
		return strings.Contains(service.Get(t, service.Admin, "/rlconfig"), aiGatewayDomain+".backend_name_default/openai.model_name_override_small")
	})
	return service
}

// TestQuotaPolicyOfAIGateway: a request passes while any of the quotas that it meets has
// room, and answers are charged whether or not there is.
func TestQuotaPolicyOfAIGateway(t *testing.T) {
	t.Parallel()
	service := startForAIGateway(t)
	const ok, over = rls.RateLimitResponse_OK, rls.RateLimitResponse_OVER_LIMIT
	ask := func(hits uint64, tenants ...string) rls.RateLimitResponse_Code {
		request := harness.Request(aiGatewayDomain, hits, "backend_name", "default/openai", "model_name_override", "large", "rule-1-match--1", "rule-1-match--1")
		for _, tenant := range tenants {
			more := harness.Request(aiGatewayDomain, hits, "backend_name", "default/openai", "model_name_override", "large", "rule-0-x-tenant-id-match-0", tenant)
			request.Descriptors = append(request.Descriptors, more.Descriptors...)
		}
		return service.Ask(t, request).OverallCode
	}
	for i, step := range []struct {
		hits    uint64
		tenants []string
		want    rls.RateLimitResponse_Code
	}{
		{1, nil, ok},
		{8_000, []string{"acme"}, over}, // what an answer has cost: more than either has
		{1, nil, over},
		{1, []string{"acme"}, over},
		{1, []string{"other"}, ok}, // whose own quota has room
	} {
		if got := ask(step.hits, step.tenants...); got != step.want {
			t.Errorf("request %d: %v, want %v", i, got, step.want)
		}
	}
}

// patchPolicy is the part of Envoy Gateway's EnvoyPatchPolicy that the manifest uses.
type patchPolicy struct {
	Spec struct {
		JSONPatches []struct {
			Type, Name string
			Operation  struct {
				Op, Path string
				Value    map[string]any
			}
		} `yaml:"jsonPatches"`
	}
}

// withReservations applies the manifest of envoy/ai-gateway to a configuration, as Envoy
// Gateway would to its own.
func withReservations(t *testing.T, config string) string {
	t.Helper()
	var bootstrap map[string]any
	var policy patchPolicy
	manifest, err := os.ReadFile(harness.Config(t, filepath.Join("ai-gateway", "reservations.yaml")))
	if err == nil {
		err = yaml.Unmarshal(manifest, &policy)
	}
	if err == nil {
		err = yaml.Unmarshal([]byte(config), &bootstrap)
	}
	if err != nil {
		t.Fatal(err)
	}
	resources := bootstrap["static_resources"].(map[string]any)
	listener := list(resources["listeners"])[0]
	manager := list(listener["default_filter_chain"].(map[string]any)["filters"])[0]["typed_config"].(map[string]any)
	for i, p := range policy.Spec.JSONPatches {
		switch at, isFilter := strings.CutPrefix(p.Operation.Path, "/default_filter_chain/filters/0/typed_config/http_filters/"); {
		case p.Operation.Op != "add":
			t.Fatalf("patch %d: %s", i, p.Operation.Op)
		case isFilter && p.Name == listener["name"]:
			n, err := strconv.Atoi(at)
			filters := manager["http_filters"].([]any)
			if err != nil || n >= len(filters) {
				t.Fatalf("patch %d: filter %s of %d", i, at, len(filters))
			}
			manager["http_filters"] = append(append(append([]any{}, filters[:n]...), p.Operation.Value), filters[n:]...)
		case p.Operation.Path == "" && strings.HasSuffix(p.Type, ".Cluster"):
			resources["clusters"] = append(resources["clusters"].([]any), p.Operation.Value)
		default:
			t.Fatalf("patch %d, of %s %s, matches nothing", i, p.Type, p.Name)
		}
	}
	patched, err := yaml.Marshal(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(patched), "distlimiter.rate-limit.svc.cluster.local", "127.0.0.1")
}

// TestReservationsForAIGateway asks with 20 requests at once, each of which costs 8,000
// tokens of 100,000: under a QuotaPolicy alone, which is charged afterwards, and with
// reservations beside it.
func TestReservationsForAIGateway(t *testing.T) {
	t.Parallel()
	const budget, cost, clients = 100_000, 8_000, 20
	config, err := os.ReadFile(filepath.Join("testdata", "ai-gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name         string
		config       string
		passed, used int64
	}{
		{"quota alone", string(config), clients, clients * (cost + 1)}, // AI Gateway charges 1 when a request begins
		{"with reservations", withReservations(t, string(config)), budget / cost, budget / cost * cost},
	} {
		t.Run(test.name, func(t *testing.T) {
			service, back := startForAIGateway(t), startBackEnd(t)
			envoy := harness.StartEnvoyConfig(t, test.config, service, harness.ServiceAt(t, back.port))
			statuses := make(chan int, clients)
			ask := func() {
				request, err := http.NewRequest(http.MethodPost, envoy.URL(10000, "/v1/chat/completions"), strings.NewReader(fmt.Sprintf(`{"model":"small","max_tokens":%d}`, cost)))
				if err != nil {
					statuses <- 0
					return
				}
				request.Header.Set("x-user", "alice")
				request.Header.Set("content-type", "application/json")
				response, err := http.DefaultTransport.RoundTrip(request)
				if err != nil {
					statuses <- 0
					return
				}
				response.Body.Close()
				statuses <- response.StatusCode
			}
			for range clients {
				go ask()
			}
			passed := int64(0)
			for range clients {
				select {
				case <-back.arrived: // all are in flight before any has its answer
					passed++
				case status := <-statuses:
					if status != http.StatusTooManyRequests {
						t.Fatalf("status %d", status)
					}
				}
			}
			if passed != test.passed {
				t.Fatalf("%d requests passed, want %d", passed, test.passed)
			}
			for range passed {
				back.goOn <- func(w http.ResponseWriter) {
					w.Header().Set("Content-Type", "application/json")
					fmt.Fprintf(w, `{"usage":{"total_tokens":%d}}`, cost)
				}
			}
			used := func() int64 { return int64(service.Metric(t, quotaHits)) }
			if test.name != "quota alone" {
				used = func() int64 { return usedOf(t, service, "llm_budget", "user=alice") }
			}
			harness.Eventually(t, "all are charged", func() bool { return used() == test.used })
		})
	}
}

// quotaHits counts what was charged to the quota of the model small.
const quotaHits = `ratelimit_service_rate_limit_total_hits{domain="ai-gateway-quota",key1="backend_name_default/openai",key2="model_name_override_small"}`

// usedOf returns how many hits of a counter are used, or held, as far as its limit.
func usedOf(t *testing.T, s *harness.Service, domain, entries string) int64 {
	t.Helper()
	var answer struct {
		Counters []struct {
			RequestsPerUnit int64 `json:"requests_per_unit"`
			Remaining       int64
		}
	}
	path := "/admin/counters?domain=" + domain + "&descriptor=" + url.QueryEscape(entries)
	if err := json.Unmarshal([]byte(s.Get(t, s.Admin, path)), &answer); err != nil || len(answer.Counters) != 1 {
		t.Fatalf("%+v, %v", answer, err)
	}
	return answer.Counters[0].RequestsPerUnit - answer.Counters[0].Remaining
}

// newPlainPlane is newPlane without TLS, as AI Gateway's controller has it.
func newPlainPlane(t *testing.T) *plane {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return servePlane(t, listener)
}
