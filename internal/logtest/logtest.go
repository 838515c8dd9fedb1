// Package logtest is a log for tests that wait for its lines.
package logtest

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// patience bounds how long a test waits for a line that must come.
const patience = time.Minute

// Lines are what a log has written.
type Lines struct {
	*observer.ObservedLogs
	more chan struct{} // full if there are more lines than were looked at
}

// New returns a log of lines of the level and above.
func New(level zapcore.Level) (*zap.Logger, *Lines) {
	core, observed := observer.New(level)
	l := &Lines{observed, make(chan struct{}, 1)}
	return zap.New(core, zap.Hooks(func(zapcore.Entry) error {
		select {
		case l.more <- struct{}{}:
		default:
		}
		return nil
	})), l
}

// Await waits until there are n lines whose messages contain a text, and returns them. One
// goroutine may wait at a time.
func (l *Lines) Await(t testing.TB, n int, text string) []observer.LoggedEntry {
	t.Helper()
	for timeout := time.After(patience); ; {
		if found := l.FilterMessageSnippet(text); found.Len() >= n {
			return found.All()
		}
		select {
		case <-l.more:
		case <-timeout:
			t.Fatalf("not %d lines with %q within %v; the log has %v", n, text, patience, l.All())
		}
	}
}
