// Package report compares the service with servers that do nothing: processor time per
// request at saturation, and latency at half of it, for each algorithm and store. All
// servers run at once on one core with GOMAXPROCS=1, and the load on another. They are
// measured in turns, round after round, so that other work of the machine affects all of
// them alike.
package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/distlimiter/ratelimit/bench/load"
	"github.com/distlimiter/ratelimit/internal/algo"
)

// domain of the rules that are measured.
const domain = "bench"

// Scenario is a kind of load.
type Scenario struct {
	Name        string // short, for columns and benchmark names
	Title       string
	Descriptors int
	Clients     int
	// Limit of each client, chosen so that keys stay in use and, except in the scenario
	// refused, requests are admitted.
	Limit, Unit string
	// Connections is how many share the load; 0: as in the options.
	Connections int
	// Fill counts each client once before measuring.
	Fill bool
	// Holds: each request asks and settles, in a call each, under a rule that holds.
	Holds bool `json:",omitempty"`
	// All algorithms are measured by default, or just DefaultAlgorithm.
	All bool
	// Modes of Redis to measure; none: the default one.
	Modes []string
}

// Scenarios are the kinds of load that are reported.
func Scenarios() []Scenario {
	return []Scenario{
		{Name: "base", Title: "1 descriptor, 10,000 keys", Descriptors: 1, Clients: 10_000, Limit: "10000", Unit: "hour", All: true},
		{Name: "eight", Title: "8 descriptors, 10,000 keys each", Descriptors: 8, Clients: 10_000, Limit: "10000", Unit: "hour", All: true},
		{Name: "hot", Title: "1 descriptor, a hot key", Descriptors: 1, Clients: 1, Limit: "65000", Unit: "second", All: true, Modes: []string{Plain, Combined, Leased}},
		{Name: "million", Title: "1 descriptor, 1,000,000 live keys", Descriptors: 1, Clients: 1_000_000, Limit: "100", Unit: "day", Fill: true, All: true},
		{Name: "refused", Title: "1 descriptor, 10,000 keys, all refused", Descriptors: 1, Clients: 10_000, Limit: "1", Unit: "day"},
		{Name: "one", Title: "1 descriptor, 10,000 keys, all requests on one connection", Descriptors: 1, Clients: 10_000, Limit: "10000", Unit: "hour", Connections: 1},
		{Name: "many", Title: "1 descriptor, 10,000 keys, each request on a connection of its own", Descriptors: 1, Clients: 10_000, Limit: "10000", Unit: "hour", Connections: Each},
		{Name: "holds", Title: "1 descriptor, 10,000 keys, every other call settles what another holds", Descriptors: 1, Clients: 10_000, Limit: "1000", Unit: "second", Holds: true},
	}
}

// Each is the number of connections that gives each request in flight its own.
const Each = -1

// How requests for a hot key reach Redis.
const (
	Plain    = "plain"    // each in a call of its own
	Combined = "combined" // together with those that came meanwhile, which is the default
	Leased   = "leased"   // spent from hits taken ahead
)

// leaseShare is the part of the limit that leases may take ahead.
const leaseShare = "0.1"

// The servers that do nothing, by their options of grpc-go. The tuned one also has the
// service's other tuning that any server could have: how much garbage may pile up, and the
// profile for the compiler.
const (
	FloorDefault = "floor, default options"
	FloorSame    = "floor, same options"
	FloorTuned   = "floor, same options, tuned"
)

// garbage is how many MiB the tuned floor lets pile up: the most that the service does.
const garbage = "32"

// DefaultAlgorithm is the algorithm of scenarios that do not measure all.
const DefaultAlgorithm = algo.TokenBucket

// Row is one server under one load.
type Row struct {
	Scenario Scenario
	// Server is a floor or the name of a build of the service.
	Server string
	// Backend and Algorithm of a build of the service; empty for a floor.
	Backend   string `json:",omitempty"`
	Algorithm string `json:",omitempty"`
	// Mode of Redis, where there is a choice.
	Mode    string `json:",omitempty"`
	Samples []Sample
	// BytesPerKey is how much the resident memory of the server, or of its store,
	// grew for each key when all were filled in; 0 if they were not.
	BytesPerKey float64 `json:",omitempty"`
	// Distribution of the latencies of all samples, of open loops.
	Distribution []Quantile `json:",omitempty"`

	// AtRest is the server's resident memory in bytes before its first request, Peak the
	// most that it had in the rounds.
	AtRest, Peak float64 `json:",omitempty"`

	latency *hdrhistogram.Histogram // of all samples
	failed  bool                    // a service of others gave no answers
	onError string                  // on_backend_error of its rules; empty: the default
}

// Quantile is a latency, in microseconds, that Percent of the requests did not exceed.
type Quantile struct{ Percent, Micros float64 }

// percents are those of a distribution.
var percents = [...]float64{0, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.99}

// Sample is one measurement of a row.
type Sample struct {
	Answers, Refused int
	Seconds          float64
	// ServerCPU and StoreCPU are microseconds of processor time per request.
	ServerCPU, StoreCPU float64
	// P50, P99 and P999 are latencies in microseconds.
	P50, P99, P999 float64
	// Lag is the 99th percentile of how late the open loop itself was, in microseconds.
	Lag float64 `json:",omitempty"`
}

// Name returns the row's name in benchmark results.
func (r *Row) Name() string {
	if r.isFloor() {
		return fmt.Sprintf("scenario=%s/server=%s", r.Scenario.Name, strings.NewReplacer(", ", "-", " ", "-").Replace(r.Server))
	}
	name := fmt.Sprintf("scenario=%s/backend=%s/algorithm=%s", r.Scenario.Name, r.Backend, r.Algorithm)
	if r.Mode != "" {
		name += "/mode=" + r.Mode
	}
	return name
}

func (r *Row) isFloor() bool { return r.Backend == "" }

// rules writes the rules that a row needs and returns the file's path.
func (r *Row) rules(dir string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "domain: %s\n", domain)
	if r.Scenario.Holds {
		key := load.DescriptorKeys[0]
		fmt.Fprintf(&b, "limits:\n  - name: held\n    match: {%s: {}}\n    count_by: [%s]\n    hold: {by: %s, expires: 60s, settled_by: {%s: %s}}\n    rate_limit:\n      algorithm: %s\n      requests_per_unit: %s\n",
			key, key, load.HoldKey, load.SettlingKey, load.SettlingValue, r.Algorithm, r.Scenario.Limit)
		if !concurrent(r.Algorithm) {
			fmt.Fprintf(&b, "      unit: %s\n", r.Scenario.Unit)
		}
		return r.save(dir, b.String())
	}
	b.WriteString("descriptors:\n")
	for _, key := range load.DescriptorKeys {
		fmt.Fprintf(&b, "  - key: %s\n    rate_limit:\n      unit: %s\n      requests_per_unit: %s\n", key, r.Scenario.Unit, r.Scenario.Limit)
		if r.Algorithm != algo.FixedWindow.String() { // the default, for services that do not know the field
			fmt.Fprintf(&b, "      algorithm: %s\n", r.Algorithm)
		}
		if r.onError != "" {
			fmt.Fprintf(&b, "      on_backend_error: %s\n", r.onError)
		}
		if r.Algorithm == algo.LeakyBucket.String() {
			fmt.Fprintf(&b, "      burst: %s\n", r.Scenario.Limit)
		}
		if r.Mode == Leased {
			fmt.Fprintf(&b, "      lease: %s\n", leaseShare)
		}
	}
	return r.save(dir, b.String())
}

func (r *Row) save(dir, rules string) (string, error) {
	path := filepath.Join(dir, fileName(r.Name())+".yaml")
	return path, os.WriteFile(path, []byte(rules), 0o600)
}

// fileName returns the name of a row as that of a file.
func fileName(row string) string { return strings.NewReplacer("/", "-", "=", "-").Replace(row) }

// calls returns the load of a scenario.
func (s Scenario) calls(seed uint64) (load.Workload, error) {
	if s.Holds {
		return load.NewHolds(domain, s.Clients, seed)
	}
	return load.NewCalls(domain, s.Descriptors, s.Clients, false, seed)
}

// concurrent reports whether the algorithm limits nothing but what is held.
func concurrent(algorithm string) bool {
	a, err := algo.ParseAlgorithm(algorithm)
	return err == nil && a.AlwaysHolds()
}

// measures reports whether the algorithm can be measured in the scenario.
func (s Scenario) measures(algorithm string) bool {
	if !s.Holds {
		return !concurrent(algorithm)
	}
	a, err := algo.ParseAlgorithm(algorithm)
	_, can := a.CanHold()
	return err == nil && can
}
