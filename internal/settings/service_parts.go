package settings

import (
	"time"

	"github.com/distlimiter/ratelimit/internal/telemetry"
)

// runtimeRoot is where envoyproxy/ratelimit looks for rules by default.
const runtimeRoot = "/srv/runtime_data/current"

// runtimeOptions are the settings of the sources of rules that envoyproxy/ratelimit has.
type runtimeOptions struct {
	ConfigType          ConfigType `group:"rules" default:"file" env:"CONFIG_TYPE" help:"Source of the rules: file, or grpc_xds_sotw for an xDS server, in addition to the files of --config if there are any."`
	RuntimeRoot         string     `group:"rules" default:"${runtimeRoot}" env:"RUNTIME_ROOT" help:"Without --config, the rules are all files in RUNTIME_ROOT/RUNTIME_SUBDIRECTORY/RUNTIME_APPDIRECTORY, whatever their names, as for envoyproxy/ratelimit."`
	RuntimeSubdirectory string     `group:"rules" placeholder:"DIR" env:"RUNTIME_SUBDIRECTORY" help:"See --runtime-root."`
	RuntimeAppdirectory string     `group:"rules" default:"config" env:"RUNTIME_APPDIRECTORY" help:"See --runtime-root."`
	ForceStart          bool       `group:"rules" negatable:"" env:"FORCE_START_WITHOUT_INITIAL_CONFIG" help:"Serve, and be healthy, before there are valid rules. Until then requests are answered with an error."`
	HealthyWithRules    bool       `group:"rules" negatable:"" env:"HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED" help:"Be healthy only while the rules have at least one domain."`
}

// xdsOptions are the settings of the xDS server and of the connection to it.
type xdsOptions struct {
	Server          string        `group:"xds" needs:"config-type=grpc_xds_sotw" default:"localhost:18000" env:"CONFIG_GRPC_XDS_SERVER_URL" help:"gRPC target of the xDS server."`
	NodeID          string        `group:"xds" needs:"config-type=grpc_xds_sotw" default:"default" env:"CONFIG_GRPC_XDS_NODE_ID" help:"Node ID of this service at the xDS server."`
	NodeMetadata    EqualPairs    `group:"xds" needs:"config-type=grpc_xds_sotw" placeholder:"KEY=VALUE,..." env:"CONFIG_GRPC_XDS_NODE_METADATA" help:"Node metadata of this service."`
	Headers         ColonPairs    `group:"xds" needs:"config-type=grpc_xds_sotw" placeholder:"NAME:VALUE,..." env:"CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS" help:"Headers to send with the stream."`
	ConnectRetry    time.Duration `group:"xds" needs:"config-type=grpc_xds_sotw" field:"XDS.ConnectRetry" default:"3s" env:"CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL" help:"First wait before reconnecting after a failed connection."`
	BackoffInitial  time.Duration `group:"xds" needs:"config-type=grpc_xds_sotw" field:"Backoff.Initial" default:"10s" env:"XDS_CLIENT_BACKOFF_INITIAL_INTERVAL" help:"First wait before reconnecting after a stream has ended."`
	BackoffMax      time.Duration `group:"xds" needs:"config-type=grpc_xds_sotw" field:"Backoff.Max" default:"60s" env:"XDS_CLIENT_BACKOFF_MAX_INTERVAL" help:"Longest of these waits."`
	BackoffFactor   float64       `group:"xds" needs:"config-type=grpc_xds_sotw" field:"Backoff.Jitter" default:"0.5" env:"XDS_CLIENT_BACKOFF_RANDOM_FACTOR" help:"Fraction by which waits vary."`
	BackoffJitter   bool          `group:"xds" needs:"config-type=grpc_xds_sotw" default:"true" negatable:"" env:"XDS_CLIENT_BACKOFF_JITTER" help:"Vary the waits at random."`
	MaxMessageBytes int           `group:"xds" needs:"config-type=grpc_xds_sotw" field:"XDS.MaxMessageBytes" placeholder:"BYTES" env:"XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES" help:"Maximum bytes of a response. The default is 4 MiB."`
	TLS             bool          `group:"xds" needs:"config-type=grpc_xds_sotw" name:"tls" negatable:"" env:"CONFIG_GRPC_XDS_SERVER_USE_TLS" help:"Connect to the xDS server over TLS. Certificates and keys are read again when their files change."`
	TLSCert         string        `group:"xds" needs:"xds-tls" name:"tls-cert" placeholder:"FILE" env:"CONFIG_GRPC_XDS_CLIENT_TLS_CERT" help:"Certificate of this client."`
	TLSKey          string        `group:"xds" needs:"xds-tls" name:"tls-key" placeholder:"FILE" env:"CONFIG_GRPC_XDS_CLIENT_TLS_KEY" help:"Key of the certificate."`
	TLSCACert       string        `group:"xds" needs:"xds-tls" name:"tls-ca-cert" placeholder:"FILE" env:"CONFIG_GRPC_XDS_SERVER_TLS_CACERT" help:"Authorities that sign the server's certificate. The default is those of the system."`
	TLSName         string        `group:"xds" needs:"xds-tls" name:"tls-name" placeholder:"NAME" env:"CONFIG_GRPC_XDS_SERVER_TLS_SAN" help:"Name in the server's certificate. The default is that of its address."`
}

// adminOptions are the settings of the access to the admin address, and of the file that
// keeps its rules.
type adminOptions struct {
	RulesFile   string `group:"admin" field:"Admin.RulesFile" placeholder:"FILE" env:"ADMIN_RULES_FILE" help:"File that keeps rules of the admin API over restarts. With counters in Redis the rules are kept there, and the file is a copy for a start without Redis."`
	TokenFile   string `group:"admin" field:"Admin.TokenFile" placeholder:"FILE" env:"ADMIN_TOKEN_FILE" help:"File with the bearer token that requests must carry. It is read for every request, so the token can be replaced."`
	TLSCert     string `group:"admin" field:"Admin.TLS" name:"tls-cert" placeholder:"FILE" env:"ADMIN_TLS_CERT" help:"Serve HTTPS with this certificate. Certificates and keys are read again when their files change."`
	TLSKey      string `group:"admin" field:"Admin.TLS" name:"tls-key" placeholder:"FILE" env:"ADMIN_TLS_KEY" help:"Key of the certificate."`
	ReadOnly    bool   `group:"admin" field:"Admin.ReadOnly" negatable:"" env:"ADMIN_READ_ONLY" help:"Refuse all changes at the admin address. Others may then reach it: they see rules, counts and profiles, but no values that clients send."`
	TLSClientCA string `group:"admin" field:"Admin.TLS Admin.TLS.CA" name:"tls-client-ca" placeholder:"FILE" env:"ADMIN_TLS_CLIENT_CA" help:"Accept only connections with a client certificate that these authorities have signed."`
	TLSName     string `group:"admin" field:"Admin.TLS.Name" name:"tls-client-name" placeholder:"NAME" env:"ADMIN_TLS_CLIENT_NAME" help:"Name (DNS, IP address or URI) that a client's certificate must contain."`
}

// overloadOptions bound the load that clients of gRPC may put on the service.
type overloadOptions struct {
	MaxWait        time.Duration `group:"bounds" field:"GRPC.MaxWait" default:"5ms" env:"MAX_WAIT" help:"How long work may wait for a processor on average before some gRPC requests are refused with ResourceExhausted. 0: refuse none."`
	MaxConnections int           `group:"bounds" field:"GRPC.MaxConnections" default:"10000" env:"MAX_CONNECTIONS" help:"Maximum number of gRPC connections. Further ones are closed at once."`
	MaxStreams     uint32        `group:"bounds" field:"GRPC.MaxStreams" default:"1024" env:"MAX_STREAMS" help:"Maximum number of gRPC requests in flight on one connection. Clients hold back further ones."`
	MaxHeaderBytes uint32        `group:"bounds" field:"GRPC.MaxHeaderBytes" default:"65536" env:"MAX_HEADER_BYTES" help:"Maximum bytes of the headers of a gRPC request."`
}

// statsOptions are the settings of sending counts, and of another address that shows them
// besides the admin address.
type statsOptions struct {
	UseStatsd      bool          `group:"stats" name:"use-statsd" negatable:"" env:"USE_STATSD" help:"Send counts to a statsd server."`
	UseDogStatsd   bool          `group:"stats" name:"use-dog-statsd" negatable:"" env:"USE_DOG_STATSD" help:"Send counts to a DogStatsD server instead."`
	Mogrifiers     []string      `group:"stats" needs:"use-dog-statsd" name:"dog-statsd-mogrifiers" placeholder:"NAME,..." env:"USE_DOG_STATSD_MOGRIFIERS" help:"Turn parts of names into tags, as DOG_STATSD_MOGRIFIER_NAME_PATTERN, _NAME and _TAGS define."`
	StatsdHost     string        `group:"stats" default:"${statsdHost}" env:"STATSD_HOST" help:"Host of the server. Given without --use-statsd, it turns that on."`
	StatsdPort     int           `group:"stats" needs:"use-statsd|use-dog-statsd|statsd-host" default:"8125" env:"STATSD_PORT" help:"Port of the server."`
	StatsdProtocol string        `group:"stats" needs:"use-statsd|use-dog-statsd|statsd-host" enum:"tcp,udp" default:"tcp" env:"STATSD_PROTOCOL" help:"${enum}; DogStatsD always uses udp."`
	ExtraTags      ColonPairs    `group:"stats" needs:"use-statsd|use-dog-statsd|statsd-host" placeholder:"NAME:VALUE,..." env:"EXTRA_TAGS" help:"Tags to add to all counts."`
	FlushInterval  time.Duration `group:"stats" needs:"use-statsd|use-dog-statsd|statsd-host" field:"Counts.Interval" name:"stats-flush-interval" default:"10s" env:"STATS_FLUSH_INTERVAL" help:"How often counts are sent."`
	DisableStats   bool          `group:"stats" negatable:"" env:"DISABLE_STATS" help:"Send nothing, whatever else is set."`
	UsePrometheus  bool          `group:"stats" negatable:"" env:"USE_PROMETHEUS" help:"Serve /metrics at a separate address too."`
	PrometheusAddr string        `group:"stats" needs:"use-prometheus" field:"Prometheus.Addr" default:":9090" env:"PROMETHEUS_ADDR" help:"Address of the separate /metrics."`
	PrometheusPath string        `group:"stats" needs:"use-prometheus" field:"Prometheus.Path" default:"/metrics" env:"PROMETHEUS_PATH" help:"Path of the separate /metrics."`
}

// telemetryOptions turn sending of traces and metrics by OTLP on and off. OpenTelemetry's
// own variables say where and how to send.
type telemetryOptions struct {
	Traces           bool               `group:"telemetry" name:"tracing" negatable:"" env:"TRACING_ENABLED" help:"Send traces by OTLP to OTEL_EXPORTER_OTLP_ENDPOINT."`
	TraceService     string             `group:"telemetry" needs:"tracing|otlp-metrics" name:"tracing-service-name" placeholder:"NAME" env:"TRACING_SERVICE_NAME" help:"Name of this service. The default is OTEL_SERVICE_NAME, or else RateLimit."`
	TraceNamespace   string             `group:"telemetry" needs:"tracing|otlp-metrics" name:"tracing-service-namespace" placeholder:"NAME" env:"TRACING_SERVICE_NAMESPACE" help:"Namespace of this service."`
	TraceInstance    string             `group:"telemetry" needs:"tracing|otlp-metrics" name:"tracing-service-instance-id" placeholder:"ID" env:"TRACING_SERVICE_INSTANCE_ID" help:"ID of this replica. The default is a random one at each start."`
	TraceProtocol    telemetry.Protocol `group:"telemetry" needs:"tracing|otlp-metrics" name:"tracing-exporter-protocol" placeholder:"PROTOCOL" env:"TRACING_EXPORTER_PROTOCOL" help:"Protocol of OTLP: http or grpc. The default is OTEL_EXPORTER_OTLP_PROTOCOL, or else http."`
	TraceSampling    float64            `group:"telemetry" needs:"tracing" field:"Telemetry.SamplingRate" name:"tracing-sampling-rate" default:"1" env:"TRACING_SAMPLING_RATE" help:"Fraction of the traces that begin here to record, from 0 to 1. Of other traces, those are recorded that their senders record."`
	TelemetryMetrics bool               `group:"telemetry" name:"otlp-metrics" negatable:"" env:"OTLP_METRICS_ENABLED" help:"Send the metrics of /metrics by OTLP too, every OTEL_METRIC_EXPORT_INTERVAL milliseconds (60000)."`
}
