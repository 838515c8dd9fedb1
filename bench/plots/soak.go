package plots

import (
	"encoding/csv"
	"errors"
	"fmt"
	"image/color"
	"io"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// panel is one of the plots of a soak, with the columns whose names end in one of names.
type panel struct {
	label string
	names []string
	unit  float64
}

var panels = []panel{
	{"MiB", []string{"resident bytes", "heap bytes", "bytes in Redis"}, 1 << 20},
	{"number", []string{"goroutines", "file descriptors"}, 1},
	{"keys", []string{"keys in Redis"}, 1},
}

// lines are the colours of a panel's columns, in turn.
var lines = []color.Color{
	admitted, bound, color.NRGBA{0x2d, 0xa4, 0x4e, 0xff}, color.NRGBA{0xbf, 0x87, 0x00, 0xff}, color.NRGBA{0x82, 0x50, 0xdf, 0xff},
}

// Soak draws the samples of a soak from its CSV file. The first column is the time in
// seconds.
func Soak(samples io.Reader) ([]byte, error) {
	rows, err := csv.NewReader(samples).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) < 3 {
		return nil, errors.New("no samples")
	}
	columns := make([][]float64, len(rows[0]))
	for i, row := range rows[1:] {
		for c, text := range row {
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, fmt.Errorf("row %d: %w", i+2, err)
			}
			columns[c] = append(columns[c], value)
		}
	}
	var all []*plot.Plot
	for i, p := range panels {
		drawn, err := p.draw(rows[0], columns)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			drawn.Title.Text = "what a soak needs"
		}
		if i == len(panels)-1 {
			drawn.X.Label.Text = "minutes"
		}
		all = append(all, drawn)
	}
	return render(2*height, all...)
}

func (p panel) draw(names []string, columns [][]float64) (*plot.Plot, error) {
	drawn := newPlot()
	drawn.Y.Label.Text = p.label
	drawn.X.Tick.Marker = plot.DefaultTicks{}
	minutes := columns[0]
	drawn.X.Min, drawn.X.Max = 0, minutes[len(minutes)-1]/60
	n := 0
	for c, name := range names {
		if !p.has(name) {
			continue
		}
		var points plotter.XYs
		for i, value := range columns[c] {
			points = append(points, plotter.XY{X: minutes[i] / 60, Y: value / p.unit})
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.LineStyle = draw.LineStyle{Color: lines[n%len(lines)], Width: vg.Points(1)}
		drawn.Add(line)
		drawn.Legend.Add(name, line)
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("no column is called %s", strings.Join(p.names, " or "))
	}
	drawn.Y.Min = 0
	drawn.Y.Max *= 1.4 // room for the legend
	return drawn, nil
}

func (p panel) has(name string) bool {
	for _, end := range p.names {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}
