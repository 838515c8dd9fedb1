package app

import (
	"io"
	"net"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/keepalive"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/named"
	"github.com/distlimiter/ratelimit/internal/server"
	"github.com/distlimiter/ratelimit/internal/stats/statsd"
	"github.com/distlimiter/ratelimit/internal/telemetry"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/xds"
)

// Options are the settings of the service, complete: nothing here has a default.
type Options struct {
	// Version of this build.
	Version string
	Rules   Rules
	// Limiter says how to decide, Server how to answer. The service fills in the
	// statistics, stores and logs.
	Limiter limiter.Options
	Server  server.Options
	// Store is where counters live.
	Store  Store
	Memory Memory

	GRPC     GRPC
	HTTPAddr string // of /json and /healthcheck
	Admin    Admin

	// DrainDelay is how long to go on serving after the signal to stop. DrainTimeout is
	// how long requests under way, and after them the last counts and spans, may take.
	DrainDelay, DrainTimeout time.Duration

	Counts     Counts
	Prometheus Prometheus
	// Telemetry is for traces and metrics by OTLP.
	Telemetry           telemetry.Settings
	Traces, OTLPMetrics bool

	// Warnings name settings that have no effect, and say why.
	Warnings []string

	// GCIsTuned leaves the garbage collector as the operator has set it.
	GCIsTuned bool

	Log Log
	// Names say how an operator sets these options.
	Names named.Fields
	// Started is called when the service is ready to answer.
	Started func(Started)
}

// Rules say where rules come from.
type Rules struct {
	Grammar rulefile.Options
	// Default is the algorithm of limits for which none is written.
	Default config.Default
	// Paths of files and directories, which are read as Files says.
	Paths []string
	Files reload.FileOptions
	// XDS is a server that provides rules, too; nil for none. The service fills in its
	// Credentials, from XDSTLS (nil for none), and its Log.
	XDS    *xds.Options
	XDSTLS *tlsfiles.Files

	AllowNoRules     bool          // a change of files may leave none
	ReloadDelay      time.Duration // how long files must be quiet
	ForceStart       bool          // serve, and be healthy, before there are any
	HealthyWithRules bool          // be healthy only with a domain
}

// Memory bounds the counters in memory.
type Memory struct {
	MaxKeys  int
	MaxBytes int64 // 0: half of the memory limit, or of the machine's memory
	// Snapshot keeps them over a restart. Empty: they are lost.
	Snapshot string
}

// GRPC is how Envoy is answered.
type GRPC struct {
	Addr   string
	Socket string          // instead of Addr, a path; empty for none
	TLS    *tlsfiles.Files // nil for none
	// Keepalive says how long connections may live. Unlike in grpc-go, a Time of 0
	// turns pings off.
	Keepalive keepalive.ServerParameters

	// Lean puts the lean front before grpc-go.
	Lean bool

	MaxMessageSize int
	MaxConnections int
	MaxStreams     uint32
	MaxHeaderBytes uint32
	// MaxWait is how long work may wait for a processor before requests are refused.
	// 0: no request is.
	MaxWait time.Duration
}

// Admin is the address for operators.
type Admin struct {
	Addr string
	// OpenedBy is the variable that would close the address, if a default opened it to
	// others without being asked. The address is then read-only unless a setting says
	// who may change rules. It is empty if the operator chose the address.
	OpenedBy  string
	TokenFile string
	ReadOnly  bool
	RulesFile string          // keeps rules that come from the admin API
	TLS       *tlsfiles.Files // nil for none
}

// Counts are sent to a statsd server.
type Counts struct {
	// Sink opens the connection to the server; nil for none. The log is for the
	// messages of a library.
	Sink     func(log *zap.Logger) (statsd.Sink, error)
	Interval time.Duration
}

// Prometheus is an address of its own for metrics. An empty Addr is none.
type Prometheus struct{ Addr, Path string }

// Log is where and how the service logs.
type Log struct {
	To    io.Writer
	Level zapcore.Level
	JSON  bool
}

// Started describes a service that is ready to answer.
type Started struct {
	GRPC, HTTP, Admin net.Addr
	TLS               bool          // of GRPC
	Rules             *config.Rules // nil: none yet
	Matcher           *descriptor.Matcher
	Log               *zap.Logger
}
