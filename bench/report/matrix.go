// Package report measures the service beside servers that do nothing: processor
// time per request at saturation, latency at half of it, for each algorithm and
// store. All servers run at once, each request by request on one core with
// GOMAXPROCS=1 and the load on another; they are measured in turns, round after
// round, so that whatever else the machine does meets all of them alike.
package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
	// Limit of each client, chosen so that keys are in use throughout and requests
	// are admitted, but for Refused.
	Limit, Unit string
	// Fill has each client counted before measuring.
	Fill bool
	// All algorithms are measured by default, or just DefaultAlgorithm.
	All bool
}

// Scenarios are the kinds of load that are reported.
func Scenarios() []Scenario {
	return []Scenario{
		{Name: "base", Title: "1 descriptor, 10,000 keys", Descriptors: 1, Clients: 10_000, Limit: "10000", Unit: "hour", All: true},
		{Name: "eight", Title: "8 descriptors, 10,000 keys each", Descriptors: 8, Clients: 10_000, Limit: "10000", Unit: "hour"},
		{Name: "hot", Title: "1 descriptor, a hot key", Descriptors: 1, Clients: 1, Limit: "65000", Unit: "second"},
		{Name: "million", Title: "1 descriptor, 1,000,000 live keys", Descriptors: 1, Clients: 1_000_000, Limit: "100", Unit: "day", Fill: true},
		{Name: "refused", Title: "1 descriptor, 10,000 keys, all refused", Descriptors: 1, Clients: 10_000, Limit: "1", Unit: "day"},
	}
}

// The servers that do nothing, by the options of grpc-go that they run with.
const (
	FloorDefault = "floor, default options"
	FloorSame    = "floor, same options"
)

// DefaultAlgorithm is what scenarios that do not take all are measured with.
const DefaultAlgorithm = algo.TokenBucket

// Row is one server under one load.
type Row struct {
	Scenario Scenario
	// Server is FloorDefault, FloorSame or the name of a build of the service.
	Server string
	// Backend and Algorithm of a build of the service; empty for a floor.
	Backend, Algorithm string
	Samples            []Sample
	// BytesPerKey is how much the resident memory of the server, or of its store,
	// grew for each key when all were filled in; 0 if they were not.
	BytesPerKey float64 `json:",omitempty"`
}

// Sample is one measurement of a row.
type Sample struct {
	Answers, Refused int
	Seconds          float64
	// ServerCPU and StoreCPU are microseconds of processor time per request.
	ServerCPU, StoreCPU float64
	// P50, P99 and P999 are latencies in microseconds.
	P50, P99, P999 float64
}

// Name is the row's in benchmark results.
func (r *Row) Name() string {
	if r.isFloor() {
		return fmt.Sprintf("scenario=%s/server=%s", r.Scenario.Name, strings.NewReplacer(", ", "-", " ", "-").Replace(r.Server))
	}
	return fmt.Sprintf("scenario=%s/backend=%s/algorithm=%s", r.Scenario.Name, r.Backend, r.Algorithm)
}

func (r *Row) isFloor() bool { return r.Server == FloorDefault || r.Server == FloorSame }

// rules writes the rules that a row needs and returns the file's path.
func (r *Row) rules(dir string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "domain: %s\ndescriptors:\n", domain)
	for _, key := range load.DescriptorKeys {
		fmt.Fprintf(&b, "  - key: %s\n    rate_limit:\n      algorithm: %s\n      unit: %s\n      requests_per_unit: %s\n",
			key, r.Algorithm, r.Scenario.Unit, r.Scenario.Limit)
		if r.Algorithm == algo.LeakyBucket.String() {
			fmt.Fprintf(&b, "      burst: %s\n", r.Scenario.Limit)
		}
	}
	path := filepath.Join(dir, strings.NewReplacer("/", "-", "=", "-").Replace(r.Name())+".yaml")
	return path, os.WriteFile(path, []byte(b.String()), 0o600)
}
