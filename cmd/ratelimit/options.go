package main

import (
	"fmt"
	"math"
	"strconv"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/keepalive"

	"github.com/distlimiter/ratelimit/internal/app"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/settings"
	"github.com/distlimiter/ratelimit/internal/stats/statsd"
	"github.com/distlimiter/ratelimit/internal/telemetry"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/xds"
)

// options returns what the flags, and the variables that no flag has, say.
func (c *serveCmd) options(getenv settings.Getenv) (o app.Options, err error) {
	o = app.Options{
		Version: buildVersion(),
		Rules:   c.ruleSources(),
		Limiter: c.limits(),
		Server:  c.answers(),
		Memory:  app.Memory{MaxKeys: c.MaxKeys, MaxBytes: c.MaxBytes, Snapshot: c.Snapshot},
		GRPC: app.GRPC{
			Addr: c.GRPCAddr, Socket: c.GRPCSocket, Keepalive: c.keepalive(), MaxMessageSize: c.MaxMessageSize,
			MaxConnections: c.MaxConnections, MaxStreams: c.MaxStreams, MaxHeaderBytes: c.MaxHeaderBytes, MaxWait: c.MaxWait,
		},
		HTTPAddr:   c.HTTPAddr,
		Admin:      app.Admin{Addr: c.AdminAddr, TokenFile: c.Admin.TokenFile, ReadOnly: c.Admin.ReadOnly, RulesFile: c.Admin.RulesFile},
		DrainDelay: c.DrainDelay, DrainTimeout: c.DrainTimeout,
		Traces: c.Traces, OTLPMetrics: c.TelemetryMetrics,
		GCIsTuned: settings.TunesGC(getenv),
		Log:       app.Log{Level: zapcore.Level(c.LogLevel), JSON: c.LogFormat == jsonLog},
		Names:     names,
	}
	if c.TLS {
		o.GRPC.TLS = &tlsfiles.Files{Cert: c.TLSCert, Key: c.TLSKey, CA: c.TLSCACert, Name: c.TLSName}
	}
	if c.Admin.TLSCert != "" {
		o.Admin.TLS = &tlsfiles.Files{Cert: c.Admin.TLSCert, Key: c.Admin.TLSKey, CA: c.Admin.TLSClientCA, Name: c.Admin.TLSName}
	}
	if o.Admin.OpenedBy, err = settings.OpenedBy(getenv, "ADMIN_ADDR", defaultAdminAddr, c.AdminAddr); err != nil {
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
	if err := settings.CompleteTelemetry(getenv, &o.Telemetry, o.Traces, o.OTLPMetrics); err != nil {
		return o, err
	}
	if o.Store, err = settings.ReadStore(c.withFlags(getenv)); err != nil {
		return o, err
	}
	if o.Store.Open != nil && c.Snapshot != "" {
		return o, fmt.Errorf("--snapshot is for counters in memory, and these are in %s, which keeps them over a restart: leave it out", o.Store.Name)
	}
	return o, nil
}

// withFlags is getenv as the flags change it.
func (c *serveCmd) withFlags(getenv settings.Getenv) settings.Getenv {
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

// ruleSources say where rules come from.
func (c *serveCmd) ruleSources() app.Rules {
	r := app.Rules{
		Grammar: c.grammar(), Paths: c.paths(), Files: c.files(),
		AllowNoRules: c.AllowNoRules, ReloadDelay: c.ReloadDelay, ForceStart: c.ForceStart, HealthyWithRules: c.HealthyWithRules,
	}
	r.Files.AnyName = r.Files.AnyName || len(c.Config) == 0 // as envoyproxy/ratelimit
	if c.ConfigType != fromXDS {
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

// limits say how to decide.
func (c *serveCmd) limits() limiter.Options {
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

// answers say how to answer.
func (c *serveCmd) answers() server.Options {
	o := server.Options{
		DynamicMetadata: c.DynamicMetadata,
		WhyMetadata:     c.WhyMetadata,
		Bounds:          server.Bounds{Descriptors: c.MaxDescriptors, Entries: c.MaxEntries, EntryBytes: c.MaxEntryBytes},
	}
	if c.ResponseHeaders {
		o.Headers = server.Headers{Limit: c.LimitHeader, Remaining: c.RemainingHeader, Reset: c.ResetHeader, RetryAfter: c.RetryAfterHeader, Rule: c.RuleHeader}
	}
	o.Headers.Draft = c.DraftHeaders
	return o
}

// keepalive says how long connections may live. Never is so long that it does not
// come, for grpc-go takes 0 for its default.
func (c *serveCmd) keepalive() keepalive.ServerParameters {
	interval := c.KeepaliveInterval
	if interval == 0 {
		interval = math.MaxInt64
	}
	return keepalive.ServerParameters{
		MaxConnectionAge: c.MaxConnectionAge, MaxConnectionAgeGrace: c.MaxConnectionAgeGrace,
		Time: interval, Timeout: c.KeepaliveTimeout,
	}
}

// counts say where counts are sent. Without a word of it they are not: most of those
// who run this service have no statsd server.
func (c *serveCmd) counts(getenv settings.Getenv) (app.Counts, error) {
	mogrifiers, err := settings.ReadMogrifiers(getenv, c.Mogrifiers)
	return app.Counts{Interval: c.FlushInterval, Sink: func(log *zap.Logger) (statsd.Sink, error) {
		switch {
		case c.DisableStats:
			return nil, nil
		case c.UseDogStatsd:
			return statsd.NewDogStatsD(c.StatsdHost, c.StatsdPort, c.ExtraTags, mogrifiers)
		case c.UseStatsd || settings.WantsStatsd(getenv):
			return statsd.NewStatsd(c.StatsdHost, c.StatsdPort, c.StatsdProtocol, c.ExtraTags, log), nil
		}
		return nil, nil
	}}, err
}

// setBy are the flags and variables that set the fields which messages name.
var setBy = map[string]struct{ flag, variable string }{
	"GRPC.Addr":          {"--grpc-addr", "GRPC_ADDR"},
	"GRPC.Socket":        {"--grpc-socket", "GRPC_UDS"},
	"GRPC.MaxWait":       {"--max-wait", "MAX_WAIT"},
	"HTTPAddr":           {"--http-addr", "HTTP_ADDR"},
	"Prometheus.Addr":    {"--prometheus-addr", "PROMETHEUS_ADDR"},
	"Admin.Addr":         {"--admin-addr", "ADMIN_ADDR"},
	"Admin.TokenFile":    {"--admin-token-file", "ADMIN_TOKEN_FILE"},
	"Admin.ReadOnly":     {"--admin-read-only", "ADMIN_READ_ONLY"},
	"Admin.RulesFile":    {"--admin-rules-file", "ADMIN_RULES_FILE"},
	"Admin.TLS":          {"--admin-tls-cert, --admin-tls-key and --admin-tls-client-ca", "ADMIN_TLS_CERT, ADMIN_TLS_KEY and ADMIN_TLS_CLIENT_CA"},
	"AllowNoRules":       {"--allow-no-rules", "ALLOW_NO_RULES"},
	"OnBackendError":     {"--on-backend-error", "ON_BACKEND_ERROR"},
	"Bounds.Descriptors": {"--max-descriptors", "MAX_DESCRIPTORS"},
	"Bounds.Entries":     {"--max-entries", "MAX_ENTRIES"},
	"Bounds.EntryBytes":  {"--max-entry-bytes", "MAX_ENTRY_BYTES"},
	"Memory.Snapshot":    {"--snapshot", "SNAPSHOT_FILE"},
	"DrainTimeout":       {"--drain-timeout", "DRAIN_TIMEOUT"},
	"MemoryLimit":        {"", "GOMEMLIMIT"}, // Go reads it by itself
}

// names implements named.Fields.
func names(field string) (flag, variable string) {
	by := setBy[field]
	return by.flag, by.variable
}
