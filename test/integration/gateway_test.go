package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/tlsfiles/tlstest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// gatewaySends returns the resources that Envoy Gateway sends, by the names of its tests.
func gatewaySends(t *testing.T) map[string][]types.Resource {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "envoy-gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string][]types.Resource{}
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var record struct {
			From      string
			Resources []map[string]any
		}
		if err := decoder.Decode(&record); errors.Is(err, io.EOF) {
			return sent
		} else if err != nil {
			t.Fatal(err)
		}
		for _, r := range record.Resources {
			asJSON, err := json.Marshal(r)
			config := &ratelimit.RateLimitConfig{}
			if err == nil {
				err = protojson.Unmarshal(asJSON, config)
			}
			if err != nil {
				t.Fatalf("%s: %v", record.From, err)
			}
			sent[record.From] = append(sent[record.From], config)
		}
	}
}

// TestSmoothLimitsForEnvoyGateway gives all limits of BackendTrafficPolicies another
// algorithm by variables, and some of them one of their own by a file.
func TestSmoothLimitsForEnvoyGateway(t *testing.T) {
	t.Parallel()
	authority := tlstest.NewAuthority(t)
	planeCert, planeKey := authority.Issue("envoy-gateway", "envoy-gateway", time.Hour)
	cert, key := authority.Issue("envoy-rate-limit", "127.0.0.1", time.Hour)
	control := newPlane(t, tlsfiles.Files{Cert: planeCert, Key: planeKey, CA: authority.File})
	adjust := filepath.Join(t.TempDir(), "adjust.yaml")
	if err := os.WriteFile(adjust, []byte("adjust:\n  - rules: {path: first-route*masked_remote_address*}\n    set: {algorithm: leaky_bucket, on_backend_error: local}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	service := harness.StartBare(t, patiently(
		"CONFIG_TYPE=GRPC_XDS_SOTW",
		"CONFIG_GRPC_XDS_SERVER_URL="+control.addr,
		"CONFIG_GRPC_XDS_NODE_ID="+gatewayNode,
		"CONFIG_GRPC_XDS_SERVER_USE_TLS=true",
		"CONFIG_GRPC_XDS_CLIENT_TLS_CERT="+cert,
		"CONFIG_GRPC_XDS_CLIENT_TLS_KEY="+key,
		"CONFIG_GRPC_XDS_SERVER_TLS_CACERT="+authority.File,
		"CONFIG_GRPC_XDS_SERVER_TLS_SAN=envoy-gateway",
		"FORCE_START_WITHOUT_INITIAL_CONFIG=true",
		"REDIS_SOCKET_TYPE=tcp",
		"REDIS_URL="+redistest.Start(t, redistest.Config{}).Addr,
		"CONFIG_PATH="+adjust,
		"DEFAULT_ALGORITHM=token_bucket",
		"DEFAULT_BURST=20%",
	)...)
	harness.Eventually(t, "the service answers before there are rules", func() bool {
		answer, err := http.Get("http://" + service.HTTP + "/healthcheck")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	sent := gatewaySends(t)
	for _, tt := range []struct {
		from string
		want []string // of /rlconfig
	}{
		{"month-year-rule", []string{
			"first-listener.first-route_first-route.rule-0-match-0_rule-0-match-0: unit=MONTH requests_per_unit=5, shadow_mode: false, quota_mode: false",
			"first-listener.second-route_second-route.rule-0-match-0_rule-0-match-0: unit=YEAR requests_per_unit=1, shadow_mode: false, quota_mode: false",
		}},
		{"global-shadow-mode", []string{
			"first-listener.first-route_first-route.rule-0-match-0_rule-0-match-0.rule-0-match-1_rule-0-match-1.rule-0-match-2_rule-0-match-2.masked_remote_address_0.0.0.0/0: unit=SECOND requests_per_unit=5, shadow_mode: true, quota_mode: false, " +
				"algorithm: leaky_bucket, burst: 1 (20%), denied_hits: count, on_backend_error: local, adjusted_by: --default-algorithm or DEFAULT_ALGORITHM, adjusted_by: " + adjust + ":2:5",
		}},
		{"distinct-match", []string{
			"first-listener.first-route_first-route.rule-0-match-0: unit=SECOND requests_per_unit=5, shadow_mode: false, quota_mode: false, algorithm: token_bucket, burst: 1 (20%), denied_hits: count, adjusted_by: --default-algorithm or DEFAULT_ALGORITHM",
		}},
		{"multiple-masked-remote-address-match-with-same-cidr", []string{
			"first-listener.first-route_first-route.masked_remote_address_192.168.0.10/32: unit=HOUR requests_per_unit=15, shadow_mode: false, quota_mode: false, " +
				"algorithm: leaky_bucket, burst: 3 (20%), denied_hits: count, on_backend_error: local, adjusted_by: --default-algorithm or DEFAULT_ALGORITHM, adjusted_by: " + adjust + ":2:5",
			"first-listener.second-route_second-route.masked_remote_address_192.168.0.10/32: unit=HOUR requests_per_unit=300, shadow_mode: false, quota_mode: false, " +
				"algorithm: token_bucket, burst: 60 (20%), denied_hits: count, adjusted_by: --default-algorithm or DEFAULT_ALGORITHM",
		}},
	} {
		resources := sent[tt.from]
		if resources == nil {
			t.Fatalf("there is no record of %s", tt.from)
		}
		snapshot, err := cache.NewSnapshot(tt.from, map[resource.Type][]types.Resource{resource.RateLimitConfigType: resources})
		if err == nil {
			err = control.cache.SetSnapshot(t.Context(), gatewayNode, snapshot)
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		harness.Eventually(t, "the limits of "+tt.from+" are in force", func() bool {
			got = strings.Split(strings.TrimSpace(service.Get(t, service.Admin, "/rlconfig")), "\n")
			start, _, _ := strings.Cut(tt.want[0], ", shadow_mode")
			return strings.HasPrefix(got[0], start)
		})
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: /rlconfig is\n%s\nwant\n%s", tt.from, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
	// Costs that come after the fact are still charged: 60 at once, and 50 more afterwards,
	// which a bucket that drops what it denies would have forgotten.
	ask := func(hits uint64) rls.RateLimitResponse_Code {
		return service.Ask(t, harness.Request("first-listener", hits, "second-route", "second-route", "masked_remote_address", "192.168.0.10/32")).OverallCode
	}
	const ok, over = rls.RateLimitResponse_OK, rls.RateLimitResponse_OVER_LIMIT
	if got := []rls.RateLimitResponse_Code{ask(60), ask(50)}; !slices.Equal(got, []rls.RateLimitResponse_Code{ok, over}) {
		t.Errorf("60 and then 50 of a burst of 60: %v", got)
	}
	answer := service.Ask(t, harness.Request("first-listener", 1, "second-route", "second-route", "masked_remote_address", "192.168.0.10/32"))
	if wait := answer.Statuses[0].DurationUntilReset.AsDuration(); answer.OverallCode != over || wait < 9*time.Minute || wait > 11*time.Minute {
		t.Errorf("then %v for %v, want over limit until 51 hits have leaked at 300 an hour", answer.OverallCode, wait)
	}
}
