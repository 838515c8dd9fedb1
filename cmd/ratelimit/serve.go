package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/distlimiter/ratelimit/internal/app"
)

// serveCmd holds the settings of the service. Where envoyproxy/ratelimit has a
// variable for the same thing, the flag takes it.
type serveCmd struct {
	Config []string `group:"rules" short:"c" placeholder:"PATH" env:"CONFIG_PATH" help:"Rules: a YAML file, or a directory of them. Repeat it, or separate paths by commas."`
	ruleOptions
	runtimeOptions
	ReloadDelay time.Duration `group:"rules" default:"100ms" env:"RELOAD_DELAY" help:"How long files must be quiet before they are read again."`

	AllowNoRules bool `group:"rules" negatable:"" env:"ALLOW_NO_RULES" help:"Let rule files that change leave no rule at all. Otherwise that is a mistake, and the old rules stay."`

	XDS xdsOptions `embed:"" prefix:"xds-"`

	GRPCAddr   string `group:"listen" name:"grpc-addr" default:"${grpcAddr}" env:"GRPC_ADDR" help:"gRPC for Envoy. Also as $$GRPC_HOST and $$GRPC_PORT."`
	GRPCSocket string `group:"listen" name:"grpc-socket" placeholder:"PATH" env:"GRPC_UDS" help:"Unix socket for gRPC instead of an address."`
	HTTPAddr   string `group:"listen" name:"http-addr" default:"127.0.0.1:8080" env:"HTTP_ADDR" help:"HTTP with /json and /healthcheck. Also as $$HOST and $$PORT."`
	AdminAddr  string `group:"listen" default:"${adminAddr}" env:"ADMIN_ADDR" help:"HTTP with /admin/, /metrics, /stats, /rlconfig and /debug/pprof/. Also as $$DEBUG_HOST and $$DEBUG_PORT."`

	Admin adminOptions `embed:"" prefix:"admin-"`

	TLS       bool   `group:"tls" name:"tls" negatable:"" env:"GRPC_SERVER_USE_TLS" help:"Answer gRPC by TLS. Files are read again when they change."`
	TLSCert   string `group:"tls" name:"tls-cert" placeholder:"FILE" env:"GRPC_SERVER_TLS_CERT" help:"This server's certificate."`
	TLSKey    string `group:"tls" name:"tls-key" placeholder:"FILE" env:"GRPC_SERVER_TLS_KEY" help:"Its key."`
	TLSCACert string `group:"tls" name:"tls-client-ca-cert" placeholder:"FILE" env:"GRPC_CLIENT_TLS_CACERT" help:"Ask clients for certificates that these authorities have signed."`
	TLSName   string `group:"tls" name:"tls-client-name" placeholder:"NAME" env:"GRPC_CLIENT_TLS_SAN" help:"Name (DNS, IP address or URI) that a client's certificate must hold."`

	ShadowMode      bool         `group:"decisions" negatable:"" env:"SHADOW_MODE" help:"Decide and count, but answer OK."`
	QuotaMode       bool         `group:"decisions" negatable:"" env:"QUOTA_MODE" help:"Treat every descriptor as one with quota_mode."`
	OnBackendError  backendError `group:"decisions" default:"error" env:"ON_BACKEND_ERROR" help:"What to answer when the store fails, for rules that do not say: error, allow, deny or local (error: Envoy's failure_mode_deny decides)."`
	NearLimitRatio  float64      `group:"decisions" default:"${nearLimitRatio}" env:"NEAR_LIMIT_RATIO" help:"Part of a limit above which hits count as near it."`
	DynamicMetadata bool         `group:"decisions" negatable:"" env:"RESPONSE_DYNAMIC_METADATA" help:"Add the domain, the descriptors and the rules' metadata to each answer."`
	WhyMetadata     bool         `group:"decisions" negatable:"" env:"RESPONSE_WHY_METADATA" help:"Say in an answer's dynamic metadata what a request is over: descriptor, rule, limit, what is left and when to come back."`

	ResponseHeaders  bool   `group:"headers" negatable:"" env:"LIMIT_RESPONSE_HEADERS_ENABLED" help:"Add the headers below to each answer that reports a limit."`
	LimitHeader      string `group:"headers" default:"RateLimit-Limit" env:"LIMIT_LIMIT_HEADER" help:"Requests per unit."`
	RemainingHeader  string `group:"headers" default:"RateLimit-Remaining" env:"LIMIT_REMAINING_HEADER" help:"Requests left."`
	ResetHeader      string `group:"headers" default:"RateLimit-Reset" env:"LIMIT_RESET_HEADER" help:"Seconds until the limit is whole again."`
	RetryAfterHeader string `group:"headers" default:"Retry-After" env:"LIMIT_RETRY_AFTER_HEADER" help:"Seconds until the request would pass, on refusals."`
	RuleHeader       string `group:"headers" placeholder:"NAME" env:"LIMIT_RULE_HEADER" help:"The rule that decided, as explain prints it. Without a name no answer has it: clients see how you write your rules."`
	DraftHeaders     bool   `group:"headers" negatable:"" env:"LIMIT_DRAFT_HEADERS_ENABLED" help:"Add RateLimit-Policy and RateLimit as in the IETF's draft (draft-ietf-httpapi-ratelimit-headers-10)."`

	OverridesByValue bool `group:"stats" name:"overrides-by-value" negatable:"" env:"OVERRIDES_BY_VALUE" help:"Count calls under limits that requests bring by the values of their descriptors, as envoyproxy/ratelimit does, rather than under their rule."`

	Backend        backendKind `group:"store" placeholder:"KIND" env:"BACKEND_TYPE" help:"Where counters live: memory or redis. Without, redis if any REDIS_ variable says where, else memory."`
	RedisURL       string      `group:"store" name:"redis-url" placeholder:"URL" env:"REDIS_URL" help:"Redis: redis://, rediss:// or unix://, or host:port. docs/migrating.md lists the other REDIS_ variables."`
	RedisPerSecond bool        `group:"store" name:"redis-per-second" negatable:"" env:"REDIS_PERSECOND" help:"Keep counters of limits per second in a Redis of their own, given by REDIS_PERSECOND_ variables."`
	Replicas       int         `group:"store" default:"1" env:"REPLICAS" help:"How many replicas of this service there are: each takes this part of the limits while on_backend_error: local decides."`
	MaxKeys        int         `group:"store" default:"${maxKeys}" env:"MAX_KEYS" help:"Most counters in memory: beyond it those that limit least are forgotten."`
	MaxBytes       int64       `group:"store" name:"max-counter-bytes" placeholder:"BYTES" env:"MAX_COUNTER_BYTES" help:"Most bytes of counters in memory, at least 1048576: beyond it those that limit least are forgotten. Without, half of the memory limit at the start, or of the machine's memory."`
	Snapshot       string      `group:"store" placeholder:"FILE" env:"SNAPSHOT_FILE" help:"Keep the counters in memory over a restart: saved here on a graceful stop, read at the start."`

	MaxDescriptors int `group:"bounds" default:"${maxDescriptors}" env:"MAX_DESCRIPTORS" help:"Most descriptors in a request."`
	MaxEntries     int `group:"bounds" default:"${maxEntries}" env:"MAX_ENTRIES" help:"Most entries in a descriptor."`
	MaxEntryBytes  int `group:"bounds" default:"${maxEntryBytes}" env:"MAX_ENTRY_BYTES" help:"Most bytes of keys and values in a descriptor."`
	MaxMessageSize int `group:"bounds" default:"1048576" env:"MAX_MESSAGE_SIZE" help:"Most bytes of a gRPC request."`
	overloadOptions

	MaxConnectionAge      time.Duration `group:"connections" default:"24h" env:"GRPC_MAX_CONNECTION_AGE" help:"After which a gRPC connection is asked to close."`
	MaxConnectionAgeGrace time.Duration `group:"connections" default:"1h" env:"GRPC_MAX_CONNECTION_AGE_GRACE" help:"How long it may then finish its requests."`
	KeepaliveInterval     time.Duration `group:"connections" default:"30s" env:"GRPC_KEEPALIVE_INTERVAL" help:"How long a gRPC connection may be silent before its client is asked for a sign of life; at least 1s. 0: never."`
	KeepaliveTimeout      time.Duration `group:"connections" default:"10s" env:"GRPC_KEEPALIVE_TIMEOUT" help:"How long to wait for that sign. Without it the connection is closed, and counts no more in --max-connections."`
	DrainDelay            time.Duration `group:"connections" default:"0s" env:"DRAIN_DELAY" help:"How long to go on serving after SIGTERM with health checks failing, so that load balancers notice."`
	DrainTimeout          time.Duration `group:"connections" default:"10s" env:"DRAIN_TIMEOUT" help:"How long requests under way, and after them the last counts and spans, may then take. A second signal stops at once."`

	statsOptions
	telemetryOptions

	LogLevel  logLevel  `group:"log" default:"info" env:"LOG_LEVEL" help:"Least level to log: debug, info, warn or error."`
	LogFormat logFormat `group:"log" default:"text" env:"LOG_FORMAT" help:"text or json."`

	opts app.Options // made by Validate
}

// Validate refuses what no part of the service could work with.
func (c *serveCmd) Validate() (err error) {
	if err := errors.Join(c.checkPaths(), c.checkFiles()); err != nil {
		return err
	}
	if err := errors.Join(c.XDS.check(), c.statsOptions.check(), c.telemetryOptions.check()); err != nil {
		return err
	}
	if c.opts, err = c.options(os.Getenv); err != nil {
		return err
	}
	if err := c.checkHeaders(); err != nil {
		return err
	}
	if !(c.NearLimitRatio > 0 && c.NearLimitRatio <= 1) {
		return fmt.Errorf("--near-limit-ratio: %v: use a number above 0, at most 1", c.NearLimitRatio)
	}
	for _, bound := range []struct {
		flag string
		n    int
	}{
		{"max-keys", c.MaxKeys}, {"replicas", c.Replicas}, {"max-descriptors", c.MaxDescriptors}, {"max-entries", c.MaxEntries},
		{"max-entry-bytes", c.MaxEntryBytes}, {"max-message-size", c.MaxMessageSize},
		{"max-connections", c.MaxConnections}, {"max-streams", int(c.MaxStreams)}, {"max-header-bytes", int(c.MaxHeaderBytes)},
	} {
		if bound.n < 1 {
			return fmt.Errorf("--%s: %d: use at least 1", bound.flag, bound.n)
		}
	}
	if c.MaxBytes != 0 && c.MaxBytes < app.LeastCounterBytes {
		return fmt.Errorf("--max-counter-bytes: %d: use at least %d, or leave it out for half of the memory limit", c.MaxBytes, app.LeastCounterBytes)
	}
	for _, wait := range []struct {
		flag string
		d    time.Duration
	}{
		{"reload-delay", c.ReloadDelay}, {"drain-delay", c.DrainDelay}, {"drain-timeout", c.DrainTimeout}, {"max-wait", c.MaxWait},
		{"max-connection-age", c.MaxConnectionAge}, {"max-connection-age-grace", c.MaxConnectionAgeGrace},
		{"keepalive-interval", c.KeepaliveInterval},
	} {
		if wait.d < 0 {
			return fmt.Errorf("--%s: %v: use a time of at least 0", wait.flag, wait.d)
		}
	}
	if c.KeepaliveInterval != 0 && c.KeepaliveInterval < time.Second {
		return fmt.Errorf("--keepalive-interval: %v: use at least 1s, or 0 for never", c.KeepaliveInterval)
	}
	if c.KeepaliveTimeout <= 0 {
		return fmt.Errorf("--keepalive-timeout: %v: use a time above 0", c.KeepaliveTimeout)
	}
	return nil
}

// checkHeaders refuses names that no header can have. Without headers they do not
// matter, as with envoyproxy/ratelimit.
func (c *serveCmd) checkHeaders() error {
	if !c.ResponseHeaders {
		return nil
	}
	for _, h := range []struct{ flag, env, name string }{
		{"limit-header", "LIMIT_LIMIT_HEADER", c.LimitHeader},
		{"remaining-header", "LIMIT_REMAINING_HEADER", c.RemainingHeader},
		{"reset-header", "LIMIT_RESET_HEADER", c.ResetHeader},
		{"rule-header", "LIMIT_RULE_HEADER", c.RuleHeader},
		{"retry-after-header", "LIMIT_RETRY_AFTER_HEADER", c.RetryAfterHeader},
	} {
		if h.name != "" && !httpguts.ValidHeaderFieldName(h.name) {
			return fmt.Errorf("--%s ($%s): %q is not the name of a header: write letters, digits and -, such as x-ratelimit-limit", h.flag, h.env, h.name)
		}
	}
	return nil
}

// checkFiles refuses one file for two things that are kept.
func (c *serveCmd) checkFiles() error {
	if c.Snapshot == "" || c.Admin.RulesFile == "" {
		return nil
	}
	snapshot, err := filepath.Abs(c.Snapshot)
	rules, err2 := filepath.Abs(c.Admin.RulesFile)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if snapshot == rules {
		return fmt.Errorf("--snapshot and --admin-rules-file name the same file, %s: name two", c.Snapshot)
	}
	return nil
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
