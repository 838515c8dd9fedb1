package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/keepalive"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/app"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/named"
	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/settings"
	"github.com/distlimiter/ratelimit/internal/stats/statsd"
	"github.com/distlimiter/ratelimit/internal/telemetry"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/xds"
)

// options returns the service's options from the flags and from the variables without
// flags.
func (c *serveCmd) options(getenv settings.Getenv, names named.Fields) (o app.Options, err error) {
	o = app.Options{
		Version: buildVersion(),
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
		Warnings:  settings.WithoutEffect(os.Environ()),
		GCIsTuned: settings.TunesGC(getenv),
		Names:     names,
		Log:       app.Log{Level: zapcore.Level(c.LogLevel), JSON: c.LogFormat == settings.JSONLog},
	}
	if c.TLS {
		o.GRPC.TLS = &tlsfiles.Files{Cert: c.TLSCert, Key: c.TLSKey, CA: c.TLSCACert, Name: c.TLSName}
	}
	if f := (tlsfiles.Files{Cert: c.Admin.TLSCert, Key: c.Admin.TLSKey, CA: c.Admin.TLSClientCA, Name: c.Admin.TLSName}); f != (tlsfiles.Files{}) {
		o.Admin.TLS = &f
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
	if c.RuleHeader != "" && !c.ResponseHeaders {
		return o, errors.New("--rule-header or LIMIT_RULE_HEADER names one of the headers that --response-headers or LIMIT_RESPONSE_HEADERS_ENABLED adds: set that too, or leave it out")
	}
	if o.Rules.Default, err = c.defaults(names); err != nil {
		return o, err
	}
	if c.QuotaMode && o.Rules.Default.Algorithm != algo.FixedWindow {
		o.Rules.Default = config.Default{}
		o.Warnings = append(o.Warnings, fmt.Sprintf("%s has no effect together with %s, by which every rule is a quota: name the algorithm in rules, or in an adjust file", names.Either("DefaultAlgorithm"), names.Either("QuotaMode")))
	}
	o.Store, err = settings.ReadStore(c.withFlags(getenv))
	return o, err
}

// withFlags returns getenv with the values of flags in place of their variables.
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

// ruleSources returns the sources of rules.
func (c *serveCmd) ruleSources(names named.Fields) app.Rules {
	r := app.Rules{
		Grammar: c.grammar(names), Paths: c.paths(), Files: c.files(),
		AllowNoRules: c.AllowNoRules, ReloadDelay: c.ReloadDelay, ForceStart: c.ForceStart, HealthyWithRules: c.HealthyWithRules,
	}
	r.Files.AnyName = r.Files.AnyName || len(c.Config) == 0 // as envoyproxy/ratelimit
	if c.ConfigType != settings.FromXDS {
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

// answers returns the options of answering.
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

// counts returns where to send counts. By default they are not sent, because most
// operators have no statsd server.
func (c *serveCmd) counts(getenv settings.Getenv) (app.Counts, error) {
	if c.UseStatsd && c.UseDogStatsd {
		return app.Counts{}, errors.New("--use-statsd and --use-dog-statsd: choose one")
	}
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

// names returns the settings of the fields of options that messages name: the flags that
// are tagged with them, and their variables.
func names(serve *kong.Node) named.Fields {
	type way struct{ flags, variables []string }
	ways := map[string]way{"MemoryLimit": {variables: []string{"GOMEMLIMIT"}}} // Go reads it by itself
	for _, flag := range serve.Flags {
		for field := range strings.FieldsSeq(flag.Tag.Get("field")) {
			w := ways[field]
			ways[field] = way{append(w.flags, "--"+flag.Name), append(w.variables, flag.Envs...)}
		}
	}
	return func(field string) (flag, variable string) {
		w := ways[field]
		return listed(w.flags), listed(w.variables)
	}
}

// listed returns "a", "a and b" or "a, b and c".
func listed(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
