package settings

import "time"

// Service holds what an operator can set about the service: each field is a setting, with
// the flag and the variable that set it. If envoyproxy/ratelimit has a variable for the same
// setting, the flag reads that variable. The tag "field" names the fields of app.Options
// that the setting becomes; messages about those fields name the setting. The tag "needs"
// names what switches the setting on: see commandline.WithoutEffect.
type Service struct {
	Config []string `group:"rules" short:"c" placeholder:"PATH" env:"CONFIG_PATH" help:"YAML file with rules, or a directory of them. Repeat the flag, or separate paths by commas."`
	RuleOptions
	runtimeOptions
	ReloadDelay time.Duration `group:"rules" field:"Rules.ReloadDelay" default:"100ms" env:"RELOAD_DELAY" help:"How long files must stay unchanged before they are read again."`

	AllowNoRules bool `group:"rules" field:"AllowNoRules" negatable:"" env:"ALLOW_NO_RULES" help:"Accept a change of the rule files that leaves no rules. By default that is an error, and the old rules stay."`

	XDS xdsOptions `embed:"" prefix:"xds-"`

	GRPCAddr   string `group:"listen" field:"GRPC.Addr" name:"grpc-addr" default:"${grpcAddr}" env:"GRPC_ADDR" help:"Address of gRPC, for Envoy. $$GRPC_HOST and $$GRPC_PORT set it too."`
	GRPCSocket string `group:"listen" field:"GRPC.Socket" name:"grpc-socket" placeholder:"PATH" env:"GRPC_UDS" help:"Unix socket of gRPC, instead of an address."`
	GRPCFront  string `group:"listen" name:"grpc-front" enum:"grpc-go,lean" default:"grpc-go" env:"GRPC_FRONT" help:"What reads and answers gRPC calls: grpc-go or lean. lean takes less processor time, and leaves rare kinds of calls to grpc-go."`
	HTTPAddr   string `group:"listen" field:"HTTPAddr" name:"http-addr" default:"127.0.0.1:8080" env:"HTTP_ADDR" help:"Address of HTTP: /json and /healthcheck. $$HOST and $$PORT set it too."`
	AdminAddr  string `group:"listen" field:"Admin.Addr" default:"${adminAddr}" env:"ADMIN_ADDR" help:"Address of HTTP for operators: /admin/, /metrics, /stats, /rlconfig and /debug/pprof/. $$DEBUG_HOST and $$DEBUG_PORT set it too."`

	Admin adminOptions `embed:"" prefix:"admin-"`

	TLS       bool   `group:"tls" name:"tls" negatable:"" env:"GRPC_SERVER_USE_TLS" help:"Serve gRPC over TLS. Certificates and keys are read again when their files change."`
	TLSCert   string `group:"tls" needs:"tls" field:"GRPC.TLS" name:"tls-cert" placeholder:"FILE" env:"GRPC_SERVER_TLS_CERT" help:"Certificate of this server."`
	TLSKey    string `group:"tls" needs:"tls" field:"GRPC.TLS" name:"tls-key" placeholder:"FILE" env:"GRPC_SERVER_TLS_KEY" help:"Key of the certificate."`
	TLSCACert string `group:"tls" needs:"tls" name:"tls-client-ca-cert" placeholder:"FILE" env:"GRPC_CLIENT_TLS_CACERT" help:"Require client certificates that these authorities have signed."`
	TLSName   string `group:"tls" needs:"tls" name:"tls-client-name" placeholder:"NAME" env:"GRPC_CLIENT_TLS_SAN" help:"Name (DNS, IP address or URI) that a client's certificate must contain."`

	ShadowMode      bool         `group:"decisions" negatable:"" env:"SHADOW_MODE" help:"Decide and count all requests, but answer OK."`
	QuotaMode       bool         `group:"decisions" field:"QuotaMode" negatable:"" env:"QUOTA_MODE" help:"Treat every descriptor as if its rule had quota_mode."`
	OnBackendError  BackendError `group:"decisions" field:"OnBackendError" default:"error" env:"ON_BACKEND_ERROR" help:"What to answer when the store fails, for rules without on_backend_error: error (Envoy's failure_mode_deny decides), allow, deny or local."`
	NearLimitRatio  float64      `group:"decisions" field:"Limiter.NearLimitRatio" default:"${nearLimitRatio}" env:"NEAR_LIMIT_RATIO" help:"Fraction of a limit above which hits are counted as near the limit."`
	DynamicMetadata bool         `group:"decisions" negatable:"" env:"RESPONSE_DYNAMIC_METADATA" help:"Add the domain, the descriptors and the metadata of rules to each answer, as dynamic metadata."`
	WhyMetadata     bool         `group:"decisions" negatable:"" env:"RESPONSE_WHY_METADATA" help:"Add to the dynamic metadata why a request is over limit: descriptor, rule, limit, remaining hits and when to retry."`

	ResponseHeaders  bool   `group:"headers" negatable:"" env:"LIMIT_RESPONSE_HEADERS_ENABLED" help:"Add the headers below to each answer that reports a limit."`
	LimitHeader      string `group:"headers" needs:"response-headers" field:"Headers.Limit" default:"RateLimit-Limit" env:"LIMIT_LIMIT_HEADER" help:"Name of the header with the requests per unit."`
	RemainingHeader  string `group:"headers" needs:"response-headers" field:"Headers.Remaining" default:"RateLimit-Remaining" env:"LIMIT_REMAINING_HEADER" help:"Name of the header with the requests left."`
	ResetHeader      string `group:"headers" needs:"response-headers" field:"Headers.Reset" default:"RateLimit-Reset" env:"LIMIT_RESET_HEADER" help:"Name of the header with the seconds until the whole limit is available again."`
	RetryAfterHeader string `group:"headers" needs:"response-headers" field:"Headers.RetryAfter" default:"Retry-After" env:"LIMIT_RETRY_AFTER_HEADER" help:"Name of the header with the seconds until a refused request would pass."`
	RuleHeader       string `group:"headers" field:"Headers.Rule" placeholder:"NAME" env:"LIMIT_RULE_HEADER" help:"Name of a header with the rule that decided, as explain prints it. There is none by default, because it shows clients your rules."`
	DraftHeaders     bool   `group:"headers" negatable:"" env:"LIMIT_DRAFT_HEADERS_ENABLED" help:"Add the headers RateLimit-Policy and RateLimit of the IETF draft (draft-ietf-httpapi-ratelimit-headers-10)."`

	OverridesByValue bool `group:"stats" name:"overrides-by-value" negatable:"" env:"OVERRIDES_BY_VALUE" help:"Count calls under limits that requests bring by the values of their descriptors, as envoyproxy/ratelimit does, instead of by their rule."`

	Backend        BackendKind `group:"store" placeholder:"KIND" env:"BACKEND_TYPE" help:"Where counters are stored: memory or redis. The default is redis if a REDIS_ variable gives its address, otherwise memory."`
	RedisURL       string      `group:"store" name:"redis-url" placeholder:"URL" env:"REDIS_URL" help:"Address of Redis: redis://, rediss:// or unix://, or host:port. docs/migrating.md lists the other REDIS_ variables."`
	RedisPerSecond bool        `group:"store" name:"redis-per-second" negatable:"" env:"REDIS_PERSECOND" help:"Store the counters of per-second limits in a second Redis, which the REDIS_PERSECOND_ variables describe."`
	Replicas       int         `group:"store" field:"Limiter.Replicas" default:"1" env:"REPLICAS" help:"Number of replicas of this service. While on_backend_error: local decides, each enforces its share of the limits."`
	MaxKeys        int         `group:"store" field:"Memory.MaxKeys" default:"${maxKeys}" env:"MAX_KEYS" help:"Maximum number of counters in memory. Beyond it, the counters that limit least are forgotten."`
	MaxBytes       int64       `group:"store" field:"Memory.MaxBytes" name:"max-counter-bytes" placeholder:"BYTES" env:"MAX_COUNTER_BYTES" help:"Maximum bytes of counters in memory, at least 1048576. Beyond it, the counters that limit least are forgotten. The default is half of the memory limit at the start, or of the machine's memory."`
	Snapshot       string      `group:"store" field:"Memory.Snapshot" placeholder:"FILE" env:"SNAPSHOT_FILE" help:"File that keeps the counters in memory over a restart: written on a graceful stop, read at the start."`

	MaxDescriptors int `group:"bounds" field:"Bounds.Descriptors" default:"${maxDescriptors}" env:"MAX_DESCRIPTORS" help:"Maximum number of descriptors in a request."`
	MaxEntries     int `group:"bounds" field:"Bounds.Entries" default:"${maxEntries}" env:"MAX_ENTRIES" help:"Maximum number of entries in a descriptor."`
	MaxEntryBytes  int `group:"bounds" field:"Bounds.EntryBytes" default:"${maxEntryBytes}" env:"MAX_ENTRY_BYTES" help:"Maximum bytes of the keys and values of a descriptor."`
	MaxMessageSize int `group:"bounds" field:"GRPC.MaxMessageSize" default:"4194304" env:"MAX_MESSAGE_SIZE" help:"Maximum bytes of a gRPC request."`
	overloadOptions

	MaxConnectionAge      time.Duration `group:"connections" field:"Keepalive.MaxConnectionAge" default:"24h" env:"GRPC_MAX_CONNECTION_AGE" help:"Age at which a gRPC connection is asked to close."`
	MaxConnectionAgeGrace time.Duration `group:"connections" field:"Keepalive.MaxConnectionAgeGrace" default:"1h" env:"GRPC_MAX_CONNECTION_AGE_GRACE" help:"How long its requests may then take to finish."`
	KeepaliveInterval     time.Duration `group:"connections" field:"Keepalive.Time" default:"30s" env:"GRPC_KEEPALIVE_INTERVAL" help:"How long a gRPC connection may be silent before the service pings its client; at least 1s. 0: never."`
	KeepaliveTimeout      time.Duration `group:"connections" field:"Keepalive.Timeout" default:"10s" env:"GRPC_KEEPALIVE_TIMEOUT" help:"How long to wait for the answer to a ping. Without one the connection is closed, and no longer counts towards --max-connections."`
	DrainDelay            time.Duration `group:"connections" field:"DrainDelay" default:"0s" env:"DRAIN_DELAY" help:"How long to go on serving after SIGTERM while health checks fail, so that load balancers notice."`
	DrainTimeout          time.Duration `group:"connections" field:"DrainTimeout" default:"10s" env:"DRAIN_TIMEOUT" help:"How long the remaining requests, and after them the last counts and spans, may then take. A second signal stops the service at once."`

	statsOptions
	telemetryOptions

	LogLevel  LogLevel  `group:"log" default:"info" env:"LOG_LEVEL" help:"Lowest level to log: debug, info, warn or error."`
	LogFormat LogFormat `group:"log" default:"text" env:"LOG_FORMAT" help:"Format of the log: text or json."`
}
