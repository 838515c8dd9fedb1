// Package watch measures what watching decisions as they happen (ratelimit tail, the page)
// costs the service: its processor time per request without watchers and with some, in
// rounds that take turns, so that a change of the machine's load meets all alike.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distlimiter/ratelimit/bench/load"
	"github.com/distlimiter/ratelimit/bench/proc"
)

// Options of a run.
type Options struct {
	Service string // path of the binary
	// Watchers are the numbers of watchers to compare. The first is what the others are
	// compared with.
	Watchers []int
	Rounds   int
	Duration time.Duration // of each measurement
	// Rate of requests a second; 0: as many as are answered.
	Rate float64
	// Core is for the service, -1 for any.
	Core int
}

// Result has for each of Options.Watchers the processor time per request of each round.
type Result struct {
	Watchers []int
	CPU      [][]time.Duration
}

// settled is the time after which a watcher's share of the decisions fits their rate.
const settled = time.Second

// rules refuse much, and let some pass, so that watchers see both.
var rules = `
domain: bench
descriptors:
  - key: ` + load.DescriptorKeys[0] + `
    rate_limit: {algorithm: token_bucket, unit: second, requests_per_unit: 1}
`

// Run starts the service, measures it and stops it.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	dir, err := os.MkdirTemp("", "ratelimit-watch-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "rules.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		return nil, err
	}
	p, err := proc.Start(o.Core, []string{"MAX_WAIT=0"}, o.Service, "serve", "--config", file, "--backend", "memory",
		"--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	address, err := p.Line("gRPC ")
	if err != nil {
		return nil, err
	}
	admin, err := p.Line("Admin ")
	if err != nil {
		return nil, err
	}
	calls, err := load.NewCalls("bench", 1, 10_000, false, 1)
	if err != nil {
		return nil, err
	}
	options := load.Options{Address: address, Workload: calls, Connections: 4, InFlight: 64, Rate: o.Rate, Warmup: settled, Duration: o.Duration}
	result = &Result{Watchers: o.Watchers, CPU: make([][]time.Duration, len(o.Watchers))}
	for range o.Rounds {
		for i, n := range o.Watchers {
			cpu, err := measure(ctx, options, p, admin, n)
			if err != nil {
				return nil, err
			}
			result.CPU[i] = append(result.CPU[i], cpu)
		}
	}
	return result, nil
}

// measure returns the processor time per request while some watch.
func measure(ctx context.Context, o load.Options, p *proc.Process, admin string, watchers int) (time.Duration, error) {
	watching, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	defer done.Wait()
	defer stop()
	for range watchers {
		r, err := http.NewRequestWithContext(watching, http.MethodGet, "http://"+admin+"/admin/live", http.NoBody)
		if err != nil {
			return 0, err
		}
		stream, err := http.DefaultClient.Do(r) // returns when the service has begun the stream
		if err != nil {
			return 0, err
		}
		if stream.StatusCode != http.StatusOK {
			_ = stream.Body.Close()
			return 0, fmt.Errorf("a watcher is answered with %s", stream.Status)
		}
		done.Go(func() {
			_, _ = io.Copy(io.Discard, stream.Body) // until stop
			_ = stream.Body.Close()
		})
	}
	var before, after time.Duration
	o.Begin = func() (err error) { before, err = p.CPU(); return err }
	o.End = func() (err error) { after, err = p.CPU(); return err }
	r, err := load.Run(ctx, o)
	if err != nil {
		return 0, err
	}
	return (after - before) / time.Duration(r.Answers), nil
}

// Write prints the medians as a table.
func (r *Result) Write(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| watchers | CPU per request | beside the first |\n| ---: | ---: | ---: |\n")
	for i, n := range r.Watchers {
		ratios := make([]float64, len(r.CPU[i]))
		for round, cpu := range r.CPU[i] {
			ratios[round] = float64(cpu) / float64(r.CPU[0][round])
		}
		fmt.Fprintf(&b, "| %d | %.2f µs | %.2f × |\n", n, float64(median(r.CPU[i]).Nanoseconds())/1000, median(ratios))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// median is the middle one, or the larger of the two in the middle.
func median[T time.Duration | float64](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
