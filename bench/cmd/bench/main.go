// Command bench measures the service. report compares it with servers that do nothing; load
// loads any server; docs puts measurements into the documentation.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/bench/flood"
	"github.com/distlimiter/ratelimit/bench/load"
	"github.com/distlimiter/ratelimit/bench/proc"
	"github.com/distlimiter/ratelimit/bench/report"
)

type command struct {
	Report reportCmd `cmd:"" help:"Measure builds of the service beside servers that do nothing."`
	Load   loadCmd   `cmd:"" help:"Load a running server."`
	Reload reloadCmd `cmd:"" help:"Measure latency while the service reloads many rules."`
	Flood  floodCmd  `cmd:"" help:"Overload the service in several ways, and measure how it copes."`
	Watch  watchCmd  `cmd:"" help:"Measure what watching decisions costs the service."`

	Libraries librariesCmd `cmd:"" help:"Print the benchmarks of bench/libraries as tables."`
	Tables    tablesCmd    `cmd:"" help:"Print each row of the report in docs/dev/performance.json."`
	Docs      docsCmd      `cmd:"" help:"Put figures into docs/dev/performance.md."`
}

type reportCmd struct {
	Build       map[string]string `placeholder:"NAME=PATH" help:"Builds of the service to measure. Default: ratelimit, built from the directory above."`
	Lean        bool              `default:"true" negatable:"" help:"Measure the default build with the lean front, too."`
	Others      map[string]string `placeholder:"NAME=PATH" help:"Programs of envoyproxy/ratelimit and limitador, to measure them beside the builds."`
	Freeze      []time.Duration   `placeholder:"TIMEOUT" help:"Freeze Redis for some seconds, too, and measure what clients with these timeouts see, such as 20ms,10s."`
	Backends    []string          `enum:"memory,redis" default:"memory,redis" help:"Stores to measure: memory, redis."`
	Scenarios   []string          `help:"base, eight, hot, million, refused, one, many, holds. Default: all."`
	Algorithms  []string          `help:"Algorithms to measure in all scenarios. Default: all in the first four, token_bucket in the others."`
	Rounds      int               `default:"5" help:"How often to measure each row."`
	Warmup      time.Duration     `default:"100ms" help:"How long to load a server before each measurement."`
	Duration    time.Duration     `default:"400ms" help:"How long each measurement takes."`
	Latency     bool              `default:"true" negatable:"" help:"Measure latency at half of the load, too."`
	Envoy       bool              `default:"true" negatable:"" help:"Measure latency through a real Envoy, too: envoy on $$PATH, or where make tools puts it."`
	EnvoyRate   float64           `default:"1000" help:"Requests a second through Envoy."`
	Rates       []float64         `help:"Requests a second at which to measure processor time, too, such as 1000,5000,20000."`
	ServerCore  int               `default:"0" help:"The core for servers."`
	LoadCore    int               `default:"1" help:"The core for the load, and for Redis."`
	Connections int               `default:"4" help:"How many connections share the load."`
	InFlight    int               `default:"64" help:"How many requests are kept in flight."`
	Profiles    string            `placeholder:"DIR" type:"existingdir" help:"Write a processor profile of each server to DIR, for the compiler."`
	JSON        string            `placeholder:"FILE" help:"Write all samples here, as JSON."`
	Benchmarks  string            `placeholder:"DIR" help:"Write each build's samples to DIR/NAME.txt for benchstat."`
}

func (c *reportCmd) Run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "ratelimit-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o := report.Options{
		Floor: filepath.Join(dir, "floor"), TunedFloor: filepath.Join(dir, "floor-tuned"), Backends: c.Backends, Scenarios: c.Scenarios, Algorithms: c.Algorithms,
		Rounds: c.Rounds, Warmup: c.Warmup, Duration: c.Duration, Latency: c.Latency, ServerCore: c.ServerCore, LoadCore: c.LoadCore,
		Connections: c.Connections, InFlight: c.InFlight, Progress: os.Stderr, EnvoyRate: c.EnvoyRate, Rates: c.Rates, Profiles: c.Profiles, Freeze: c.Freeze, Frozen: 5 * time.Second,
	}
	if err := buildFloors(o); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.Build)) {
		o.Builds = append(o.Builds, report.Build{Name: name, Path: c.Build[name]})
	}
	if len(c.Build) == 0 {
		ours, err := buildService(dir, "")
		if err != nil {
			return err
		}
		o.Builds = append(o.Builds, report.Build{Name: "ratelimit", Path: ours})
		if c.Lean {
			o.Builds = append(o.Builds, report.Build{Name: "ratelimit, lean front", Path: ours, Env: []string{"GRPC_FRONT=lean"}})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Others)) {
		others, err := report.Others(name, c.Others[name])
		if err != nil {
			return err
		}
		o.Others = append(o.Others, others...)
	}
	if c.Envoy {
		if o.Envoy, err = findEnvoy(); err != nil {
			return err
		}
	}
	if err := quiet(c.LoadCore); err != nil {
		return err
	}
	r, err := report.Run(ctx, o)
	if r == nil {
		return err
	}
	return errors.Join(err, r.Markdown(os.Stdout), c.keep(r, o.Builds))
}

// findEnvoy returns the path of Envoy.
func findEnvoy() (string, error) {
	for _, path := range []string{"envoy", "../.cache/bin/envoy"} {
		if found, err := exec.LookPath(path); err == nil {
			return filepath.Abs(found)
		}
	}
	return "", errors.New("no envoy on $PATH: run make tools, or leave it out with --no-envoy")
}

// keep writes the requested files.
func (c *reportCmd) keep(r *report.Report, builds []report.Build) error {
	if c.JSON != "" {
		f, err := os.Create(c.JSON)
		if err != nil {
			return err
		}
		if err := errors.Join(r.JSON(f), f.Close()); err != nil {
			return err
		}
	}
	if c.Benchmarks == "" {
		return nil
	}
	for _, b := range builds {
		f, err := os.Create(filepath.Join(c.Benchmarks, b.Name+".txt"))
		if err != nil {
			return err
		}
		if err := errors.Join(r.Benchmarks(f, b.Name), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// buildFloors builds the floor server, and builds it again with the service's compiler
// profile if there is one.
func buildFloors(o report.Options) error {
	profile, err := filepath.Abs("../cmd/ratelimit/default.pgo")
	if err != nil {
		return err
	}
	if _, err := os.Stat(profile); err != nil {
		profile = "off"
	}
	return errors.Join(build(o.Floor, ".", "./cmd/floor", "-pgo", "off"), build(o.TunedFloor, ".", "./cmd/floor", "-pgo", profile))
}

// quiet binds this process to one core and makes its garbage collector run rarely, because
// there is next to no garbage.
func quiet(core int) error {
	debug.SetGCPercent(1000)
	return proc.Pin(core)
}

type floodCmd struct {
	Service     string        `placeholder:"PATH" help:"The build of the service. Default: built from the directory above."`
	Front       string        `enum:"grpc-go,lean" default:"grpc-go" help:"The gRPC front of the service: grpc-go, lean."`
	Floods      []string      `help:"Floods by their names in the table; overload for the second table. Default: all."`
	Backends    []string      `enum:"memory,redis" default:"memory,redis" help:"Stores to measure overload with: memory, redis."`
	Descriptors int           `default:"1" help:"Descriptors of a request under overload. More of them slow down a service that the load would not saturate."`
	Duration    time.Duration `default:"5s" help:"How long each flood and overload takes."`
	ServerCore  int           `default:"0" help:"The core for servers."`
	LoadCore    int           `default:"1" help:"The core for the load, and for Redis."`
}

func (c *floodCmd) Run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "ratelimit-flood-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o := flood.Options{
		Floor: filepath.Join(dir, "floor"), Front: c.Front, Floods: c.Floods, Backends: c.Backends, Descriptors: c.Descriptors, Duration: c.Duration,
		ServerCore: c.ServerCore, LoadCore: c.LoadCore, Out: os.Stdout, Progress: os.Stderr,
	}
	if err := build(o.Floor, ".", "./cmd/floor"); err != nil {
		return err
	}
	if o.Service, err = buildService(dir, c.Service); err != nil {
		return err
	}
	if err := quiet(c.LoadCore); err != nil {
		return err
	}
	return flood.Run(ctx, o)
}

type loadCmd struct {
	Address     string        `arg:"" help:"host:port of a gRPC rate-limit service, without TLS."`
	Domain      string        `default:"bench" help:"Domain to ask."`
	Descriptors int           `default:"1" help:"Descriptors in each request, with the keys user, path, host, …"`
	Clients     int           `default:"10000" help:"How many different values each descriptor has."`
	Connections int           `default:"4" help:"How many connections share the load."`
	InFlight    int           `default:"64" help:"How many requests are kept in flight."`
	Rate        float64       `help:"Send this many requests a second instead, answered or not."`
	Patience    time.Duration `help:"Give a request up this long after it was due, as Envoy does. Only with --rate; 0: never."`
	Most        int           `help:"Requests under way at most on each connection; those beyond are not sent. Only with --rate; 0: no bound."`
	Warmup      time.Duration `default:"200ms" help:"How long to load the server before measuring."`
	Duration    time.Duration `default:"10s" help:"How long to measure."`
	Core        int           `default:"-1" help:"The core to run on. -1: any."`
	Seed        uint64        `default:"1" help:"Seed of what is random."`
}

func (c *loadCmd) Run(ctx context.Context) error {
	calls, err := load.NewCalls(c.Domain, c.Descriptors, c.Clients, false, c.Seed)
	if err != nil {
		return err
	}
	if c.Patience > 0 {
		calls.SetTimeout(c.Patience)
	}
	if c.Core >= 0 {
		if err := quiet(c.Core); err != nil {
			return err
		}
	}
	r, err := load.Run(ctx, load.Options{
		Address: c.Address, Workload: calls, Connections: c.Connections, InFlight: c.InFlight, Rate: c.Rate,
		Patience: c.Patience, Most: c.Most, Warmup: c.Warmup, Duration: c.Duration, Seed: c.Seed,
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d answers, %.0f a second, %d over limit\n", r.Answers, r.PerSecond(), r.Refused)
	if c.Patience > 0 {
		fmt.Printf("%d late, %d not sent, failed %v\n", r.Late, r.Unsent, r.Failed)
	}
	for _, p := range []float64{50, 90, 99, 99.9, 100} {
		fmt.Printf("p%-5v %10v\n", p, time.Duration(r.Latency.ValueAtPercentile(p)).Round(100*time.Nanosecond))
	}
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	k := kong.Parse(&command{}, kong.Description("Measures the rate-limit service."), kong.BindTo(ctx, (*context.Context)(nil)))
	k.FatalIfErrorf(k.Run())
}
