package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Summary writes the report as a few tables: a row for each load and store, with the range
// over the algorithms. [Report.Markdown] has every row.
func (r *Report) Summary(w io.Writer) error {
	var b strings.Builder
	r.intro(&b)
	b.WriteString("\n### CPU of a request\n\n| load | counters in | CPU µs | of the tuned floor | × tuned floor | × floor | Redis' CPU µs | × floor | requests/s |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, rows := range r.groups() {
		same, tuned := floorOf(r.Rows, FloorSame, rows[0]), floorOf(r.Rows, FloorTuned, rows[0])
		fmt.Fprintf(&b, "| %s | %s | %s | %.1f | %s | %s | %s | %s | %s |\n", rows[0].Scenario.Title, r.store(rows[0]),
			span("%.1f", rows, func(row *Row) float64 { return row.Median(ServerCPU) }), tuned.Median(ServerCPU),
			span("%.2f", rows, func(row *Row) float64 { return ratio(row, tuned, ServerCPU) }),
			span("%.2f", rows, func(row *Row) float64 { return ratio(row, same, ServerCPU) }),
			span("%.1f", rows, func(row *Row) float64 { return row.Median(StoreCPU) }),
			span("%.2f", rows, func(row *Row) float64 { return storeRatio(row, same) }),
			span("%.0f", rows, func(row *Row) float64 { return row.Median(PerSecond) }))
	}
	r.algorithms(&b)
	r.latencies(&b)
	r.throughEnvoy(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// groups returns the rows of builds, those of one table row together.
func (r *Report) groups() (groups [][]*Row) {
	for _, row := range r.Rows {
		if row.isFloor() {
			continue
		}
		at := slices.IndexFunc(groups, func(g []*Row) bool {
			return g[0].Scenario.Name == row.Scenario.Name && g[0].Server == row.Server && g[0].Backend == row.Backend && g[0].Mode == row.Mode
		})
		if at < 0 {
			groups = append(groups, []*Row{row})
			continue
		}
		groups[at] = append(groups[at], row)
	}
	return groups
}

// store names where a row has its counters, and the build if the report has several.
func (r *Report) store(row *Row) string {
	if row.isFloor() {
		return row.Server
	}
	name := row.Backend
	if row.Mode != "" {
		name += ", " + row.Mode
	}
	if slices.ContainsFunc(r.Rows, func(other *Row) bool { return !other.isFloor() && other.Server != row.Server }) {
		name = row.Server + ": " + name
	}
	return name
}

// span writes the least and the greatest value of the rows; nothing if all are 0.
func span(format string, rows []*Row, of func(*Row) float64) string {
	var values []float64
	for _, row := range rows {
		if v := of(row); v > 0 {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return ""
	}
	least, most := fmt.Sprintf(format, slices.Min(values)), fmt.Sprintf(format, slices.Max(values))
	if least == most {
		return least
	}
	return least + "–" + most
}

// algorithms writes what each algorithm costs under the first load, and the bytes of a key
// where keys were filled in.
func (r *Report) algorithms(b *strings.Builder) {
	var rows []*Row
	for _, row := range r.Rows {
		if row.Scenario.Name == r.Rows[0].Scenario.Name && !row.isFloor() && row.Mode == "" && row.Server == r.ours() {
			rows = append(rows, row)
		}
	}
	if len(rows) < 2 {
		return
	}
	find := func(rows []*Row, backend, algorithm string, of func(*Row) float64) float64 {
		for _, row := range rows {
			if row.Backend == backend && row.Algorithm == algorithm && of(row) > 0 {
				return of(row)
			}
		}
		return 0
	}
	cpu := func(row *Row) float64 { return row.Median(ServerCPU) }
	bytes := func(row *Row) float64 { return row.BytesPerKey }
	fmt.Fprintf(b, "\n### By algorithm: %s\n\n| algorithm | memory: CPU µs | Redis: CPU µs | Redis' CPU µs | memory: bytes of a key | Redis: bytes of a key |\n| --- | ---: | ---: | ---: | ---: | ---: |\n", rows[0].Scenario.Title)
	var seen []string
	for _, row := range rows {
		if slices.Contains(seen, row.Algorithm) {
			continue
		}
		seen = append(seen, row.Algorithm)
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", row.Algorithm,
			orNothing("%.1f", find(rows, "memory", row.Algorithm, cpu)), orNothing("%.1f", find(rows, "redis", row.Algorithm, cpu)),
			orNothing("%.1f", find(rows, "redis", row.Algorithm, func(row *Row) float64 { return row.Median(StoreCPU) })),
			orNothing("%.0f", find(r.Rows, "memory", row.Algorithm, bytes)), orNothing("%.0f", find(r.Rows, "redis", row.Algorithm, bytes)))
	}
}

// ours is the first build of the report.
func (r *Report) ours() string {
	for _, row := range r.Rows {
		if !row.isFloor() {
			return row.Server
		}
	}
	return ""
}

// compared reports whether the summary shows a row beside the builds: of the floors only
// the one with the same options.
func compared(row *Row) bool { return row.Server != FloorDefault && row.Server != FloorTuned }

func (r *Report) latencies(b *strings.Builder) {
	if len(r.Latency) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### Latency at half of the rate that saturates the store: %s\n\n| requests/s | counters in | p50 µs | p99 µs | × floor | p99.9 µs | × floor |\n| ---: | --- | ---: | ---: | ---: | ---: | ---: |\n", r.Latency[0][0].Scenario.Title)
	for _, group := range r.Latency {
		for _, row := range group {
			if !compared(row) {
				continue
			}
			floor := floorOf(group, FloorSame, row)
			fmt.Fprintf(b, "| %.0f | %s | %.0f | %.0f | %.2f | %.0f | %.2f |\n", row.Median(PerSecond), r.store(row),
				row.Median(p50), row.Median(p99), ratio(row, floor, p99), row.Median(p999), ratio(row, floor, p999))
		}
	}
}
