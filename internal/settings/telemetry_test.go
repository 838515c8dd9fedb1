package settings_test

import (
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/settings"
	"github.com/distlimiter/ratelimit/internal/telemetry"
	"github.com/distlimiter/ratelimit/internal/tlsfiles/tlstest"
)

// TestCompleteTelemetry has every variable name itself when it can't be used.
func TestCompleteTelemetry(t *testing.T) {
	authority := tlstest.NewAuthority(t)
	cert, key := authority.Issue("client", "client", time.Hour)
	const (
		none = 0
		tr   = 1 << iota
		me
	)
	for _, tt := range []struct {
		on         int
		settings   telemetry.Settings
		name, text string
		want       string // "": good
	}{
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", ""},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "write http://host:port"},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318", "write http://host:port"},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://", "write http://host:port"},
		{me, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://", ""}, // not in use
		{me, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://", "write http://host:port"},
		{none, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318", ""},
		{tr, telemetry.Settings{TraceProtocol: telemetry.GRPC}, "OTEL_EXPORTER_OTLP_ENDPOINT", "dns:///collector:4317", ""},
		{tr, telemetry.Settings{TraceProtocol: telemetry.GRPC}, "OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4317", "write http://host:port"},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", ""},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_PROTOCOL", "thrift", "write http or grpc"},
		{me, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "thrift", "write http or grpc"},
		{tr, telemetry.Settings{TraceProtocol: telemetry.HTTP}, "OTEL_EXPORTER_OTLP_PROTOCOL", "thrift", ""}, // not in use
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_INSECURE", "yes", "write true or false"},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "in milliseconds"},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "write gzip or none"},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%2Cb,team=x", ""},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_HEADERS", "api-key=ok,secret", "part 2 is not a pair"},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_HEADERS", "api-key=%zz", "part 1 is not a pair"},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_CERTIFICATE", authority.File, ""},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_CERTIFICATE", authority.File + ".none", "no such file"},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_CERTIFICATE", key, "no certificate"},
		{tr, telemetry.Settings{}, "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", cert, "belong together"},
		{tr, telemetry.Settings{}, "OTEL_BSP_MAX_QUEUE_SIZE", "0", "above 0"},
		{me, telemetry.Settings{}, "OTEL_METRIC_EXPORT_INTERVAL", "1m", "in milliseconds"},
		{tr, telemetry.Settings{}, "OTEL_RESOURCE_ATTRIBUTES", "zone", "part 1 is not a pair"},
		{tr, telemetry.Settings{}, "OTEL_PROPAGATORS", "b3,tracecontext", ""},
		{tr, telemetry.Settings{}, "OTEL_PROPAGATORS", "b4", "write tracecontext"},
	} {
		getenv := func(name string) string {
			if name == tt.name {
				return tt.text
			}
			return ""
		}
		err := settings.CompleteTelemetry(getenv, &tt.settings, tt.on&tr != 0, tt.on&me != 0)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s=%s: %v", tt.name, tt.text, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.name) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s=%s: error %v, want %q", tt.name, tt.text, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats what may be a password: %v", err)
		}
	}
}
