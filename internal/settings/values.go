package settings

import (
	"fmt"
	"strings"

	"go.uber.org/zap/zapcore"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/spell"
)

// BackendKind names the store of the counters; empty leaves the choice to other
// settings.
type BackendKind string

// UnmarshalText implements encoding.TextUnmarshaler. Case does not matter.
func (k *BackendKind) UnmarshalText(text []byte) error {
	kind, err := StoreKind(string(text))
	*k = BackendKind(kind)
	return err
}

// BackendError is a config.BackendErrorMode as text.
type BackendError config.BackendErrorMode

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *BackendError) UnmarshalText(text []byte) error {
	mode, err := config.ParseBackendErrorMode(string(text))
	*b = BackendError(mode)
	return err
}

// Algorithm is an algo.Algorithm as text.
type Algorithm algo.Algorithm

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Algorithm) UnmarshalText(text []byte) error {
	parsed, err := algo.ParseAlgorithm(string(text))
	if err != nil {
		return fmt.Errorf("unknown algorithm %q: %s", text, spell.Suggest(string(text), algo.Algorithms()))
	}
	*a = Algorithm(parsed)
	return nil
}

// Burst is a config.Burst as text.
type Burst config.Burst

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Burst) UnmarshalText(text []byte) error {
	parsed, err := config.ParseBurst(string(text))
	*b = Burst(parsed)
	return err
}

// LogLevel is the least level to log.
type LogLevel zapcore.Level

// UnmarshalText implements encoding.TextUnmarshaler. Case does not matter. Other level
// names of envoyproxy/ratelimit's log stand for the nearest level.
func (l *LogLevel) UnmarshalText(text []byte) error {
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
	*l = LogLevel(level)
	return nil
}

// LogFormat is the format of the log's lines.
type LogFormat string

// The formats of the log.
const (
	TextLog LogFormat = "text"
	JSONLog LogFormat = "json"
)

// UnmarshalText implements encoding.TextUnmarshaler. Case does not matter.
func (f *LogFormat) UnmarshalText(text []byte) error {
	switch lower := LogFormat(strings.ToLower(string(text))); lower {
	case TextLog, JSONLog:
		*f = lower
		return nil
	}
	return fmt.Errorf("unknown log format %q: write text or json", text)
}

// ConfigType is a kind of source of rules.
type ConfigType string

// The kinds of sources.
const (
	FromFiles ConfigType = "file"
	FromXDS   ConfigType = "grpc_xds_sotw"
)

// UnmarshalText implements encoding.TextUnmarshaler. Case does not matter.
func (t *ConfigType) UnmarshalText(text []byte) error {
	switch lower := ConfigType(strings.ToLower(string(text))); lower {
	case FromFiles, FromXDS:
		*t = lower
		return nil
	}
	return fmt.Errorf("unknown kind of configuration %q: write file or grpc_xds_sotw", text)
}

// EqualPairs are written key=value,key=value. A part without = is ignored, as in
// envoyproxy/ratelimit.
type EqualPairs map[string]string

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *EqualPairs) UnmarshalText(text []byte) error {
	*p = EqualPairs{}
	for pair := range strings.SplitSeq(string(text), ",") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			(*p)[key] = value
		}
	}
	return nil
}

// ColonPairs are written key:value,key:value.
type ColonPairs map[string]string

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *ColonPairs) UnmarshalText(text []byte) error {
	*p = ColonPairs{}
	for i, pair := range strings.Split(string(text), ",") {
		key, value, ok := strings.Cut(pair, ":")
		if !ok || key == "" { // not shown: it may be part of a token
			return fmt.Errorf("part %d has no name: write name:value, separated by commas", i+1)
		}
		(*p)[key] = value
	}
	return nil
}
