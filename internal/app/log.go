package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zapgrpc"
	"google.golang.org/grpc/grpclog"

	"github.com/distlimiter/ratelimit/internal/visible"
)

// logLevel is the least level to log.
type logLevel zapcore.Level

// UnmarshalText implements encoding.TextUnmarshaler. Case does not matter, and
// the names that envoyproxy/ratelimit's log has besides stand for the nearest.
func (l *logLevel) UnmarshalText(text []byte) error {
	name := strings.ToLower(string(text))
	switch name {
	case "trace":
		name = "debug"
	case "warning":
		name = "warn"
	}
	level, err := zapcore.ParseLevel(name)
	if err != nil {
		return fmt.Errorf("unknown log level %q: write debug, info, warn or error", text)
	}
	*l = logLevel(level)
	return nil
}

// logFormat is how lines of the log look.
type logFormat string

const (
	textLog logFormat = "text"
	jsonLog logFormat = "json"
)

// UnmarshalText implements encoding.TextUnmarshaler. Case does not matter.
func (f *logFormat) UnmarshalText(text []byte) error {
	switch lower := logFormat(strings.ToLower(string(text))); lower {
	case textLog, jsonLog:
		*f = lower
		return nil
	}
	return fmt.Errorf("unknown log format %q: write text or json", text)
}

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

// newLogs returns a log that writes to out, and one of who has changed what. Of a
// message that comes again and again the log has a hundred a second, then every
// hundredth; the audit has everything.
func newLogs(out io.Writer, level zapcore.Level, format logFormat) (log, audit *zap.Logger) {
	fields := zap.NewProductionEncoderConfig()
	fields.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	fields.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewConsoleEncoder(fields)
	if format == jsonLog {
		fields.TimeKey, fields.MessageKey = "@timestamp", "@message" // as envoyproxy/ratelimit
		encoder = zapcore.NewJSONEncoder(fields)
	}
	sink := zapcore.Lock(zapcore.AddSync(visible.Writer{To: out, OneLine: true}))
	core := zapcore.NewCore(encoder, sink, level)
	log = zap.New(zapcore.NewSamplerWithOptions(core, time.Second, 100, 100))
	return log, zap.New(zapcore.NewCore(encoder.Clone(), sink, zapcore.InfoLevel)).Named("audit")
}
