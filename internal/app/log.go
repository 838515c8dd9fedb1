package app

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zapgrpc"
	"google.golang.org/grpc/grpclog"

	"github.com/distlimiter/ratelimit/internal/visible"
)

// takeLogs has the log take what libraries write to the standard library's, and
// errors of grpc-go, which would be lines of their own form. The function that it
// returns ends the former.
func takeLogs(log *zap.Logger) (undo func()) {
	grpclog.SetLoggerV2(zapgrpc.NewLogger(log.Named("grpc").WithOptions(zap.IncreaseLevel(zapcore.ErrorLevel))))
	return zap.RedirectStdLog(log.Named("library"))
}

// onceAMinute returns a log that says the same thing once a minute.
func onceAMinute(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, time.Minute, 1, 0)
	}))
}

// newLogs returns a log, and one of who has changed what. Of a message that comes
// again and again the log has a hundred a second, then every hundredth, so that a
// flood of one warning does not drown the others. The audit has everything, and so
// has the log at debug level: each of its lines is about another request.
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
