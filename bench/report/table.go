package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// median returns the median of a figure over samples; 0 of none.
func median(samples []Sample, of func(Sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	return middle(values)
}

func middle(values []float64) float64 {
	slices.Sort(values)
	switch n := len(values); {
	case n == 0:
		return 0
	case n%2 == 0:
		return (values[n/2-1] + values[n/2]) / 2
	default:
		return values[n/2]
	}
}

func serverCPU(s Sample) float64 { return s.ServerCPU }
func storeCPU(s Sample) float64  { return s.StoreCPU }
func p50(s Sample) float64       { return s.P50 }
func p99(s Sample) float64       { return s.P99 }
func p999(s Sample) float64      { return s.P999 }
func perSecond(s Sample) float64 { return float64(s.Answers) / s.Seconds }
func refused(s Sample) float64   { return float64(s.Refused) / float64(s.Answers) }

// ratio returns the median over rounds of the ratio of a figure to that of the
// base in the same round.
func ratio(row, base *Row, of func(Sample) float64) float64 {
	var values []float64
	for i := range min(len(row.Samples), len(base.Samples)) {
		values = append(values, of(row.Samples[i])/of(base.Samples[i]))
	}
	return middle(values)
}

// added returns the median over rounds of how much more than the base's a figure
// is.
func added(row, base *Row, of func(Sample) float64) float64 {
	var values []float64
	for i := range min(len(row.Samples), len(base.Samples)) {
		values = append(values, of(row.Samples[i])-of(base.Samples[i]))
	}
	return middle(values)
}

// floorOf returns the floor with the same options under the same load.
func floorOf(rows []*Row, of *Row) *Row {
	for _, r := range rows {
		if r.Server == FloorSame && r.Scenario.Name == of.Scenario.Name {
			return r
		}
	}
	return of
}

// Markdown writes the report as tables.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	rounds := 0
	if len(r.Rows) > 0 {
		rounds = len(r.Rows[0].Samples)
	}
	fmt.Fprintf(&b, "%s, %s. Medians of %d interleaved rounds; %d requests in flight on %d connections, server on one core.\n",
		r.Machine, r.Time.Format("2006-01-02"), rounds, r.InFlight, r.Connections)
	scenario := ""
	for _, row := range r.Rows {
		if row.Scenario.Name != scenario {
			scenario = row.Scenario.Name
			fmt.Fprintf(&b, "\n### %s\n\n| server | CPU µs per request | × floor | Redis CPU µs | requests/s | over limit | bytes per key |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n", row.Scenario.Title)
		}
		fmt.Fprintf(&b, "| %s | %.1f | %.2f | %s | %.0f | %.0f %% | %s |\n", row.title(),
			median(row.Samples, serverCPU), ratio(row, floorOf(r.Rows, row), serverCPU), orNothing("%.1f", median(row.Samples, storeCPU)),
			median(row.Samples, perSecond), 100*median(row.Samples, refused), orNothing("%.0f", row.BytesPerKey))
	}
	if len(r.Latency) > 0 {
		first := r.Latency[0]
		fmt.Fprintf(&b, "\n### Latency at %.0f requests/s: %s\n\n| server | p50 µs | p99 µs | × floor | p99.9 µs |\n| --- | ---: | ---: | ---: | ---: |\n",
			median(first.Samples, perSecond), first.Scenario.Title)
		for _, row := range r.Latency {
			fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.2f | %.0f |\n", row.title(), median(row.Samples, p50),
				median(row.Samples, p99), ratio(row, floorOf(r.Latency, row), p99), median(row.Samples, p999))
		}
	}
	if len(r.Envoy) > 0 {
		plain := r.Envoy[0]
		fmt.Fprintf(&b, "\n### Through Envoy at %.0f requests/s: %s\n\n| rate limit service | p50 µs | added | p99 µs | added |\n| --- | ---: | ---: | ---: | ---: |\n",
			median(plain.Samples, perSecond), plain.Scenario.Title)
		for _, row := range r.Envoy {
			fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.0f | %.0f |\n", row.title(),
				median(row.Samples, p50), added(row, plain, p50), median(row.Samples, p99), added(row, plain, p99))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Row) title() string {
	if r.Backend == "" {
		return r.Server
	}
	return fmt.Sprintf("%s: %s, %s", r.Server, r.Backend, r.Algorithm)
}

func orNothing(format string, v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(format, v)
}

// JSON writes everything that was measured.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	return e.Encode(r)
}

// Benchmarks writes the samples of one build as Go benchmark results, which
// benchstat compares.
func (r *Report) Benchmarks(w io.Writer, build string) error {
	var b strings.Builder
	b.WriteString("pkg: github.com/distlimiter/ratelimit/cmd/ratelimit\n")
	for _, row := range r.Rows {
		if row.Server != build {
			continue
		}
		floor := floorOf(r.Rows, row)
		for i, s := range row.Samples {
			fmt.Fprintf(&b, "BenchmarkServe/%s %d %.0f cpu-ns/req %.4f x-floor", row.Name(), s.Answers, 1000*s.ServerCPU, s.ServerCPU/floor.Samples[i].ServerCPU)
			if s.StoreCPU > 0 {
				fmt.Fprintf(&b, " %.0f store-cpu-ns/req", 1000*s.StoreCPU)
			}
			b.WriteByte('\n')
		}
	}
	for _, row := range r.Latency {
		for _, s := range row.Samples {
			if row.Server == build {
				fmt.Fprintf(&b, "BenchmarkLatency/%s %d %.0f p50-ns %.0f p99-ns\n", row.Name(), s.Answers, 1000*s.P50, 1000*s.P99)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
