package app

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zapgrpc"
	"google.golang.org/grpc/grpclog"

	"github.com/distlimiter/ratelimit/internal/sparing"
	"github.com/distlimiter/ratelimit/internal/visible"
)

// takeLogs redirects to log what libraries write to the standard library's log, and
// the errors of grpc-go, which would otherwise have another format. undo ends the
// redirection of the standard library's log.
func takeLogs(log *zap.Logger) (undo func()) {
	grpclog.SetLoggerV2(terse{zapgrpc.NewLogger(ofLibrary(log, "grpc").WithOptions(zap.IncreaseLevel(zapcore.ErrorLevel)))})
	return zap.RedirectStdLog(ofLibrary(log, "library"))
}

// terse is without grpc-go's verbose lines, as grpc-go is by default. zapgrpc takes the
// verbosity for a severity and answers that they are wanted, so that grpc-go would render
// one for each request that is refused, to be dropped.
type terse struct{ *zapgrpc.Logger }

// V implements grpclog.LoggerV2.
func (terse) V(int) bool { return false }

// ofLibrary returns the log of a library, which may log each request or connection.
func ofLibrary(log *zap.Logger, name string) *zap.Logger {
	return sparing.Log(log.Named(name), 10, 10*time.Second)
}

// newLogs returns the service's log, and the audit log of changes and their authors.
// The log writes the first hundred lines of a message in each second, then every
// hundredth, so that a flood of one warning does not drown the others. The audit log
// writes everything. So does the log at debug level, because each of its lines is
// about another request.
func newLogs(o Log) (log, audit *zap.Logger) {
	fields := zap.NewProductionEncoderConfig()
	fields.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	fields.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewConsoleEncoder(fields)
	if o.JSON {
		fields.TimeKey, fields.MessageKey = "@timestamp", "@message" // as envoyproxy/ratelimit
		encoder = zapcore.NewJSONEncoder(fields)
	}
	sink := zapcore.Lock(zapcore.AddSync(visible.Writer{To: o.To, OneLine: true}))
	core := func(takes zap.LevelEnablerFunc) zapcore.Core {
		return zapcore.NewCore(encoder.Clone(), sink, takes)
	}
	debug := core(func(l zapcore.Level) bool { return l < zapcore.InfoLevel && o.Level.Enabled(l) })
	above := core(func(l zapcore.Level) bool { return l >= zapcore.InfoLevel && o.Level.Enabled(l) })
	log = zap.New(zapcore.NewTee(debug, zapcore.NewSamplerWithOptions(above, time.Second, 100, 100)))
	return log, zap.New(core(zapcore.InfoLevel.Enabled)).Named("audit")
}
