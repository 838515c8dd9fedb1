// Package sparing keeps callers from filling the log: of the lines that each request or
// connection may cause it writes some, and how many more there were.
package sparing

import (
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Log returns a log that writes at most burst lines of a message at once, and later one more
// for each interval that has passed. The next line has the number of those left out before it
// in the field "left_out". Messages that differ only after their first digit, such as an
// address, count as one.
func Log(log *zap.Logger, burst int, every time.Duration) *zap.Logger {
	all := &lines{burst: burst, every: every, of: make(map[string]*line)}
	return log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return &core{c, all} }))
}

// core is a zapcore.Core that leaves lines out. Those made by With share its lines.
type core struct {
	zapcore.Core
	all *lines
}

// With implements [zapcore.Core].
func (c *core) With(fields []zapcore.Field) zapcore.Core { return &core{c.Core.With(fields), c.all} }

// Check implements [zapcore.Core].
func (c *core) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) {
		return to
	}
	leftOut, write := c.all.take(e)
	switch {
	case !write:
		return to
	case leftOut == 0:
		return c.Core.Check(e, to)
	}
	return c.Core.With([]zapcore.Field{zap.Int("left_out", leftOut)}).Check(e, to)
}

// lines are those of all messages.
type lines struct {
	burst int
	every time.Duration

	mu sync.Mutex
	of map[string]*line
}

// line is what is known of the lines of a message.
type line struct {
	paid    time.Time // until when the lines written are paid for, one for each interval
	leftOut int
}

// most is how many messages are told apart. Programs have few.
const most = 1000

// take reports whether to write a line, and how many were left out before it.
func (l *lines) take(e zapcore.Entry) (leftOut int, write bool) {
	message := e.Message
	if at := strings.IndexAny(message, "0123456789"); at >= 0 {
		message = message[:at]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.of[message]
	if of == nil {
		if len(l.of) >= most {
			message = ""
		}
		if of = l.of[message]; of == nil {
			of = new(line)
			l.of[message] = of
		}
	}
	if of.paid.Before(e.Time) {
		of.paid = e.Time
	}
	next := of.paid.Add(l.every)
	if next.Sub(e.Time) > time.Duration(l.burst)*l.every {
		of.leftOut++
		return 0, false
	}
	of.paid = next
	leftOut, of.leftOut = of.leftOut, 0
	return leftOut, true
}
