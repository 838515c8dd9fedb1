package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/grpclog"

	"github.com/distlimiter/ratelimit/internal/logtest"
)

// hostile is text that a client may send in a descriptor.
const hostile = "x\n2026-01-01T00:00:00Z\terror\tforged\r\x1b[2J\u009b31m\x7f\u202e\xff\x00\u2028"

// TestLogLinesCannotBeForged writes hostile text wherever a log takes text: what
// comes out is one line, with nothing in it that controls a terminal.
func TestLogLinesCannotBeForged(t *testing.T) {
	for _, json := range []bool{false, true} {
		var out bytes.Buffer
		log, audit := newLogs(Log{To: &out, Level: zapcore.DebugLevel, JSON: json})
		for _, l := range []*zap.Logger{log, audit} {
			for name, write := range map[string]func(){
				"message": func() { l.Info(hostile) },
				"string":  func() { l.Info("m", zap.String("k", hostile), zap.String(hostile, "v")) },
				"error":   func() { l.Error("m", zap.Error(errors.New(hostile))) },
				"errors":  func() { l.Error("m", zap.Error(errors.Join(errors.New(hostile), errors.New(hostile)))) },
				"any":     func() { l.Warn("m", zap.Any("k", map[string]any{hostile: []string{hostile}})) },
				"bytes":   func() { l.Warn("m", zap.ByteString("k", []byte(hostile))) },
				"name":    func() { l.Named(hostile).Warn("m") },
				"std":     func() { zap.NewStdLog(l).Print(hostile) },
			} {
				out.Reset()
				write()
				checkLine(t, name, out.String())
			}
		}
	}
}

// TestOnlyFloodsAreSampled holds that of a warning that comes again and again the log
// has some, but every line of the audit and every line that was asked for by the level
// debug.
func TestOnlyFloodsAreSampled(t *testing.T) {
	const written = 1000
	for _, json := range []bool{false, true} {
		for name, test := range map[string]struct {
			write func(log, audit *zap.Logger)
			all   bool
		}{
			"debug":        {func(log, _ *zap.Logger) { log.Debug("request") }, true},
			"debug, named": {func(log, _ *zap.Logger) { log.Named("redis").With(zap.Int("n", 1)).Debug("m") }, true},
			"audit":        {func(_, audit *zap.Logger) { audit.Info("admin write") }, true},
			"warning":      {func(log, _ *zap.Logger) { log.Warn("the backend did not take back") }, false},
			"error":        {func(log, _ *zap.Logger) { log.Error("m") }, false},
			"library":      {func(log, _ *zap.Logger) { log.Named("library").Info("m") }, false},
		} {
			var out bytes.Buffer
			log, audit := newLogs(Log{To: &out, Level: zapcore.DebugLevel, JSON: json})
			for range written {
				test.write(log, audit)
			}
			if lines := strings.Count(out.String(), "\n"); (lines == written) != test.all || lines < 100 {
				t.Errorf("%s, JSON %v: %d lines of %d", name, json, lines, written)
			}
		}
	}
}

// TestLogLevel holds that each level has what is at it and above, once.
func TestLogLevel(t *testing.T) {
	for level, want := range map[zapcore.Level]int{zapcore.DebugLevel: 4, zapcore.InfoLevel: 3, zapcore.WarnLevel: 2, zapcore.ErrorLevel: 1} {
		var out bytes.Buffer
		log, _ := newLogs(Log{To: &out, Level: level})
		log.Debug("m")
		log.Info("m")
		log.Warn("m")
		log.Error("m")
		if lines := strings.Count(out.String(), "\n"); lines != want || log.Level() != level {
			t.Errorf("%s: %d lines, want %d; the log's level is %s", level, lines, want, log.Level())
		}
	}
}

func checkLine(t *testing.T, what, text string) {
	t.Helper()
	line, ok := strings.CutSuffix(text, "\n")
	if !ok || strings.Contains(line, "\n") || !utf8.ValidString(line) {
		t.Errorf("%s: not one line: %q", what, text)
	}
	if i := strings.IndexFunc(line, func(c rune) bool { return c != '\t' && c != '\ufffd' && !unicode.IsGraphic(c) }); i >= 0 {
		t.Errorf("%s: a control character in %q", what, line)
	}
	if strings.HasPrefix(line, "{") {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%s: %q: %v", what, line, err)
		}
	}
}

// TestGRPCRendersNoLinesToBeDropped asks as grpc-go does before it renders a line about each
// refused request.
func TestGRPCRendersNoLinesToBeDropped(t *testing.T) {
	log, lines := logtest.New(zap.DebugLevel)
	defer takeLogs(log)()
	if grpclog.V(2) {
		t.Error("verbose lines are rendered")
	}
	grpclog.Error("something is wrong")
	if lines.FilterMessage("something is wrong").Len() != 1 {
		t.Errorf("an error is not logged: %v", lines.All())
	}
}
