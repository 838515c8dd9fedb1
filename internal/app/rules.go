package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/tlsfiles"
	"github.com/distlimiter/ratelimit/internal/xds"
)

// runtimeRoot is where envoyproxy/ratelimit looks for rules unless told otherwise.
const runtimeRoot = "/srv/runtime_data/current"

// runtimeOptions are the places that envoyproxy/ratelimit takes rules from.
type runtimeOptions struct {
	ConfigType          configType `group:"rules" default:"file" env:"CONFIG_TYPE" help:"file, or grpc_xds_sotw for rules from an xDS server, beside those of --config if there are any."`
	RuntimeRoot         string     `group:"rules" default:"${runtimeRoot}" env:"RUNTIME_ROOT" help:"Without --config, rules are all files in this directory's subdirectory's app directory, whatever their names, as for envoyproxy/ratelimit."`
	RuntimeSubdirectory string     `group:"rules" placeholder:"DIR" env:"RUNTIME_SUBDIRECTORY" help:"See --runtime-root."`
	RuntimeAppdirectory string     `group:"rules" default:"config" env:"RUNTIME_APPDIRECTORY" help:"See --runtime-root."`
	ForceStart          bool       `group:"rules" negatable:"" env:"FORCE_START_WITHOUT_INITIAL_CONFIG" help:"Serve, and be healthy, before there are any valid rules. Decisions fail until then."`
	HealthyWithRules    bool       `group:"rules" negatable:"" env:"HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED" help:"Be healthy only while there is at least one domain."`
}

// paths are those of the files and directories with rules.
func (c *serveCmd) paths() []string {
	if len(c.Config) > 0 || c.ConfigType == fromXDS {
		return c.Config
	}
	return []string{filepath.Join(c.RuntimeRoot, c.RuntimeSubdirectory, c.RuntimeAppdirectory)}
}

// checkPaths asks for rules where none of the usual places is there.
func (c *serveCmd) checkPaths() error {
	if len(c.Config) > 0 || c.ConfigType == fromXDS || c.ForceStart || c.RuntimeRoot != runtimeRoot {
		return nil
	}
	if _, err := os.Stat(c.paths()[0]); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--config: say where the rules are: a YAML file, or a directory of them (or, as for envoyproxy/ratelimit, set RUNTIME_ROOT: its default %s does not exist)", c.paths()[0])
	}
	return nil
}

// providers are where the rules come from.
func (s *service) providers() ([]config.Provider, error) {
	var list []config.Provider
	if paths := s.paths(); len(paths) > 0 {
		options := s.config()
		options.AnyName = options.AnyName || len(s.Config) == 0 // as envoyproxy/ratelimit
		list = append(list, &config.Files{Paths: paths, Options: options, Skipped: s.logSkipped()})
	}
	if s.adminRules != nil {
		list = append(list, s.adminRules)
	}
	if s.ConfigType != fromXDS {
		return list, nil
	}
	server, err := s.XDS.provider(s)
	return append(list, server), err
}

// logSkipped returns a function that logs each file once.
func (s *service) logSkipped() func(path, why string) {
	logged := map[string]bool{}
	return func(path, why string) {
		if !logged[path] {
			logged[path] = true
			s.log.Info("a file with the rules is skipped", zap.String("file", path), zap.String("why", why))
		}
	}
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

// xdsOptions say which xDS server to follow, and how.
type xdsOptions struct {
	Server          string        `group:"xds" default:"localhost:18000" env:"CONFIG_GRPC_XDS_SERVER_URL" help:"The xDS server, a gRPC target."`
	NodeID          string        `group:"xds" default:"default" env:"CONFIG_GRPC_XDS_NODE_ID" help:"As whom to ask it for rules."`
	NodeMetadata    equalPairs    `group:"xds" placeholder:"KEY=VALUE,..." env:"CONFIG_GRPC_XDS_NODE_METADATA" help:"More about who asks."`
	Headers         colonPairs    `group:"xds" placeholder:"NAME:VALUE,..." env:"CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS" help:"Headers of the stream."`
	ConnectRetry    time.Duration `group:"xds" default:"3s" env:"CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL" help:"First wait after a connection that failed."`
	BackoffInitial  time.Duration `group:"xds" default:"10s" env:"XDS_CLIENT_BACKOFF_INITIAL_INTERVAL" help:"First wait after a stream that ended."`
	BackoffMax      time.Duration `group:"xds" default:"60s" env:"XDS_CLIENT_BACKOFF_MAX_INTERVAL" help:"Longest wait."`
	BackoffFactor   float64       `group:"xds" default:"0.5" env:"XDS_CLIENT_BACKOFF_RANDOM_FACTOR" help:"Part of 1 by which waits vary."`
	BackoffJitter   bool          `group:"xds" default:"true" negatable:"" env:"XDS_CLIENT_BACKOFF_JITTER" help:"Have waits vary."`
	MaxMessageBytes int           `group:"xds" placeholder:"BYTES" env:"XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES" help:"Most bytes of a response. Without, 4 MiB."`
	TLS             bool          `group:"xds" name:"tls" negatable:"" env:"CONFIG_GRPC_XDS_SERVER_USE_TLS" help:"Ask by TLS. Files are read again when they change."`
	TLSCert         string        `group:"xds" name:"tls-cert" placeholder:"FILE" env:"CONFIG_GRPC_XDS_CLIENT_TLS_CERT" help:"This client's certificate."`
	TLSKey          string        `group:"xds" name:"tls-key" placeholder:"FILE" env:"CONFIG_GRPC_XDS_CLIENT_TLS_KEY" help:"Its key."`
	TLSCACert       string        `group:"xds" name:"tls-ca-cert" placeholder:"FILE" env:"CONFIG_GRPC_XDS_SERVER_TLS_CACERT" help:"Authorities that sign the server's certificate. Without, the system's."`
	TLSName         string        `group:"xds" name:"tls-name" placeholder:"NAME" env:"CONFIG_GRPC_XDS_SERVER_TLS_SAN" help:"Name in the server's certificate. Without, that of its address."`
}

// check refuses waits that no client could keep.
func (o *xdsOptions) check() error {
	switch {
	case o.ConnectRetry <= 0 || o.BackoffInitial <= 0 || o.BackoffMax < o.BackoffInitial:
		return fmt.Errorf("--xds-backoff-initial %v, --xds-backoff-max %v, --xds-connect-retry %v: use times above 0, and a longest wait no shorter than the first", o.BackoffInitial, o.BackoffMax, o.ConnectRetry)
	case !(o.BackoffFactor >= 0):
		return fmt.Errorf("--xds-backoff-factor: %v: use a number from 0 to 1", o.BackoffFactor)
	case o.MaxMessageBytes < 0:
		return fmt.Errorf("--xds-max-message-bytes: %d: use a number above 0", o.MaxMessageBytes)
	}
	return nil
}

func (o *xdsOptions) provider(s *service) (config.Provider, error) {
	creds, err := o.credentials(s)
	if err != nil {
		return nil, fmt.Errorf("TLS to the xDS server: %w", err)
	}
	vary := 0.0
	if o.BackoffJitter {
		vary = min(o.BackoffFactor, 1)
	}
	return xds.New(xds.Options{
		Server: o.Server, Credentials: creds, NodeID: o.NodeID, NodeMetadata: o.NodeMetadata, Headers: o.Headers,
		MaxMessageBytes: o.MaxMessageBytes, ConnectRetry: o.ConnectRetry,
		Backoff: xds.Backoff{Initial: o.BackoffInitial, Max: o.BackoffMax, Jitter: vary},
		Log:     s.log.Named("xds"),
	})
}

func (o *xdsOptions) credentials(s *service) (credentials.TransportCredentials, error) {
	if !o.TLS {
		return insecure.NewCredentials(), nil
	}
	return tlsfiles.Client(tlsfiles.Files{Cert: o.TLSCert, Key: o.TLSKey, CA: o.TLSCACert, Name: o.TLSName, Log: s.log.Named("xds")})
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
