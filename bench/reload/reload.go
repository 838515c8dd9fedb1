// Package reload measures how long answers take while the service reloads a large file of
// rules, and compares that with the time between reloads. The load is an open loop at half
// of the saturating rate. Every few seconds the file is swapped for one that differs in one
// rule, or in every rule.
package reload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc/codes"

	"github.com/distlimiter/ratelimit/bench/load"
	"github.com/distlimiter/ratelimit/bench/proc"
)

// Options of a run.
type Options struct {
	Service string // path of the binary
	Rules   int
	// Every is how often the file is swapped. All makes every rule differ.
	Every time.Duration
	All   bool
	// Rate of requests a second; 0: half of the saturating rate.
	Rate     float64
	Duration time.Duration
	// Core is for the service, -1 for any.
	Core int
}

// Result of a run.
type Result struct {
	Rate    float64
	Reloads []time.Duration
	// Between and During reloads, in nanoseconds.
	Between, During *hdrhistogram.Histogram
}

const (
	connections = 4
	clients     = 10_000
	longest     = int64(time.Minute)
)

// Run starts the service, measures it and stops it.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	dir, err := os.MkdirTemp("", "ratelimit-reload-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	files, err := newFiles(dir, o.Rules, o.All)
	if err != nil {
		return nil, err
	}
	// Requests that wait must show in the latency, and not be refused.
	p, err := proc.Start(o.Core, []string{"MAX_WAIT=0"}, o.Service, "serve", "--config", files.current, "--backend", "memory",
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
	return measure(ctx, o, files, address, admin)
}

func measure(ctx context.Context, o Options, files *files, address, admin string) (*Result, error) {
	calls, err := load.NewCalls("bench", 1, clients, false, 1)
	if err != nil {
		return nil, err
	}
	options := load.Options{Address: address, Workload: calls, Connections: connections, InFlight: 64, Rate: o.Rate, Warmup: time.Second}
	if o.Rate == 0 {
		options.Duration = 2 * time.Second
		saturated, err := load.Run(ctx, options)
		if err != nil {
			return nil, err
		}
		options.Rate = saturated.PerSecond() / 2
	}
	var all []sample
	options.Duration = o.Duration
	options.Each = func(due time.Time, latency time.Duration, _ codes.Code) { all = append(all, sample{due, latency}) }
	all = make([]sample, 0, int(options.Rate*o.Duration.Seconds()*1.1))
	swapping, stop := context.WithCancel(ctx)
	swapped := make(chan error, 1)
	go func() { swapped <- files.swap(swapping, o.Every) }()
	_, err = load.Run(ctx, options)
	stop()
	if err := errors.Join(err, <-swapped); err != nil {
		return nil, err
	}
	reloads, err := history(ctx, admin)
	if err != nil {
		return nil, err
	}
	return classify(options.Rate, all, reloads), nil
}

// sample is one answer.
type sample struct {
	due     time.Time
	latency time.Duration
}

// attempt is a reload as the service records it.
type attempt struct {
	Time     time.Time
	Duration time.Duration `json:"duration_ns"`
	Outcome  string
}

// history asks the service when it loaded rules.
func history(ctx context.Context, admin string) ([]attempt, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/admin/reloads", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var status struct{ History []attempt }
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return nil, fmt.Errorf("/admin/reloads: %w", err)
	}
	return status.History, nil
}

// classify separates answers that were due during a reload from the others.
func classify(rate float64, all []sample, reloads []attempt) *Result {
	r := &Result{Rate: rate, Between: hdrhistogram.New(1, longest, 3), During: hdrhistogram.New(1, longest, 3)}
	if len(all) == 0 {
		return r
	}
	var within []attempt
	for _, a := range reloads {
		if a.Outcome == "loaded" && a.Time.After(all[0].due) {
			within = append(within, a)
			r.Reloads = append(r.Reloads, a.Duration)
		}
	}
	for _, s := range all {
		into := r.Between
		for _, a := range within {
			if !s.due.Before(a.Time) && s.due.Before(a.Time.Add(a.Duration)) {
				into = r.During
			}
		}
		_ = into.RecordValue(min(int64(s.latency), longest)) // in range
	}
	return r
}

// Write writes the result as a table.
func (r *Result) Write(out io.Writer) error {
	if len(r.Reloads) == 0 {
		return errors.New("no reload was seen: measure for longer, or swap more often")
	}
	total, most := time.Duration(0), time.Duration(0)
	for _, d := range r.Reloads {
		total += d
		most = max(most, d)
	}
	fmt.Fprintf(out, "%d reloads at %.0f requests a second: %v on average, %v at most\n", len(r.Reloads), r.Rate,
		(total / time.Duration(len(r.Reloads))).Round(time.Millisecond), most.Round(time.Millisecond))
	fmt.Fprintf(out, "%-8s %12s %12s %6s\n", "", "between", "during", "ratio")
	for _, p := range []float64{50, 90, 99, 99.9, 100} {
		between, during := r.Between.ValueAtPercentile(p), r.During.ValueAtPercentile(p)
		_, err := fmt.Fprintf(out, "p%-7v %12v %12v %6.2f\n", p, time.Duration(between).Round(time.Microsecond),
			time.Duration(during).Round(time.Microsecond), float64(during)/float64(between))
		if err != nil {
			return err
		}
	}
	return nil
}

// files are two versions of the rules, and the one that the service reads.
type files struct {
	current  string
	versions [2]string
}

func newFiles(dir string, rules int, all bool) (*files, error) {
	f := &files{current: filepath.Join(dir, "rules.yaml")}
	for i := range f.versions {
		f.versions[i] = filepath.Join(dir, fmt.Sprintf("version%d", i))
		if err := write(f.versions[i], rules, i, all); err != nil {
			return nil, err
		}
	}
	return f, os.Link(f.versions[0], f.current)
}

// write writes a version of the rules: one rule for all clients, which the load matches, and
// many others.
func write(path string, rules, version int, all bool) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(out, "domain: bench\ndescriptors:\n  - key: user\n    rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 10000}\n")
	for i := 1; i < rules && err == nil; i++ {
		limit := 1 + i%1000
		if all || i == rules/2 {
			limit += version
		}
		_, err = fmt.Fprintf(out, "  - key: user\n    value: user%06d\n    rate_limit:\n      algorithm: token_bucket\n      unit: minute\n      requests_per_unit: %d\n", i, limit)
	}
	return errors.Join(err, out.Close())
}

// swap replaces the file by the other version at every interval, by a rename as editors do.
// That costs next to nothing in this process, which also makes the load.
func (f *files) swap(ctx context.Context, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for i := 1; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		next := f.current + ".next"
		if err := os.Link(f.versions[i%len(f.versions)], next); err != nil {
			return err
		}
		if err := os.Rename(next, f.current); err != nil {
			return err
		}
	}
}
