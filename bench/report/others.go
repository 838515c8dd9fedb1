package report

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/distlimiter/ratelimit/bench/load"
	"github.com/distlimiter/ratelimit/bench/proc"
	"github.com/distlimiter/ratelimit/internal/algo"
)

// Other is a rate-limit service of others, as it is measured beside the builds. All of them
// have fixed windows, and nothing else.
type Other struct {
	Name    string // in the tables
	Backend string
	path    string
	// start returns the variables and arguments that make it serve a scenario, gRPC at
	// port, with a Redis of its own. It may write files into dir.
	start func(o *Other, b *bench, s Scenario, dir string, port int, store string) (env, args []string, err error)
	extra []string // arguments or variables of this variant
}

// Others returns the variants of a service to measure, by the name of the service and the
// path of its program.
func Others(service, path string) ([]Other, error) {
	switch service {
	case "envoyproxy/ratelimit":
		return []Other{
			{Name: service + ", default", Backend: "redis", path: path, start: startEnvoyproxy},
			{Name: service + ", batches", Backend: "redis", path: path, start: startEnvoyproxy, extra: []string{"REDIS_PIPELINE_WINDOW=150us", "REDIS_POOL_SIZE=2"}},
		}, nil
	case "limitador":
		return []Other{
			{Name: "Limitador", Backend: "memory", path: path, start: startLimitador, extra: []string{"memory"}},
			{Name: "Limitador", Backend: "redis", path: path, start: startLimitador, extra: []string{"redis"}},
			{Name: "Limitador, cached", Backend: "redis", path: path, start: startLimitador, extra: []string{"redis_cached"}},
		}, nil
	}
	return nil, fmt.Errorf("unknown service %q: name envoyproxy/ratelimit or limitador", service)
}

// startEnvoyproxy gives envoyproxy/ratelimit the file that a build gets, and no statistics.
func startEnvoyproxy(o *Other, b *bench, s Scenario, dir string, port int, store string) (env, args []string, err error) {
	config := filepath.Join(dir, "config")
	if err := os.Mkdir(config, 0o700); err != nil {
		return nil, nil, err
	}
	row := Row{Scenario: s, Server: o.Name, Backend: o.Backend, Algorithm: algo.FixedWindow.String()}
	if _, err := row.rules(config); err != nil {
		return nil, nil, err
	}
	ports := make([]int, 2)
	for i := range ports {
		if ports[i], err = b.freePort(); err != nil {
			return nil, nil, err
		}
	}
	return append([]string{
		"RUNTIME_ROOT=" + dir, "RUNTIME_SUBDIRECTORY=", "RUNTIME_APPDIRECTORY=config", "RUNTIME_WATCH_ROOT=false",
		"DISABLE_STATS=true", "USE_STATSD=false", "LOG_LEVEL=error",
		"HOST=127.0.0.1", fmt.Sprintf("PORT=%d", ports[0]), "DEBUG_HOST=127.0.0.1", fmt.Sprintf("DEBUG_PORT=%d", ports[1]),
		"GRPC_HOST=127.0.0.1", fmt.Sprintf("GRPC_PORT=%d", port),
		"REDIS_SOCKET_TYPE=tcp", "REDIS_URL=" + store,
	}, o.extra...), nil, nil
}

// seconds of a unit, for Limitador.
var seconds = map[string]int{"second": 1, "hour": 3600, "day": 86400}

func startLimitador(o *Other, b *bench, s Scenario, dir string, port int, store string) (env, args []string, err error) {
	var limits strings.Builder
	for i, key := range load.DescriptorKeys[:s.Descriptors] {
		value := fmt.Sprintf("descriptors[%d]['%s']", i, key)
		fmt.Fprintf(&limits, "- namespace: %s\n  max_value: %s\n  seconds: %d\n  conditions: []\n  variables: [\"%s\"]\n", domain, s.Limit, seconds[s.Unit], value)
	}
	path := filepath.Join(dir, "limits.yaml")
	if err := os.WriteFile(path, []byte(limits.String()), 0o600); err != nil {
		return nil, nil, err
	}
	http, err := b.freePort()
	if err != nil {
		return nil, nil, err
	}
	args = []string{"--rls-ip", "127.0.0.1", "--rls-port", strconv.Itoa(port), "--http-ip", "127.0.0.1", "--http-port", strconv.Itoa(http), path}
	args = append(args, o.extra...)
	if o.Backend == "redis" {
		args = append(args, "redis://"+store)
	}
	return []string{"TOKIO_WORKER_THREADS=1"}, args, nil
}

// startOther starts a service of others for a row.
func (b *bench) startOther(ctx context.Context, o *Other, s Scenario) error {
	row := &Row{Scenario: s, Server: o.Name, Backend: o.Backend, Algorithm: algo.FixedWindow.String()}
	started, err := b.serveOther(o, s)
	if err != nil {
		return err
	}
	return b.add(ctx, row, started, 1)
}

func (b *bench) serveOther(o *Other, s Scenario) (*server, error) {
	dir, err := os.MkdirTemp(b.dir, "other-")
	if err != nil {
		return nil, err
	}
	port, err := b.freePort()
	if err != nil {
		return nil, err
	}
	started := &server{address: loopback(port)}
	store := ""
	if o.Backend == "redis" { // of its own: variants have the same keys
		r, err := b.startRedis()
		if err != nil {
			return nil, err
		}
		started.store, store = r.Process, loopback(r.port)
	}
	env, args, err := o.start(o, b, s, dir, port, store)
	if err != nil {
		return nil, err
	}
	started.Process, err = proc.Start(b.ServerCore, append(env, "GOMAXPROCS=1"), o.path, args...)
	if err != nil {
		return nil, err
	}
	b.stop = append(b.stop, started.Kill) // Limitador does not end when asked to
	return started, await(started.Process, port)
}
