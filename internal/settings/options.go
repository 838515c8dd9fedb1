package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/keepalive"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/app"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/named"
	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/server/wire"
	"github.com/distlimiter/ratelimit/internal/stats/statsd"
	"github.com/distlimiter/ratelimit/internal/telemetry"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/xds"
)

// The default addresses: where the service answers gRPC, and the admin address.
const (
	DefaultGRPCAddr  = "127.0.0.1:8081"
	DefaultAdminAddr = "127.0.0.1:6070"
)

// Defaults returns the defaults that are constants, by the names that the tags have for
// them.
func Defaults() map[string]string {
	return map[string]string{
		"grpcAddr":       DefaultGRPCAddr,
		"adminAddr":      DefaultAdminAddr,
		"statsdHost":     statsdHost,
		"runtimeRoot":    runtimeRoot,
		"maxKeys":        strconv.Itoa(memory.DefaultMaxKeys),
		"maxDescriptors": strconv.Itoa(wire.DefaultMaxDescriptors),
		"maxEntries":     strconv.Itoa(wire.DefaultMaxEntries),
		"maxEntryBytes":  strconv.Itoa(wire.DefaultMaxEntryBytes),
		"nearLimitRatio": fmt.Sprint(limiter.DefaultNearLimitRatio),
	}
}

// Options returns the options of the service in this version of the program, from the
// settings and from the variables without flags. names tells how an operator sets a field.
func (c *Service) Options(version string, getenv Getenv, names named.Fields) (o app.Options, err error) {
	if err := c.checkPaths(); err != nil {
		return o, err
	}
	o = app.Options{
		Version: version,
		Rules:   c.ruleSources(names),
		Limiter: c.limits(),
		Server:  c.answers(),
		Memory:  app.Memory{MaxKeys: c.MaxKeys, MaxBytes: c.MaxBytes, Snapshot: c.Snapshot},
		GRPC: app.GRPC{
			Addr: c.GRPCAddr, Socket: c.GRPCSocket, Lean: c.GRPCFront == "lean", MaxMessageSize: c.MaxMessageSize,
			Keepalive: keepalive.ServerParameters{
				MaxConnectionAge: c.MaxConnectionAge, MaxConnectionAgeGrace: c.MaxConnectionAgeGrace,
				Time: c.KeepaliveInterval, Timeout: c.KeepaliveTimeout,
			},
			MaxConnections: c.MaxConnections, MaxStreams: c.MaxStreams, MaxHeaderBytes: c.MaxHeaderBytes, MaxWait: c.MaxWait,
		},
		HTTPAddr:   c.HTTPAddr,
		Admin:      app.Admin{Addr: c.AdminAddr, TokenFile: c.Admin.TokenFile, ReadOnly: c.Admin.ReadOnly, RulesFile: c.Admin.RulesFile},
		DrainDelay: c.DrainDelay, DrainTimeout: c.DrainTimeout,
		Traces: c.Traces, OTLPMetrics: c.TelemetryMetrics,
		Warnings:  WithoutEffect(os.Environ()),
		GCIsTuned: TunesGC(getenv),
		Names:     names,
		Log:       app.Log{Level: zapcore.Level(c.LogLevel), JSON: c.LogFormat == JSONLog},
	}
	if c.TLS {
		o.GRPC.TLS = &tlsfiles.Files{Cert: c.TLSCert, Key: c.TLSKey, CA: c.TLSCACert, Name: c.TLSName}
	}
	if f := (tlsfiles.Files{Cert: c.Admin.TLSCert, Key: c.Admin.TLSKey, CA: c.Admin.TLSClientCA, Name: c.Admin.TLSName}); f != (tlsfiles.Files{}) {
		o.Admin.TLS = &f
	}
	if o.Admin.OpenedBy, err = OpenedBy(getenv, "ADMIN_ADDR", DefaultAdminAddr, c.AdminAddr); err != nil {
		return o, err
	}
	if c.UsePrometheus {
		o.Prometheus = app.Prometheus{Addr: c.PrometheusAddr, Path: c.PrometheusPath}
	}
	if o.Counts, err = c.counts(getenv); err != nil {
		return o, err
	}
	o.Telemetry = telemetry.Settings{
		ServiceName: c.TraceService, Namespace: c.TraceNamespace, InstanceID: c.TraceInstance, Version: o.Version,
		TraceProtocol: c.TraceProtocol, MetricProtocol: c.TraceProtocol, SamplingRate: c.TraceSampling,
	}
	if err := CompleteTelemetry(getenv, &o.Telemetry, o.Traces, o.OTLPMetrics); err != nil {
		return o, err
	}
	if c.RuleHeader != "" && !c.ResponseHeaders {
		return o, errors.New("--rule-header or LIMIT_RULE_HEADER names one of the headers that --response-headers or LIMIT_RESPONSE_HEADERS_ENABLED adds: set that too, or leave it out")
	}
	if o.Rules.Default, err = c.Default(names); err != nil {
		return o, err
	}
	if c.QuotaMode && o.Rules.Default.Algorithm != algo.FixedWindow {
		o.Rules.Default = config.Default{}
		o.Warnings = append(o.Warnings, fmt.Sprintf("%s has no effect together with %s, by which every rule is a quota: name the algorithm in rules, or in an adjust file", names.Either("DefaultAlgorithm"), names.Either("QuotaMode")))
	}
	o.Store, err = ReadStore(c.withFlags(getenv))
	return o, err
}

// withFlags returns getenv with the values of flags in place of their variables.
func (c *Service) withFlags(getenv Getenv) Getenv {
	flags := map[string]string{
		"BACKEND_TYPE": string(c.Backend), "REDIS_URL": c.RedisURL,
		"REDIS_PERSECOND": strconv.FormatBool(c.RedisPerSecond), "REPLICAS": strconv.Itoa(c.Replicas),
	}
	return func(name string) string {
		if value, ok := flags[name]; ok {
			return value
		}
		return getenv(name)
	}
}

// paths returns the paths of the files and directories with rules.
func (c *Service) paths() []string {
	if len(c.Config) > 0 || c.ConfigType == FromXDS {
		return c.Config
	}
	return []string{filepath.Join(c.RuntimeRoot, c.RuntimeSubdirectory, c.RuntimeAppdirectory)}
}

// checkPaths returns an error if no path is configured and the default one does not exist.
func (c *Service) checkPaths() error {
	if len(c.Config) > 0 || c.ConfigType == FromXDS || c.ForceStart || c.RuntimeRoot != runtimeRoot {
		return nil
	}
	if _, err := os.Stat(c.paths()[0]); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--config: say where the rules are: a YAML file, or a directory of them (or, as for envoyproxy/ratelimit, set RUNTIME_ROOT: its default %s does not exist)", c.paths()[0])
	}
	return nil
}

// ruleSources returns the sources of rules.
func (c *Service) ruleSources(names named.Fields) app.Rules {
	r := app.Rules{
		Grammar: c.Grammar(names), Paths: c.paths(), Files: c.FileOptions(),
		AllowNoRules: c.AllowNoRules, ReloadDelay: c.ReloadDelay, ForceStart: c.ForceStart, HealthyWithRules: c.HealthyWithRules,
	}
	r.Files.AnyName = r.Files.AnyName || len(c.Config) == 0 // as envoyproxy/ratelimit
	if c.ConfigType != FromXDS {
		return r
	}
	vary := 0.0
	if c.XDS.BackoffJitter {
		vary = min(c.XDS.BackoffFactor, 1)
	}
	r.XDS = &xds.Options{
		Server: c.XDS.Server, NodeID: c.XDS.NodeID, NodeMetadata: c.XDS.NodeMetadata, Headers: c.XDS.Headers,
		MaxMessageBytes: c.XDS.MaxMessageBytes, ConnectRetry: c.XDS.ConnectRetry,
		Backoff: xds.Backoff{Initial: c.XDS.BackoffInitial, Max: c.XDS.BackoffMax, Jitter: vary},
	}
	if c.XDS.TLS {
		r.XDSTLS = &tlsfiles.Files{Cert: c.XDS.TLSCert, Key: c.XDS.TLSKey, CA: c.XDS.TLSCACert, Name: c.XDS.TLSName}
	}
	return r
}

// limits returns the options of deciding.
func (c *Service) limits() limiter.Options {
	return limiter.Options{
		ShadowMode:       c.ShadowMode,
		QuotaMode:        c.QuotaMode,
		DropRefused:      c.DropDenied,
		NearLimitRatio:   c.NearLimitRatio,
		OverridesByValue: c.OverridesByValue,
		Replicas:         c.Replicas,
		OnBackendError:   config.BackendErrorMode(c.OnBackendError),
	}
}

// answers returns the options of answering.
func (c *Service) answers() server.Options {
	o := server.Options{
		DynamicMetadata: c.DynamicMetadata,
		WhyMetadata:     c.WhyMetadata,
		Bounds:          wire.Bounds{Descriptors: c.MaxDescriptors, Entries: c.MaxEntries, EntryBytes: c.MaxEntryBytes},
	}
	if c.ResponseHeaders {
		o.Headers = server.Headers{Limit: c.LimitHeader, Remaining: c.RemainingHeader, Reset: c.ResetHeader, RetryAfter: c.RetryAfterHeader, Rule: c.RuleHeader}
	}
	o.Headers.Draft = c.DraftHeaders
	return o
}

// counts returns where to send counts. By default they are not sent, because most
// operators have no statsd server.
func (c *Service) counts(getenv Getenv) (app.Counts, error) {
	if c.UseStatsd && c.UseDogStatsd {
		return app.Counts{}, errors.New("--use-statsd and --use-dog-statsd: choose one")
	}
	if sends := !c.DisableStats && (c.UseDogStatsd || c.UseStatsd || WantsStatsd(getenv, c.StatsdHost)); sends && (c.StatsdPort < 1 || c.StatsdPort > math.MaxUint16) {
		return app.Counts{}, fmt.Errorf("--statsd-port or STATSD_PORT: %d: use 1 to %d", c.StatsdPort, math.MaxUint16)
	}
	mogrifiers, err := ReadMogrifiers(getenv, c.Mogrifiers)
	return app.Counts{Interval: c.FlushInterval, Sink: func(log *zap.Logger) (statsd.Sink, error) {
		switch {
		case c.DisableStats:
			return nil, nil
		case c.UseDogStatsd:
			return statsd.NewDogStatsD(c.StatsdHost, c.StatsdPort, c.ExtraTags, mogrifiers)
		case c.UseStatsd || WantsStatsd(getenv, c.StatsdHost):
			return statsd.NewStatsd(c.StatsdHost, c.StatsdPort, c.StatsdProtocol, c.ExtraTags, log), nil
		}
		return nil, nil
	}}, err
}
