//go:build linux

package container

import (
	"testing"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// TestIstioSample starts the image as Istio's samples/ratelimit starts that of
// envoyproxy/ratelimit: with these variables, a ConfigMap below RUNTIME_ROOT, and hosts
// that are all addresses of both families.
func TestIstioSample(t *testing.T) {
	harness.Start(t, "redis", harness.Tool(t, "redis-server"), "--bind", "127.0.0.1", "--port", "6379", "--save", "", "--dir", t.TempDir())
	rules := shared(t)
	updateConfigMap(t, rules, map[string]string{
		"config.yaml": "domain: ratelimit\ndescriptors: [{key: PATH, value: /productpage, rate_limit: {unit: year, requests_per_unit: 1}}]\n",
	})
	readImage(t).start(t, container{
		command: []string{"/bin/ratelimit"},
		env: map[string]string{
			"LOG_LEVEL": "debug", "REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": "redis:6379", "USE_STATSD": "false",
			"RUNTIME_ROOT": "/data", "RUNTIME_SUBDIRECTORY": "ratelimit", "RUNTIME_WATCH_ROOT": "false", "RUNTIME_IGNOREDOTFILES": "true",
			"HOST": "::", "GRPC_HOST": "::",
			"REDIS_TIMEOUT": "10s", // a busy machine may need longer than is right in production
		},
		mounts: map[string]string{"/data/ratelimit/config": rules},
		hosts:  []string{"redis"},
	})
	healthy(t, 8080)
	service := harness.ServiceAt(t, 8081)
	for _, want := range []rls.RateLimitResponse_Code{rls.RateLimitResponse_OK, rls.RateLimitResponse_OVER_LIMIT} {
		if got := service.Ask(t, harness.Request("ratelimit", 1, "PATH", "/productpage")).OverallCode; got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}
