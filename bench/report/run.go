package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/distlimiter/ratelimit/bench/load"
	"github.com/distlimiter/ratelimit/bench/proc"
	"github.com/distlimiter/ratelimit/internal/algo"
)

// Options of a report.
type Options struct {
	// Floor is the path of the floor server, TunedFloor that of the same built with
	// the service's profile, Builds are the builds of the service.
	Floor, TunedFloor string
	Builds            []Build
	// Others are services of others, measured with a fixed window where that is measured.
	Others []Other
	// Freeze has timeouts of requests, with each of which the Redis of each server is
	// frozen, too.
	Freeze []time.Duration
	// Frozen is for how long.
	Frozen time.Duration
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
	// Latency turns on measuring latency in the first scenario. If Envoy is a path, it is
	// also measured behind that Envoy, at EnvoyRate requests a second.
	Latency   bool
	Envoy     string
	EnvoyRate float64
	// Rates are requests a second at which the first scenario is measured, too.
	Rates []float64
	// Profiles is the directory that gets a processor profile of each server; empty: none.
	Profiles string
	// ServerCore is for the servers, LoadCore for the load and Redis.
	ServerCore, LoadCore int
	Connections          int
	InFlight             int
	// Progress gets a line for each round.
	Progress io.Writer
}

// Build is a build of the service, with variables to run it with.
type Build struct {
	Name, Path string
	Env        []string
}

// Report holds the measurements.
type Report struct {
	Time        time.Time
	Machine     string
	Connections int
	InFlight    int
	Rounds      int
	Rows        []*Row   // at saturation
	Latency     [][]*Row // at half of what saturates the last row of each group
	Rates       [][]*Row `json:",omitempty"` // at each of [Options.Rates]
	Envoy       []*Row   // behind Envoy
	Freezes     []Freeze `json:",omitempty"`
	// Notes list what could not be measured.
	Notes []string `json:",omitempty"`
}

// bench is a report in progress.
type bench struct {
	Options
	dir     string
	report  *Report
	servers map[*Row]*server
	stop    []func() error
	redis   map[string]*redis // by scenario: the keys of one would slow down the others
}

// server is a measured server.
type server struct {
	*proc.Process
	address string
	store   *proc.Process // nil: within the server
}

// Run starts all servers, measures them and stops them. If it fails after the last round, it
// returns the measurements with the error.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	dir, err := os.MkdirTemp("", "ratelimit-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{Options: o, dir: dir, servers: map[*Row]*server{}, redis: map[string]*redis{}}
	b.report = &Report{Time: time.Now().UTC(), Machine: machine(), Connections: o.Connections, InFlight: o.InFlight, Rounds: o.Rounds}
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
	for _, row := range b.report.Rows {
		peak, err := b.servers[row].PeakRSS()
		if err != nil {
			return nil, err
		}
		row.Peak = float64(peak)
	}
	if len(b.report.Rows) == 0 {
		return b.report, nil
	}
	// From here on there is something to report, whatever else fails.
	if o.Profiles != "" {
		if err := b.profiles(ctx); err != nil {
			return b.report, err
		}
	}
	if o.Latency {
		if err := b.latency(ctx); err != nil {
			return b.report, err
		}
	}
	if err := b.rates(ctx); err != nil {
		return b.report, err
	}
	if o.Envoy != "" {
		if err := b.envoy(ctx); err != nil {
			return b.report, err
		}
	}
	if len(b.Freeze) > 0 {
		if err := b.freeze(ctx); err != nil {
			return b.report, err
		}
	}
	return b.report, nil
}

func machine() string {
	info, _ := os.ReadFile("/proc/cpuinfo") // only for the report
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "unknown"
}

// start starts a server for each row.
func (b *bench) start(ctx context.Context) error {
	floors, err := b.startFloors()
	if err != nil {
		return err
	}
	for _, s := range Scenarios() {
		if len(b.Scenarios) > 0 && !slices.Contains(b.Scenarios, s.Name) {
			continue
		}
		fmt.Fprintf(b.Progress, "starting servers: %s\n", s.Title)
		for _, f := range floors {
			row := &Row{Scenario: s, Server: f.name}
			b.report.Rows = append(b.report.Rows, row)
			b.servers[row] = f.server
		}
		if slices.Contains(b.Backends, "redis") {
			if b.redis[s.Name], err = b.startRedis(); err != nil {
				return err
			}
		}
		for _, row := range b.rows(s) {
			if err := b.startRow(ctx, row); err != nil {
				return fmt.Errorf("%s: %w", row.Name(), err)
			}
		}
		for i := range b.Others {
			if s.Holds {
				break // a build's alone
			}
			if err := b.startOther(ctx, &b.Others[i], s); err != nil {
				return fmt.Errorf("%s: %w", b.Others[i].Name, err)
			}
		}
	}
	return nil
}

type namedServer struct {
	name   string
	server *server
}

func (b *bench) startFloors() (floors []namedServer, err error) {
	for _, f := range []struct {
		name, path string
		args       []string
	}{
		{FloorDefault, b.Floor, []string{"--options", "default"}},
		{FloorSame, b.Floor, []string{"--options", "same"}},
		{FloorTuned, b.TunedFloor, []string{"--options", "same", "--garbage", garbage}},
	} {
		s, err := b.startServer(nil, f.path, f.args...)
		if err != nil {
			return nil, err
		}
		floors = append(floors, namedServer{f.name, s})
	}
	return floors, nil
}

// rows returns the rows of the service in a scenario.
func (b *bench) rows(s Scenario) (rows []*Row) {
	for _, backend := range b.Backends {
		modes := []string{""}
		if backend == "redis" && len(s.Modes) > 0 {
			modes = s.Modes
		}
		for _, mode := range modes {
			for _, algorithm := range b.algorithms(s) {
				for _, build := range b.Builds {
					rows = append(rows, &Row{Scenario: s, Server: build.Name, Backend: backend, Algorithm: algorithm, Mode: mode})
				}
			}
		}
	}
	return rows
}

func (b *bench) algorithms(s Scenario) []string {
	names := []string{DefaultAlgorithm.String()}
	switch {
	case len(b.Algorithms) > 0:
		names = slices.Clone(b.Algorithms)
	case s.All:
		names = algo.Algorithms()
	case s.Holds:
		names = append(names, algo.Concurrency.String())
	}
	return slices.DeleteFunc(names, func(name string) bool { return !s.measures(name) })
}

func (b *bench) startRow(ctx context.Context, row *Row) error {
	rules, err := row.rules(b.dir)
	if err != nil {
		return err
	}
	build := b.build(row.Server)
	if row.Mode == Leased {
		// Older builds, with which this one may be compared, have no leases.
		if out, err := exec.CommandContext(ctx, build.Path, "check", rules).CombinedOutput(); err != nil { //nolint:gosec // a build that it is told to measure
			fmt.Fprintf(b.Progress, "%s: %s\n", row.Name(), firstLine(out))
			b.note("%s: no leased hot key: the build does not take `lease: %s` in rules.", row.Server, leaseShare)
			return nil //nolint:nilerr // noted in the report, and the row left out
		}
	}
	// If the machine takes the core away for a while, the service would shed the requests
	// that waited. Here they must show in the latency instead.
	env := []string{"MAX_WAIT=0"}
	args := []string{"serve", "--config", rules, "--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--backend", row.Backend}
	if row.Backend == "redis" {
		args = append(args, "--redis-url", loopback(b.redis[row.Scenario.Name].port))
		// Redis, saturated on a shared core, may be slow.
		env = append(env, "REDIS_TIMEOUT=10s", "REDIS_DIAL_TIMEOUT=10s", "REDIS_BREAK_AFTER=1000000")
		if row.Mode == Plain {
			env = append(env, "REDIS_COMBINING=false")
		}
	}
	s, err := b.startServer(append(env, build.Env...), build.Path, args...)
	if err != nil {
		return err
	}
	if row.Backend == "redis" {
		s.store = b.redis[row.Scenario.Name].Process
	}
	return b.add(ctx, row, s, fillPerRequest)
}

// add adds a started server. If the scenario asks for that, it has each client counted
// once, some in each request.
func (b *bench) add(ctx context.Context, row *Row, s *server, perRequest int) error {
	b.servers[row] = s
	b.report.Rows = append(b.report.Rows, row)
	rest, err := s.RSS()
	row.AtRest = float64(rest)
	if err == nil && row.Scenario.Fill {
		row.BytesPerKey, err = b.fill(ctx, row, s, perRequest)
	}
	return err
}

func (b *bench) isBuild(name string) bool {
	return slices.ContainsFunc(b.Builds, func(build Build) bool { return build.Name == name })
}

func (b *bench) build(name string) Build {
	return b.Builds[slices.IndexFunc(b.Builds, func(build Build) bool { return build.Name == name })]
}

// note adds a note to the report.
func (b *bench) note(format string, args ...any) {
	note := fmt.Sprintf(format, args...)
	if !slices.Contains(b.report.Notes, note) {
		b.report.Notes = append(b.report.Notes, note)
		fmt.Fprintln(b.Progress, note)
	}
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}

// startServer starts a program that prints its address.
func (b *bench) startServer(env []string, path string, args ...string) (*server, error) {
	p, err := proc.Start(b.ServerCore, append(env, "GOMAXPROCS=1"), path, append(args, "--grpc-addr", "127.0.0.1:0")...)
	if err != nil {
		return nil, err
	}
	b.stop = append(b.stop, p.Stop)
	address, err := p.Line("gRPC ")
	return &server{Process: p, address: address}, err
}

// fillPerRequest is how many clients fill counts in each request to a build: below the
// service's bound.
const fillPerRequest = 50

// fill makes the server count each client once. It returns how many bytes the memory of the
// server or its store grew for each key.
func (b *bench) fill(ctx context.Context, row *Row, s *server, perRequest int) (float64, error) {
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

// round measures each row once. Each round begins at another row, because the first of a
// pair might have an advantage.
func (b *bench) round(ctx context.Context, n int) error {
	rows := b.report.Rows
	for i := range rows {
		row := rows[(i+n)%len(rows)]
		if row.failed {
			continue
		}
		sample, err := b.measure(ctx, row, 0, n)
		if err != nil && !row.isFloor() && !b.isBuild(row.Server) && ctx.Err() == nil {
			b.note("%s, %s: %v.", row.title(), row.Scenario.Title, err)
			row.failed = true
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", row.title(), err)
		}
		row.Samples = append(row.Samples, sample)
	}
	return nil
}

// measure takes one sample, at saturation or at a rate.
func (b *bench) measure(ctx context.Context, row *Row, rate float64, round int) (Sample, error) {
	calls, err := row.Scenario.calls(uint64(round))
	if err != nil {
		return Sample{}, err
	}
	return b.sample(ctx, row, b.servers[row], calls, rate, round)
}

// attempts is how often a sample is tried. A machine with other work may starve a server for
// seconds; that must not lose all the samples taken before.
const attempts = 3

func (b *bench) sample(ctx context.Context, row *Row, s *server, w load.Workload, rate float64, round int) (sample Sample, err error) {
	for range attempts {
		if sample, err = b.try(ctx, row, s, w, rate, round); err == nil || ctx.Err() != nil {
			return sample, err
		}
		fmt.Fprintf(b.Progress, "%s: trying again: %v\n", row.Name(), err)
	}
	return sample, err
}

func (b *bench) try(ctx context.Context, row *Row, s *server, w load.Workload, rate float64, round int) (Sample, error) {
	connections := b.Connections
	switch n := row.Scenario.Connections; {
	case n == Each:
		connections = b.InFlight
	case n > 0:
		connections = n
	}
	server, store := meter{Process: s.Process}, meter{Process: s.store}
	result, err := load.Run(ctx, load.Options{
		Address: s.address, Workload: w, Connections: connections, InFlight: b.InFlight, Rate: rate,
		Warmup: b.Warmup, Duration: b.Duration, Seed: uint64(round),
		Begin: func() error { return errors.Join(server.read(), store.read()) },
		End:   func() error { return errors.Join(server.read(), store.read()) },
	})
	if err != nil {
		return Sample{}, err
	}
	if rate > 0 {
		if row.latency == nil {
			row.latency = hdrhistogram.Import(result.Latency.Export())
		} else {
			row.latency.Merge(result.Latency)
		}
	}
	micros := func(percentile float64) float64 {
		return float64(result.Latency.ValueAtPercentile(percentile)) / 1000
	}
	return Sample{
		Answers: result.Answers, Refused: result.Refused, Seconds: result.Elapsed.Seconds(),
		ServerCPU: server.micros() / float64(result.Answers), StoreCPU: store.micros() / float64(result.Answers),
		P50: micros(50), P99: micros(99), P999: micros(99.9), Lag: float64(result.Lag.ValueAtPercentile(99)) / 1000,
	}, nil
}

// distribute computes the distribution of the latencies of all samples.
func (r *Row) distribute() {
	for _, p := range percents {
		r.Distribution = append(r.Distribution, Quantile{p, float64(r.latency.ValueAtPercentile(p)) / 1000})
	}
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

// openRows returns the rows of the open loops: the first scenario with one algorithm, and
// the floors.
func (b *bench) openRows() (floors, ours []*Row) {
	first := b.report.Rows[0].Scenario
	for _, row := range b.report.Rows {
		switch {
		case row.Scenario.Name != first.Name || row.failed:
		case row.isFloor():
			floors = append(floors, row)
		case row.Algorithm == b.algorithms(Scenario{})[0] && (row.Mode == "" || row.Mode == Combined):
			ours = append(ours, row)
		}
	}
	return floors, ours
}

// again returns the row without its samples.
func (r *Row) again() *Row {
	other := *r
	other.Samples, other.BytesPerKey = nil, 0
	return &other
}

// latency measures in the open loop: each store at half of its saturating rate, and the
// floors at the same rate.
func (b *bench) latency(ctx context.Context) error {
	floors, ours := b.openRows()
	for _, backend := range b.Backends {
		group := slices.Clone(floors)
		rate := math.Inf(1)
		for _, row := range ours {
			if row.Backend == backend {
				group = append(group, row)
				rate = min(rate, median(row.Samples, PerSecond)/2)
			}
		}
		if err := b.at(ctx, rate, group); err != nil {
			return err
		}
		b.report.Latency = append(b.report.Latency, group)
	}
	return nil
}

// rates measures in the open loop at given rates.
func (b *bench) rates(ctx context.Context) error {
	floors, ours := b.openRows()
	for _, rate := range b.Rates {
		group := slices.Concat(floors, ours)
		if err := b.at(ctx, rate, group); err != nil {
			return err
		}
		b.report.Rates = append(b.report.Rates, group)
	}
	return nil
}

// at replaces the rows of the group by what they measure at a rate.
func (b *bench) at(ctx context.Context, rate float64, group []*Row) error {
	for i, row := range group {
		group[i] = row.again()
		b.servers[group[i]] = b.servers[row]
	}
	if err := b.open(ctx, group, func(row *Row, round int) (Sample, error) {
		return b.measure(ctx, row, rate, round)
	}); err != nil {
		return fmt.Errorf("at %.0f a second: %w", rate, err)
	}
	return nil
}

// open measures rows in the open loop, in turns.
func (b *bench) open(ctx context.Context, rows []*Row, measure func(row *Row, round int) (Sample, error)) error {
	for round := range b.Rounds {
		for i := range rows {
			if err := ctx.Err(); err != nil {
				return err
			}
			row := rows[(i+round)%len(rows)]
			sample, err := measure(row, round)
			if err != nil {
				return fmt.Errorf("%s: %w", row.title(), err)
			}
			row.Samples = append(row.Samples, sample)
		}
	}
	for _, row := range rows {
		row.distribute()
	}
	return nil
}
