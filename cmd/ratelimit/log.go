package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

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

// newLog returns a log that writes to out. A message that comes again and again
// is written a hundred times a second, then every hundredth.
func newLog(out io.Writer, level zapcore.Level, format logFormat) *zap.Logger {
	fields := zap.NewProductionEncoderConfig()
	fields.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	fields.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewConsoleEncoder(fields)
	if format == jsonLog {
		fields.TimeKey, fields.MessageKey = "@timestamp", "@message" // as envoyproxy/ratelimit
		encoder = zapcore.NewJSONEncoder(fields)
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(out)), level)
	return zap.New(zapcore.NewSamplerWithOptions(core, time.Second, 100, 100))
}
