package main

import (
	"fmt"
	"strings"

	"go.uber.org/zap/zapcore"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/settings"
)

// backendKind is where counters live; empty leaves it to the other settings.
type backendKind string

// UnmarshalText implements encoding.TextUnmarshaler. Case does not matter.
func (k *backendKind) UnmarshalText(text []byte) error {
	kind, err := settings.StoreKind(string(text))
	*k = backendKind(kind)
	return err
}

// backendError is a config.BackendErrorMode as a flag.
type backendError config.BackendErrorMode

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *backendError) UnmarshalText(text []byte) error {
	mode, err := config.ParseBackendErrorMode(string(text))
	*b = backendError(mode)
	return err
}

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

// configType is a kind of place that rules come from.
type configType string

const (
	fromFiles configType = "file"
	fromXDS   configType = "grpc_xds_sotw"
)

// UnmarshalText implements encoding.TextUnmarshaler. Case does not matter.
func (t *configType) UnmarshalText(text []byte) error {
	switch lower := configType(strings.ToLower(string(text))); lower {
	case fromFiles, fromXDS:
		*t = lower
		return nil
	}
	return fmt.Errorf("unknown kind of configuration %q: write file or grpc_xds_sotw", text)
}

// equalPairs are written key=value,key=value; what has no = is left out, as in
// envoyproxy/ratelimit.
type equalPairs map[string]string

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *equalPairs) UnmarshalText(text []byte) error { //nolint:unparam // the interface has an error
	*p = equalPairs{}
	for pair := range strings.SplitSeq(string(text), ",") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			(*p)[key] = value
		}
	}
	return nil
}

// colonPairs are written key:value,key:value.
type colonPairs map[string]string

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *colonPairs) UnmarshalText(text []byte) error {
	*p = colonPairs{}
	for i, pair := range strings.Split(string(text), ",") {
		key, value, ok := strings.Cut(pair, ":")
		if !ok || key == "" { // it may be part of a token: not shown
			return fmt.Errorf("part %d has no name: write name:value, separated by commas", i+1)
		}
		(*p)[key] = value
	}
	return nil
}
