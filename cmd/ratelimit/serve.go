package main

import (
	"errors"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/app"
	"github.com/distlimiter/ratelimit/internal/settings"
)

// serveCmd holds the settings of the service. If envoyproxy/ratelimit has a variable for
// the same setting, the flag reads that variable.
type serveCmd struct {
	Config []string `group:"rules" short:"c" placeholder:"PATH" env:"CONFIG_PATH" help:"Rules: a YAML file, or a directory of them. Repeat it, or separate paths by commas."`
	ruleOptions
	runtimeOptions
	ReloadDelay time.Duration `group:"rules" field:"Rules.ReloadDelay" default:"100ms" env:"RELOAD_DELAY" help:"How long files must be quiet before they are read again."`

	AllowNoRules bool `group:"rules" field:"AllowNoRules" negatable:"" env:"ALLOW_NO_RULES" help:"Let rule files that change leave no rule at all. Otherwise that is a mistake, and the old rules stay."`

	XDS xdsOptions `embed:"" prefix:"xds-"`

	GRPCAddr   string `group:"listen" field:"GRPC.Addr" name:"grpc-addr" default:"${grpcAddr}" env:"GRPC_ADDR" help:"gRPC for Envoy. Also as $$GRPC_HOST and $$GRPC_PORT."`
	GRPCSocket string `group:"listen" field:"GRPC.Socket" name:"grpc-socket" placeholder:"PATH" env:"GRPC_UDS" help:"Unix socket for gRPC instead of an address."`
	GRPCFront  string `group:"listen" name:"grpc-front" enum:"grpc-go,lean" default:"grpc-go" env:"GRPC_FRONT" help:"What reads and answers gRPC calls: grpc-go, or lean, which costs less processor time and leaves rare calls to grpc-go."`
	HTTPAddr   string `group:"listen" field:"HTTPAddr" name:"http-addr" default:"127.0.0.1:8080" env:"HTTP_ADDR" help:"HTTP with /json and /healthcheck. Also as $$HOST and $$PORT."`
	AdminAddr  string `group:"listen" field:"Admin.Addr" default:"${adminAddr}" env:"ADMIN_ADDR" help:"HTTP with /admin/, /metrics, /stats, /rlconfig and /debug/pprof/. Also as $$DEBUG_HOST and $$DEBUG_PORT."`

	Admin adminOptions `embed:"" prefix:"admin-"`

	TLS       bool   `group:"tls" name:"tls" negatable:"" env:"GRPC_SERVER_USE_TLS" help:"Answer gRPC by TLS. Files are read again when they change."`
	TLSCert   string `group:"tls" name:"tls-cert" placeholder:"FILE" env:"GRPC_SERVER_TLS_CERT" help:"This server's certificate."`
	TLSKey    string `group:"tls" name:"tls-key" placeholder:"FILE" env:"GRPC_SERVER_TLS_KEY" help:"Its key."`
	TLSCACert string `group:"tls" name:"tls-client-ca-cert" placeholder:"FILE" env:"GRPC_CLIENT_TLS_CACERT" help:"Ask clients for certificates that these authorities have signed."`
	TLSName   string `group:"tls" name:"tls-client-name" placeholder:"NAME" env:"GRPC_CLIENT_TLS_SAN" help:"Name (DNS, IP address or URI) that a client's certificate must hold."`

	ShadowMode      bool                  `group:"decisions" negatable:"" env:"SHADOW_MODE" help:"Decide and count, but answer OK."`
	QuotaMode       bool                  `group:"decisions" field:"QuotaMode" negatable:"" env:"QUOTA_MODE" help:"Treat every descriptor as one with quota_mode."`
	OnBackendError  settings.BackendError `group:"decisions" field:"OnBackendError" default:"error" env:"ON_BACKEND_ERROR" help:"What to answer when the store fails, for rules that do not say: error, allow, deny or local (error: Envoy's failure_mode_deny decides)."`
	NearLimitRatio  float64               `group:"decisions" field:"Limiter.NearLimitRatio" default:"${nearLimitRatio}" env:"NEAR_LIMIT_RATIO" help:"Part of a limit above which hits count as near it."`
	DynamicMetadata bool                  `group:"decisions" negatable:"" env:"RESPONSE_DYNAMIC_METADATA" help:"Add the domain, the descriptors and the rules' metadata to each answer."`
	WhyMetadata     bool                  `group:"decisions" negatable:"" env:"RESPONSE_WHY_METADATA" help:"Say in an answer's dynamic metadata what a request is over: descriptor, rule, limit, what is left and when to come back."`

	ResponseHeaders  bool   `group:"headers" negatable:"" env:"LIMIT_RESPONSE_HEADERS_ENABLED" help:"Add the headers below to each answer that reports a limit."`
	LimitHeader      string `group:"headers" field:"Headers.Limit" default:"RateLimit-Limit" env:"LIMIT_LIMIT_HEADER" help:"Requests per unit."`
	RemainingHeader  string `group:"headers" field:"Headers.Remaining" default:"RateLimit-Remaining" env:"LIMIT_REMAINING_HEADER" help:"Requests left."`
	ResetHeader      string `group:"headers" field:"Headers.Reset" default:"RateLimit-Reset" env:"LIMIT_RESET_HEADER" help:"Seconds until the limit is whole again."`
	RetryAfterHeader string `group:"headers" field:"Headers.RetryAfter" default:"Retry-After" env:"LIMIT_RETRY_AFTER_HEADER" help:"Seconds until the request would pass, on refusals."`
	RuleHeader       string `group:"headers" field:"Headers.Rule" placeholder:"NAME" env:"LIMIT_RULE_HEADER" help:"The rule that decided, as explain prints it. Without a name no answer has it: clients see how you write your rules."`
	DraftHeaders     bool   `group:"headers" negatable:"" env:"LIMIT_DRAFT_HEADERS_ENABLED" help:"Add RateLimit-Policy and RateLimit as in the IETF's draft (draft-ietf-httpapi-ratelimit-headers-10)."`

	OverridesByValue bool `group:"stats" name:"overrides-by-value" negatable:"" env:"OVERRIDES_BY_VALUE" help:"Count calls under limits that requests bring by the values of their descriptors, as envoyproxy/ratelimit does, rather than under their rule."`

	Backend        settings.BackendKind `group:"store" placeholder:"KIND" env:"BACKEND_TYPE" help:"Where counters live: memory or redis. Without, redis if any REDIS_ variable says where, else memory."`
	RedisURL       string               `group:"store" name:"redis-url" placeholder:"URL" env:"REDIS_URL" help:"Redis: redis://, rediss:// or unix://, or host:port. docs/migrating.md lists the other REDIS_ variables."`
	RedisPerSecond bool                 `group:"store" name:"redis-per-second" negatable:"" env:"REDIS_PERSECOND" help:"Keep counters of limits per second in a Redis of their own, given by REDIS_PERSECOND_ variables."`
	Replicas       int                  `group:"store" field:"Limiter.Replicas" default:"1" env:"REPLICAS" help:"How many replicas of this service there are: each takes this part of the limits while on_backend_error: local decides."`
	MaxKeys        int                  `group:"store" field:"Memory.MaxKeys" default:"${maxKeys}" env:"MAX_KEYS" help:"Most counters in memory: beyond it those that limit least are forgotten."`
	MaxBytes       int64                `group:"store" field:"Memory.MaxBytes" name:"max-counter-bytes" placeholder:"BYTES" env:"MAX_COUNTER_BYTES" help:"Most bytes of counters in memory, at least 1048576: beyond it those that limit least are forgotten. Without, half of the memory limit at the start, or of the machine's memory."`
	Snapshot       string               `group:"store" field:"Memory.Snapshot" placeholder:"FILE" env:"SNAPSHOT_FILE" help:"Keep the counters in memory over a restart: saved here on a graceful stop, read at the start."`

	MaxDescriptors int `group:"bounds" field:"Bounds.Descriptors" default:"${maxDescriptors}" env:"MAX_DESCRIPTORS" help:"Most descriptors in a request."`
	MaxEntries     int `group:"bounds" field:"Bounds.Entries" default:"${maxEntries}" env:"MAX_ENTRIES" help:"Most entries in a descriptor."`
	MaxEntryBytes  int `group:"bounds" field:"Bounds.EntryBytes" default:"${maxEntryBytes}" env:"MAX_ENTRY_BYTES" help:"Most bytes of keys and values in a descriptor."`
	MaxMessageSize int `group:"bounds" field:"GRPC.MaxMessageSize" default:"1048576" env:"MAX_MESSAGE_SIZE" help:"Most bytes of a gRPC request."`
	overloadOptions

	MaxConnectionAge      time.Duration `group:"connections" field:"Keepalive.MaxConnectionAge" default:"24h" env:"GRPC_MAX_CONNECTION_AGE" help:"After which a gRPC connection is asked to close."`
	MaxConnectionAgeGrace time.Duration `group:"connections" field:"Keepalive.MaxConnectionAgeGrace" default:"1h" env:"GRPC_MAX_CONNECTION_AGE_GRACE" help:"How long it may then finish its requests."`
	KeepaliveInterval     time.Duration `group:"connections" field:"Keepalive.Time" default:"30s" env:"GRPC_KEEPALIVE_INTERVAL" help:"How long a gRPC connection may be silent before its client is asked for a sign of life; at least 1s. 0: never."`
	KeepaliveTimeout      time.Duration `group:"connections" field:"Keepalive.Timeout" default:"10s" env:"GRPC_KEEPALIVE_TIMEOUT" help:"How long to wait for that sign. Without it the connection is closed, and counts no more in --max-connections."`
	DrainDelay            time.Duration `group:"connections" field:"DrainDelay" default:"0s" env:"DRAIN_DELAY" help:"How long to go on serving after SIGTERM with health checks failing, so that load balancers notice."`
	DrainTimeout          time.Duration `group:"connections" field:"DrainTimeout" default:"10s" env:"DRAIN_TIMEOUT" help:"How long requests under way, and after them the last counts and spans, may then take. A second signal stops at once."`

	statsOptions
	telemetryOptions

	LogLevel  settings.LogLevel  `group:"log" default:"info" env:"LOG_LEVEL" help:"Least level to log: debug, info, warn or error."`
	LogFormat settings.LogFormat `group:"log" default:"text" env:"LOG_FORMAT" help:"text or json."`

	opts app.Options // made by Validate
}

// Validate refuses values that the service cannot work with.
func (c *serveCmd) Validate(command *kong.Context) (err error) {
	if err := c.checkPaths(); err != nil {
		return err
	}
	if c.opts, err = c.options(os.Getenv, names(command.Selected())); err != nil {
		return err
	}
	return c.opts.Check()
}

// Run serves until a signal or a failure ends it.
func (c *serveCmd) Run(con console) error {
	o := c.opts
	o.Log.To = con.err
	o.Started = func(s app.Started) { welcome(con.out, s, o.Log.JSON) }
	err := app.Run(o)
	if errors.Is(err, app.ErrLogged) {
		return errReported
	}
	return err
}
