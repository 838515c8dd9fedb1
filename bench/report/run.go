package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/bench/load"
	"github.com/distlimiter/ratelimit/bench/proc"
	"github.com/distlimiter/ratelimit/internal/algo"
)

// Options say what to measure and how.
type Options struct {
	// Floor is the path of the floor server, Builds are the builds of the service.
	Floor  string
	Builds []Build
	// Backends to measure: memory, redis.
	Backends []string
	// Scenarios by name; empty: all.
	Scenarios []string
	// Algorithms by name, measured in all scenarios; empty: all in the first
	// scenario, DefaultAlgorithm in the others.
	Algorithms []string
	// Rounds is how often each row is measured, each time for Duration after Warmup.
	Rounds           int
	Warmup, Duration time.Duration
	// Latency is also measured, in the first scenario, and behind the Envoy at this
	// path, if there is one, at so many requests a second.
	Latency   bool
	Envoy     string
	EnvoyRate float64
	// Profiles is the directory that gets a processor profile of each server; empty: none.
	Profiles string
	// ServerCore is for the servers, LoadCore for the load and Redis.
	ServerCore, LoadCore int
	Connections          int
	InFlight             int
	// Progress gets a line for each round.
	Progress io.Writer
}

// Build is a build of the service.
type Build struct{ Name, Path string }

// Report is what was measured.
type Report struct {
	Time        time.Time
	Machine     string
	Connections int
	InFlight    int
	Rows        []*Row // at saturation
	Latency     []*Row // at half of it
	Envoy       []*Row // behind Envoy
}

// bench is a report on its way.
type bench struct {
	Options
	dir     string
	report  *Report
	servers map[*Row]*server
	stop    []func() error
	redis   *redis
}

// server is a server that is measured.
type server struct {
	*proc.Process
	address string
	store   *proc.Process // nil: within the server
}

// Run starts all servers, measures them and stops them.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	dir, err := os.MkdirTemp("", "ratelimit-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{Options: o, dir: dir, servers: map[*Row]*server{}}
	b.report = &Report{Time: time.Now().UTC(), Machine: machine(), Connections: o.Connections, InFlight: o.InFlight}
	defer func() {
		for _, stop := range slices.Backward(b.stop) {
			err = errors.Join(err, stop())
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	for round := range o.Rounds {
		if err := b.round(ctx, round); err != nil {
			return nil, err
		}
		fmt.Fprintf(o.Progress, "round %d of %d\n", round+1, o.Rounds)
	}
	if len(b.report.Rows) == 0 {
		return b.report, nil
	}
	if o.Profiles != "" {
		if err := b.profiles(ctx); err != nil {
			return nil, err
		}
	}
	if o.Latency {
		if err := b.latency(ctx); err != nil {
			return nil, err
		}
	}
	if o.Envoy != "" {
		if err := b.envoy(ctx); err != nil {
			return nil, err
		}
	}
	return b.report, nil
}

func machine() string {
	info, _ := os.ReadFile("/proc/cpuinfo") // only to be told what it was
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "unknown"
}

// start starts a server for each row.
func (b *bench) start(ctx context.Context) error {
	floors := map[string]*server{}
	for name, option := range map[string]string{FloorDefault: "default", FloorSame: "same"} {
		s, err := b.startServer(nil, b.Floor, "--options", option)
		if err != nil {
			return err
		}
		floors[name] = s
	}
	if slices.Contains(b.Backends, "redis") {
		var err error
		if b.redis, err = b.startRedis(); err != nil {
			return err
		}
	}
	for _, s := range Scenarios() {
		if len(b.Scenarios) > 0 && !slices.Contains(b.Scenarios, s.Name) {
			continue
		}
		for _, floor := range []string{FloorDefault, FloorSame} {
			row := &Row{Scenario: s, Server: floor}
			b.report.Rows = append(b.report.Rows, row)
			b.servers[row] = floors[floor]
		}
		for _, backend := range b.Backends {
			for _, algorithm := range b.algorithms(s) {
				for _, build := range b.Builds {
					row := &Row{Scenario: s, Server: build.Name, Backend: backend, Algorithm: algorithm}
					if err := b.startRow(ctx, row, build); err != nil {
						return fmt.Errorf("%s: %w", row.Name(), err)
					}
					b.report.Rows = append(b.report.Rows, row)
				}
			}
		}
	}
	return nil
}

func (b *bench) algorithms(s Scenario) []string {
	switch {
	case len(b.Algorithms) > 0:
		return b.Algorithms
	case s.All:
		return algo.Algorithms()
	}
	return []string{DefaultAlgorithm.String()}
}

func (b *bench) startRow(ctx context.Context, row *Row, build Build) error {
	rules, err := row.rules(b.dir)
	if err != nil {
		return err
	}
	var env []string
	args := []string{"serve", "--config", rules, "--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--backend", row.Backend}
	if row.Backend == "redis" {
		args = append(args, "--redis-url", loopback(b.redis.port))
		env = []string{"REDIS_TIMEOUT=10s"} // saturated on a core that it shares, Redis may take its time
	}
	s, err := b.startServer(env, build.Path, args...)
	if err != nil {
		return err
	}
	if row.Backend == "redis" {
		s.store = b.redis.Process
	}
	b.servers[row] = s
	if row.Scenario.Fill {
		row.BytesPerKey, err = b.fill(ctx, row, s)
	}
	return err
}

// startServer starts a program that prints where it listens.
func (b *bench) startServer(env []string, path string, args ...string) (*server, error) {
	p, err := proc.Start(b.ServerCore, append(env, "GOMAXPROCS=1"), path, append(args, "--grpc-addr", "127.0.0.1:0")...)
	if err != nil {
		return nil, err
	}
	b.stop = append(b.stop, p.Stop)
	address, err := p.Line("gRPC ")
	return &server{Process: p, address: address}, err
}

// fill has the server count each client once, many in a request, and returns by
// how many bytes a key the memory of the server or its store grew.
func (b *bench) fill(ctx context.Context, row *Row, s *server) (float64, error) {
	const perRequest = 50 // below the service's bound
	calls, err := load.NewCalls(domain, perRequest, row.Scenario.Clients, true, 0)
	if err != nil {
		return 0, err
	}
	keeper := s.Process
	if s.store != nil {
		keeper = s.store
	}
	before, err := keeper.RSS()
	if err != nil {
		return 0, err
	}
	if _, err := load.Run(ctx, load.Options{
		Address: s.address, Workload: calls, Connections: 1, InFlight: 8,
		Duration: 10 * time.Minute, Requests: row.Scenario.Clients / perRequest,
	}); err != nil {
		return 0, err
	}
	after, err := keeper.RSS()
	return float64(after-before) / float64(row.Scenario.Clients), err
}

// round measures each row once. Each round begins at another row, for what runs
// first in a pair might have an advantage.
func (b *bench) round(ctx context.Context, n int) error {
	rows := b.report.Rows
	for i := range rows {
		row := rows[(i+n)%len(rows)]
		sample, err := b.measure(ctx, row, 0, n)
		if err != nil {
			return fmt.Errorf("%s: %w", row.Name(), err)
		}
		row.Samples = append(row.Samples, sample)
	}
	return nil
}

// measure takes one sample, at saturation or at a rate.
func (b *bench) measure(ctx context.Context, row *Row, rate float64, round int) (Sample, error) {
	calls, err := load.NewCalls(domain, row.Scenario.Descriptors, row.Scenario.Clients, false, uint64(round))
	if err != nil {
		return Sample{}, err
	}
	return b.sample(ctx, b.servers[row], calls, rate, round)
}

func (b *bench) sample(ctx context.Context, s *server, w load.Workload, rate float64, round int) (Sample, error) {
	server, store := meter{Process: s.Process}, meter{Process: s.store}
	result, err := load.Run(ctx, load.Options{
		Address: s.address, Workload: w, Connections: b.Connections, InFlight: b.InFlight, Rate: rate,
		Warmup: b.Warmup, Duration: b.Duration, Seed: uint64(round),
		Begin: func() error { return errors.Join(server.read(), store.read()) },
		End:   func() error { return errors.Join(server.read(), store.read()) },
	})
	if err != nil {
		return Sample{}, err
	}
	micros := func(percentile float64) float64 {
		return float64(result.Latency.ValueAtPercentile(percentile)) / 1000
	}
	return Sample{
		Answers: result.Answers, Refused: result.Refused, Seconds: result.Elapsed.Seconds(),
		ServerCPU: server.micros() / float64(result.Answers), StoreCPU: store.micros() / float64(result.Answers),
		P50: micros(50), P99: micros(99), P999: micros(99.9),
	}, nil
}

// meter reads how much processor time a process used between two readings.
type meter struct {
	*proc.Process
	last, used time.Duration
}

func (m *meter) read() error {
	if m.Process == nil {
		return nil
	}
	now, err := m.CPU()
	m.used, m.last = now-m.last, now
	return err
}

func (m *meter) micros() float64 { return float64(m.used.Nanoseconds()) / 1000 }

// openRows returns what the open loop measures: the first scenario with one
// algorithm.
func (b *bench) openRows() (rows []*Row) {
	for _, row := range b.report.Rows {
		if row.Scenario.Name == b.report.Rows[0].Scenario.Name && (row.isFloor() || row.Algorithm == b.algorithms(Scenario{})[0]) {
			rows = append(rows, row)
		}
	}
	return rows
}

// again returns the row without its samples.
func (r *Row) again() *Row {
	other := *r
	other.Samples, other.BytesPerKey = nil, 0
	return &other
}

// latency measures in the open loop, at half of the rate that saturated the
// slowest server.
func (b *bench) latency(ctx context.Context) error {
	slowest := math.Inf(1)
	for _, row := range b.openRows() {
		slowest = min(slowest, median(row.Samples, perSecond))
		open := row.again()
		b.servers[open] = b.servers[row]
		b.report.Latency = append(b.report.Latency, open)
	}
	rate := slowest / 2
	for round := range b.Rounds {
		for i := range b.report.Latency {
			row := b.report.Latency[(i+round)%len(b.report.Latency)]
			sample, err := b.measure(ctx, row, rate, round)
			if err != nil {
				return fmt.Errorf("%s at %.0f a second: %w", row.Name(), rate, err)
			}
			row.Samples = append(row.Samples, sample)
		}
	}
	return nil
}
