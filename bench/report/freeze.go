package report

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc/codes"

	"github.com/distlimiter/ratelimit/bench/load"
	"github.com/distlimiter/ratelimit/internal/algo"
)

// While Redis is frozen, freezeRate requests a second are due. An answer is prompt if it
// comes within Envoy's default timeout. A server is normal again when inARow answers in a
// row are prompt.
const (
	freezeRate = 500
	prompt     = 20 * time.Millisecond
	inARow     = 100
	// mostFreezes bounds the rounds, each of which takes 16 s for each server.
	mostFreezes = 3
)

// Freeze is what clients of a server see while its Redis is frozen, and after it.
type Freeze struct {
	Server  string
	Frozen  time.Duration
	Timeout time.Duration // which requests declare
	Due     int           // requests while it was frozen
	Failed  int           // of them: answered by an error, or never
	Prompt  int           // of them: answered OK within 20 ms
	// P50, P99 and Longest are latencies of answers, errors among them, in milliseconds.
	P50, P99, Longest float64
	// Recovery is how long after the end of the freeze the first request was due from
	// which on answers were prompt, in seconds: the median of the rounds.
	Recovery float64
}

// freeze freezes the Redis of each server once a round. The builds run with their defaults,
// once for each answer that a rule may choose.
func (b *bench) freeze(ctx context.Context) error {
	scenario := b.report.Rows[0].Scenario
	store, err := b.startRedis()
	if err != nil {
		return err
	}
	type frozenServer struct {
		*server
		latency    *hdrhistogram.Histogram
		recoveries []float64
		Freeze
	}
	var servers []*frozenServer
	for _, build := range b.Builds {
		for _, answer := range []string{"error", "allow", "local"} {
			row := Row{Scenario: scenario, Backend: "redis", Algorithm: algo.FixedWindow.String(), Mode: build.Name + "-" + answer, onError: answer}
			rules, err := row.rules(b.dir)
			if err != nil {
				return err
			}
			s, err := b.startServer(build.Env, build.Path, "serve", "--config", rules, "--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0",
				"--backend", "redis", "--redis-url", loopback(store.port))
			if err != nil {
				return err
			}
			s.store = store.Process
			servers = append(servers, &frozenServer{server: s, Freeze: Freeze{Server: fmt.Sprintf("%s, `on_backend_error: %s`", build.Name, answer)}})
		}
	}
	for i := range b.Others {
		if o := &b.Others[i]; o.Backend == "redis" {
			s, err := b.serveOther(o, scenario)
			if err != nil {
				return err
			}
			servers = append(servers, &frozenServer{server: s, Freeze: Freeze{Server: o.Name}})
		}
	}
	for _, timeout := range b.Freeze {
		for _, s := range servers {
			s.Freeze, s.recoveries = Freeze{Server: s.Server, Frozen: b.Frozen, Timeout: timeout}, nil
			s.latency = hdrhistogram.New(1, int64(time.Minute), 3)
		}
		for round := range min(b.Rounds, mostFreezes) {
			for i := range servers {
				s := servers[(i+round)%len(servers)]
				recovery, err := b.freezeOnce(ctx, s.server, scenario, uint64(round), &s.Freeze, s.latency)
				if err != nil {
					return fmt.Errorf("%s: %w", s.Server, err)
				}
				s.recoveries = append(s.recoveries, recovery)
			}
			fmt.Fprintf(b.Progress, "freeze %d with a timeout of %v\n", round+1, timeout)
		}
		for _, s := range servers {
			at := func(percentile float64) float64 { return float64(s.latency.ValueAtPercentile(percentile)) / 1e6 }
			s.P50, s.P99, s.Longest, s.Recovery = at(50), at(99), at(100), middle(s.recoveries)
			b.report.Freezes = append(b.report.Freezes, s.Freeze)
		}
	}
	return nil
}

// freezeOnce loads a server, freezes its Redis, looks on until after its return, and adds
// what it sees to f and latency.
func (b *bench) freezeOnce(ctx context.Context, s *server, scenario Scenario, seed uint64, f *Freeze, latency *hdrhistogram.Histogram) (recovery float64, err error) {
	calls, err := load.NewCalls(domain, scenario.Descriptors, scenario.Clients, false, seed)
	if err != nil {
		return 0, err
	}
	calls.SetTimeout(f.Timeout)
	patience := 2 * b.Frozen // after which an answer is none
	var began, thawed time.Time
	var thaw *time.Timer
	streak := 0 // of prompt answers since the end
	var thawing atomic.Pointer[error]
	result, err := load.Run(ctx, load.Options{
		Address: s.address, Workload: calls, Connections: b.Connections, Rate: freezeRate, Patience: patience, Seed: seed,
		Warmup: time.Second, Duration: b.Frozen + patience,
		Begin: func() error {
			began = time.Now()
			thawed = began.Add(b.Frozen)
			thaw = time.AfterFunc(b.Frozen, func() {
				err := s.store.Signal(syscall.SIGCONT)
				thawing.Store(&err)
			})
			return s.store.Signal(syscall.SIGSTOP)
		},
		Each: func(due time.Time, took time.Duration, code codes.Code) {
			late := code != codes.OK || took > prompt
			switch {
			case due.Before(began):
			case due.Before(thawed):
				f.Due++
				_ = latency.RecordValue(int64(took)) // within its range: Patience bounds it
				if code != codes.OK {
					f.Failed++
				} else if !late {
					f.Prompt++
				}
			case late && streak < inARow:
				streak = 0
			case streak < inARow:
				if streak++; streak == 1 {
					recovery = due.Sub(thawed).Seconds()
				}
			}
		},
	})
	if thaw != nil && thaw.Stop() { // the run failed before
		_ = s.store.Signal(syscall.SIGCONT)
	}
	if failed := thawing.Load(); err == nil && failed != nil {
		err = *failed
	}
	switch {
	case err != nil:
		return 0, err
	case streak < inARow:
		recovery = patience.Seconds()
	}
	f.Due += result.Late
	f.Failed += result.Late
	return recovery, nil
}

// freezes writes what clients saw while Redis was frozen.
func (r *Report) freezes(b *strings.Builder) {
	if len(r.Freezes) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### Redis frozen for %v, %d requests a second\n\n| server | timeout | median, ms | 99th percentile, ms | longest, ms | errors | OK within %v | normal again after |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n", r.Freezes[0].Frozen, freezeRate, prompt)
	for _, f := range r.Freezes {
		fmt.Fprintf(b, "| %s | %v | %.1f | %.0f | %.0f | %.0f %% | %.0f %% | %.2f s |\n", f.Server, f.Timeout, f.P50, f.P99, f.Longest,
			100*float64(f.Failed)/float64(f.Due), 100*float64(f.Prompt)/float64(f.Due), f.Recovery)
	}
}

// memory writes what the processes of the first load hold.
func (r *Report) memory(b *strings.Builder) {
	at := slices.IndexFunc(r.Rows, func(row *Row) bool { return row.AtRest > 0 })
	if at < 0 {
		return
	}
	b.WriteString("\n### Resident memory of the process, MB\n\n| server | at rest | at the most |\n| --- | ---: | ---: |\n")
	for _, row := range r.Rows {
		if row.Scenario.Name == r.Rows[at].Scenario.Name && row.AtRest > 0 {
			fmt.Fprintf(b, "| %s | %.0f | %.0f |\n", row.title(), row.AtRest/1e6, row.Peak/1e6)
		}
	}
}
