package plots

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/distlimiter/ratelimit/bench/figures"
	"github.com/distlimiter/ratelimit/bench/report"
)

// Drawing is a plot as a file.
type Drawing struct {
	File string // without directory
	SVG  []byte
}

// Performance draws the figures: the cost of a request for the server and for Redis, its
// latency, and the memory of a key. It draws only measured figures.
func Performance(d *figures.Data) (drawings []Drawing, err error) {
	add := func(file string, p *plot.Plot, height vg.Length) {
		if p == nil || err != nil {
			return
		}
		var svg []byte
		if svg, err = render(height, p); err == nil {
			drawings = append(drawings, Drawing{file, svg})
		}
	}
	var all []*bars
	if d.Report != nil {
		all = append(all, serverBars(d.Report), redisBars(d.Report))
	}
	all = append(all, keyBars(d))
	for _, b := range all {
		if b == nil || len(b.values) == 0 {
			continue
		}
		p, err := b.plot()
		if err != nil {
			return nil, err
		}
		add(b.file, p, b.height())
	}
	if d.Report != nil {
		for i, group := range d.Report.Latency {
			p, err := latencies(group)
			if err != nil {
				return nil, err
			}
			add(fmt.Sprintf("performance_latency_%d.svg", i+1), p, height)
		}
	}
	return drawings, err
}

// bars is a bar chart of horizontal bars, each with its value.
type bars struct {
	file, title, unit string
	names             []string
	values            []float64
	base              []bool    // what the others are compared with
	lines             []float64 // values for comparison
}

func (b *bars) add(name string, value float64, base bool) {
	b.names, b.values, b.base = append(b.names, name), append(b.values, value), append(b.base, base)
}

const barHeight = 5.5 * vg.Millimeter

func (b *bars) height() vg.Length { return vg.Length(len(b.values))*barHeight + 2.2*vg.Centimeter }

func (b *bars) plot() (*plot.Plot, error) {
	p := newPlot()
	p.Title.Text, p.X.Label.Text = b.title, b.unit
	p.X.Min, p.X.Max = 0, 0
	p.X.Tick.Marker = plot.DefaultTicks{}
	n := len(b.values)
	// The first bar is the topmost: the axis counts from below.
	kinds := map[bool]plotter.Values{false: make(plotter.Values, n), true: make(plotter.Values, n)}
	labels := plotter.XYLabels{XYs: make(plotter.XYs, n), Labels: make([]string, n)}
	names := make([]string, n)
	for i, v := range b.values {
		at := n - 1 - i
		kinds[b.base[i]][at] = v
		labels.XYs[at], labels.Labels[at] = plotter.XY{X: v, Y: float64(at)}, " "+figure(v)
		names[at] = b.names[i]
		p.X.Max = max(p.X.Max, 1.12*v)
	}
	for _, kind := range []struct {
		base bool
		fill color.Color
	}{{false, admitted}, {true, refused}} {
		chart, err := plotter.NewBarChart(kinds[kind.base], barHeight*0.7)
		if err != nil {
			return nil, err
		}
		chart.Horizontal, chart.Color, chart.LineStyle.Width = true, kind.fill, 0
		p.Add(chart)
	}
	return b.finish(p, names, labels)
}

// finish adds what is drawn over the bars.
func (b *bars) finish(p *plot.Plot, names []string, labels plotter.XYLabels) (*plot.Plot, error) {
	top := float64(len(names)) - 0.5
	for _, at := range b.lines {
		line, err := plotter.NewLine(plotter.XYs{{X: at, Y: -0.5}, {X: at, Y: top}})
		if err != nil {
			return nil, err
		}
		line.LineStyle = draw.LineStyle{Color: bound, Width: 1, Dashes: []vg.Length{4, 3}}
		p.Add(line)
	}
	values, err := plotter.NewLabels(labels)
	if err != nil {
		return nil, err
	}
	for i := range values.TextStyle {
		values.TextStyle[i] = p.Y.Tick.Label
		values.TextStyle[i].YAlign = draw.YCenter
		values.TextStyle[i].XAlign = draw.XLeft
	}
	p.Add(values)
	p.NominalY(names...)
	p.Y.Tick.Length = 0
	return p, nil
}

// figure writes a value with its significant digits.
func figure(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// first is the scenario that is drawn.
func first(r *report.Report) (rows []*report.Row) {
	for _, row := range r.Rows {
		if row.Scenario.Name == r.Rows[0].Scenario.Name {
			rows = append(rows, row)
		}
	}
	return rows
}

func label(row *report.Row) string {
	switch {
	case row.Backend == "":
		return row.Server
	case row.Mode != "":
		return fmt.Sprintf("%s, %s, hot key %s", row.Backend, row.Algorithm, row.Mode)
	}
	return row.Backend + ", " + row.Algorithm
}

func serverBars(r *report.Report) *bars {
	b := &bars{file: "performance_server.svg", unit: "µs of the server's processor time"}
	for _, row := range first(r) {
		b.title = "CPU per request: " + row.Scenario.Title
		value := row.Median(report.ServerCPU)
		b.add(label(row), value, row.Backend == "")
		if row.Server == report.FloorSame || row.Server == report.FloorTuned {
			b.lines = append(b.lines, value)
		}
	}
	return b
}

func redisBars(r *report.Report) *bars {
	b := &bars{file: "performance_redis.svg", title: "Redis: CPU per request of 1 descriptor", unit: "µs of Redis' processor time"}
	if len(r.Rows) == 0 {
		return b
	}
	for _, row := range r.Rows {
		if row.Backend == "redis" && (row.Scenario.Name == r.Rows[0].Scenario.Name || row.Mode != "" && row.Algorithm == report.DefaultAlgorithm.String()) {
			b.add(label(row), row.Median(report.StoreCPU), false)
		}
	}
	return b
}

// keyBars shows the memory of a key. For each of our algorithms that is the growth of the
// service's process, for libraries the growth of the benchmark's process.
func keyBars(d *figures.Data) *bars {
	b := &bars{file: "performance_bytes.svg", title: "Memory of a key, of 1,000,000 with 24 bytes each", unit: "bytes, resident"}
	if d.Report != nil {
		for _, row := range d.Report.Rows {
			if row.BytesPerKey > 0 {
				b.add(label(row), row.BytesPerKey, false)
			}
		}
	}
	for _, class := range []string{"token_bucket", "fixed_window", "sliding_window"} {
		names, bytes := d.BytesPerKey(class)
		for i, name := range names {
			if name != figures.Ours {
				b.add(name+", "+class, bytes[i], true)
			}
		}
	}
	return b
}

// latencies draws the latency that a percentage of the requests did not exceed.
func latencies(rows []*report.Row) (*plot.Plot, error) {
	p := newPlot()
	last := rows[len(rows)-1]
	p.Title.Text = fmt.Sprintf("Latency of %.0f requests/s: %s", last.Median(report.PerSecond), label(last))
	p.X.Label.Text, p.Y.Label.Text = "percent of the requests", "took at most that many µs"
	p.X.Min, p.X.Max = 0, 4
	p.X.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0"}, {Value: nines(50), Label: "50"}, {Value: 1, Label: "90"}, {Value: 2, Label: "99"}, {Value: 3, Label: "99.9"}, {Value: 4, Label: "99.99"}}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: 3}
	p.Y.Min, p.Y.Max = math.Inf(1), math.Inf(-1)
	p.Legend.Left = true
	for i, row := range rows {
		var line plotter.XYs
		for _, q := range row.Distribution {
			y := max(q.Micros, 1)
			line = append(line, plotter.XY{X: nines(q.Percent), Y: y})
			p.Y.Min, p.Y.Max = min(p.Y.Min, y), max(p.Y.Max, y)
		}
		l, err := plotter.NewLine(line)
		if err != nil {
			return nil, err
		}
		l.LineStyle = draw.LineStyle{Color: bound, Width: 1, Dashes: [][]vg.Length{{1, 2}, {4, 3}, {8, 3}}[i%3]}
		if row.Backend != "" {
			l.LineStyle = draw.LineStyle{Color: admitted, Width: 1.5}
		}
		p.Add(l)
		p.Legend.Add(label(row), l)
	}
	// Whole powers, where the ticks are.
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(p.Y.Min))), math.Pow(10, math.Ceil(math.Log10(p.Y.Max)))
	return p, nil
}

// nines is the position of a percentage on the axis: each nine adds the same distance.
func nines(percent float64) float64 { return -math.Log10(1 - percent/100) }
