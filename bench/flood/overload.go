package flood

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/distlimiter/ratelimit/bench/load"
)

// client is the behaviour of clients: how long they wait, and how many requests each has in
// flight at most.
type client struct {
	patience time.Duration
	most     int
}

// The first client waits as long as Envoy does by default, the second longer, both with
// Envoy's default circuit breaker. The last has the circuit breaker of the files in envoy/.
var behaviours = []client{{20 * time.Millisecond, 1024}, {100 * time.Millisecond, 1024}, {20 * time.Millisecond, 128}}

// clients is how many connections share the requests.
const clients = 4

// overload measures how many requests are answered in time at and beyond saturation, with
// and without shedding, and writes a table.
func (b *bench) overload(ctx context.Context) error {
	if len(b.Floods) > 0 && !slices.Contains(b.Floods, "overload") {
		return nil
	}
	fmt.Fprintln(b.Out, "| store | clients wait | for at most | shedding | saturation, a second | offered | in time, a second | part of saturation | p99 of these, ms | refused | late | not sent | memory at the peak, MiB |")
	fmt.Fprintln(b.Out, "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, backend := range []string{"memory", "redis"} {
		if len(b.Backends) > 0 && !slices.Contains(b.Backends, backend) {
			continue
		}
		if err := b.overloaded(ctx, backend); err != nil {
			return fmt.Errorf("overload, %s: %w", backend, err)
		}
	}
	return nil
}

func (b *bench) overloaded(ctx context.Context, backend string) (err error) {
	flags := []string{"--backend", backend}
	var env []string
	if backend == "redis" {
		redis, url, err := b.startRedis()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, redis.Stop()) }()
		flags = append(flags, "--redis-url", url)
		env = []string{"REDIS_TIMEOUT=1s"} // it shares its core with the load
	}
	saturation, err := b.saturation(ctx, env, flags)
	if err != nil {
		return err
	}
	for _, c := range behaviours {
		for _, shedding := range []string{"off", "on"} {
			with := flags
			if shedding == "off" {
				with = append(slices.Clone(flags), "--max-wait", "0")
			}
			for _, times := range []float64{1, 2, 4} {
				fmt.Fprintf(b.Progress, "overload: %s, %+v, shedding %s, %v times\n", backend, c, shedding, times)
				r, peak, err := b.offer(ctx, env, with, saturation*times, c)
				if err != nil {
					return err
				}
				refused := total(r.Failed)
				all := float64(r.Answers+refused+r.Late+r.Unsent) / 100
				fmt.Fprintf(b.Out, "| %s | %v | %d | %s | %.0f | %v× | %.0f | %.0f %% | %s | %.0f %% | %.0f %% | %.0f %% | %s |\n",
					backend, c.patience, c.most, shedding, saturation, times, r.PerSecond(), 100*r.PerSecond()/saturation,
					millis(time.Duration(r.Latency.ValueAtPercentile(99))), float64(refused)/all, float64(r.Late)/all, float64(r.Unsent)/all, mib(peak))
			}
		}
	}
	return nil
}

// saturation returns how many requests a second are answered with 64 always in flight.
func (b *bench) saturation(ctx context.Context, env, flags []string) (perSecond float64, err error) {
	t, err := b.start(false, 0, env, append(slices.Clone(flags), "--max-wait", "0")...)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	r, err := b.busy(ctx, t, clients, b.Descriptors)
	if err != nil {
		return 0, err
	}
	return r.PerSecond(), nil
}

// offer sends rate requests a second, whether they are answered or not.
func (b *bench) offer(ctx context.Context, env, flags []string, rate float64, c client) (r *load.Result, peak int64, err error) {
	t, err := b.start(false, 0, env, flags...)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	calls, err := load.NewCalls(domain, b.Descriptors, 10_000, false, 1)
	if err != nil {
		return nil, 0, err
	}
	calls.SetTimeout(c.patience)
	r, err = load.Run(ctx, load.Options{
		Address: t.address, Workload: calls, Connections: clients, Rate: rate, Patience: c.patience, Most: c.most,
		Warmup: time.Second, Duration: b.Duration,
	})
	if err != nil {
		return nil, 0, err
	}
	peak, err = t.PeakRSS()
	return r, peak, err
}
