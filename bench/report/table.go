package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// median returns the median of a figure over samples; 0 if there are none.
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

// ServerCPU is the server's processor time per request.
func ServerCPU(s Sample) float64 { return s.ServerCPU }

// StoreCPU is the store's processor time per request.
func StoreCPU(s Sample) float64 { return s.StoreCPU }

// PerSecond is the rate of answers.
func PerSecond(s Sample) float64 { return float64(s.Answers) / s.Seconds }

// Median returns the median of a figure over the row's samples; 0 if there are none.
func (r *Row) Median(of func(Sample) float64) float64 { return median(r.Samples, of) }

func p50(s Sample) float64     { return s.P50 }
func p99(s Sample) float64     { return s.P99 }
func p999(s Sample) float64    { return s.P999 }
func refused(s Sample) float64 { return float64(s.Refused) / float64(s.Answers) }
func lag(s Sample) float64     { return s.Lag }

// busy is the part of its core that the server used.
func busy(s Sample) float64 { return s.ServerCPU * float64(s.Answers) / (1e6 * s.Seconds) }

// ratio returns the median over rounds of the ratio of a figure to the base's figure in the
// same round.
func ratio(row, base *Row, of func(Sample) float64) float64 {
	var values []float64
	for i := range min(len(row.Samples), len(base.Samples)) {
		values = append(values, of(row.Samples[i])/of(base.Samples[i]))
	}
	return middle(values)
}

// added returns the median over rounds of the difference of a figure from the base's figure.
func added(row, base *Row, of func(Sample) float64) float64 {
	var values []float64
	for i := range min(len(row.Samples), len(base.Samples)) {
		values = append(values, of(row.Samples[i])-of(base.Samples[i]))
	}
	return middle(values)
}

// floorOf returns the floor of that name under the same load.
func floorOf(rows []*Row, floor string, of *Row) *Row {
	for _, r := range rows {
		if r.Server == floor && r.Scenario.Name == of.Scenario.Name {
			return r
		}
	}
	return of
}

// storeRatio returns the median over rounds of the ratio of the store's processor
// time to that of the floor server.
func storeRatio(row, floor *Row) float64 {
	var values []float64
	for i := range min(len(row.Samples), len(floor.Samples)) {
		values = append(values, row.Samples[i].StoreCPU/floor.Samples[i].ServerCPU)
	}
	return middle(values)
}

// Markdown writes the report as tables.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	r.intro(&b)
	scenario := ""
	for _, row := range r.Rows {
		if row.Scenario.Name != scenario {
			scenario = row.Scenario.Name
			fmt.Fprintf(&b, "\n### %s\n\n| server | CPU µs per request | × floor | × tuned floor | Redis CPU µs | × floor | requests/s | core busy | over limit | bytes per key |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n", row.Scenario.Title)
		}
		same, tuned := floorOf(r.Rows, FloorSame, row), floorOf(r.Rows, FloorTuned, row)
		fmt.Fprintf(&b, "| %s | %.1f | %.2f | %.2f | %s | %s | %.0f | %.0f %% | %.0f %% | %s |\n", row.title(),
			median(row.Samples, ServerCPU), ratio(row, same, ServerCPU), ratio(row, tuned, ServerCPU),
			orNothing("%.1f", median(row.Samples, StoreCPU)), orNothing("%.2f", storeRatio(row, same)),
			median(row.Samples, PerSecond), 100*median(row.Samples, busy), 100*median(row.Samples, refused), orNothing("%.0f", row.BytesPerKey))
	}
	for _, group := range r.Latency {
		first := group[0]
		fmt.Fprintf(&b, "\n### Latency at %.0f requests/s, half of what saturates the last row: %s\n\n| server | p50 µs | p99 µs | × floor | p99.9 µs | × floor | of them the load's own p99 µs |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
			median(first.Samples, PerSecond), first.Scenario.Title)
		for _, row := range group {
			floor := floorOf(group, FloorSame, row)
			fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.2f | %.0f | %.2f | %.0f |\n", row.title(), median(row.Samples, p50),
				median(row.Samples, p99), ratio(row, floor, p99), median(row.Samples, p999), ratio(row, floor, p999), median(row.Samples, lag))
		}
	}
	for _, group := range r.Rates {
		first := group[0]
		fmt.Fprintf(&b, "\n### CPU at %.0f requests/s: %s\n\n| server | CPU µs per request | × tuned floor | Redis CPU µs |\n| --- | ---: | ---: | ---: |\n",
			median(first.Samples, PerSecond), first.Scenario.Title)
		for _, row := range group {
			fmt.Fprintf(&b, "| %s | %.1f | %.2f | %s |\n", row.title(), median(row.Samples, ServerCPU),
				ratio(row, floorOf(group, FloorTuned, row), ServerCPU), orNothing("%.1f", median(row.Samples, StoreCPU)))
		}
	}
	r.throughEnvoy(&b)
	r.memory(&b)
	r.freezes(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// intro writes where, when and how the report was measured.
func (r *Report) intro(b *strings.Builder) {
	fmt.Fprintf(b, "%s, %s. Medians of %d interleaved rounds; %d requests in flight on %d connections where the table does not say otherwise, servers on one core, load and Redis on the other.\n",
		r.Machine, r.Time.Format("2006-01-02"), r.Rounds, r.InFlight, r.Connections)
	for _, note := range r.Notes {
		fmt.Fprintf(b, "\n%s\n", note)
	}
}

// throughEnvoy writes what a request takes behind a real Envoy.
func (r *Report) throughEnvoy(b *strings.Builder) {
	if len(r.Envoy) == 0 {
		return
	}
	plain := r.Envoy[0]
	title, line, cpu := "", "", func(*Row) string { return "" } // older reports have no CPU here
	if slices.ContainsFunc(r.Envoy, func(row *Row) bool { return row.Median(ServerCPU) > 0 }) {
		title, line = " its CPU µs per request |", " ---: |"
		cpu = func(row *Row) string { return " " + orNothing("%.1f", row.Median(ServerCPU)) + " |" }
	}
	fmt.Fprintf(b, "\n### Through Envoy at %.0f requests/s: %s\n\n| rate limit service |%s p50 µs | added | p99 µs | added |\n| --- |%s ---: | ---: | ---: | ---: |\n",
		median(plain.Samples, PerSecond), plain.Scenario.Title, title, line)
	for _, row := range r.Envoy {
		fmt.Fprintf(b, "| %s |%s %.0f | %.0f | %.0f | %.0f |\n", row.title(), cpu(row),
			median(row.Samples, p50), added(row, plain, p50), median(row.Samples, p99), added(row, plain, p99))
	}
}

func (r *Row) title() string {
	if r.Backend == "" {
		return r.Server
	}
	title := fmt.Sprintf("%s: %s, %s", r.Server, r.Backend, r.Algorithm)
	if r.Mode != "" {
		title += ", " + r.Mode
	}
	return title
}

func orNothing(format string, v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(format, v)
}

// JSON writes everything that was measured.
func (r *Report) JSON(w io.Writer) error {
	return json.NewEncoder(w).Encode(r)
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
		floor := floorOf(r.Rows, FloorSame, row)
		for i, s := range row.Samples {
			fmt.Fprintf(&b, "BenchmarkServe/%s %d %.0f cpu-ns/req %.4f x-floor", row.Name(), s.Answers, 1000*s.ServerCPU, s.ServerCPU/floor.Samples[i].ServerCPU)
			if s.StoreCPU > 0 {
				fmt.Fprintf(&b, " %.0f store-cpu-ns/req", 1000*s.StoreCPU)
			}
			b.WriteByte('\n')
		}
	}
	for _, row := range slices.Concat(r.Latency...) {
		for _, s := range row.Samples {
			if row.Server == build {
				fmt.Fprintf(&b, "BenchmarkLatency/%s %d %.0f p50-ns %.0f p99-ns\n", row.Name(), s.Answers, 1000*s.P50, 1000*s.P99)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
