package plots

import (
	"bytes"
	"fmt"
	"image/color"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colours that are visible on a white page and on a dark one.
var (
	text     = color.NRGBA{0x76, 0x80, 0x8c, 0xff}
	refused  = color.NRGBA{0x8b, 0x95, 0xa1, 0x80}
	admitted = color.NRGBA{0x2f, 0x81, 0xf7, 0xff}
	bound    = color.NRGBA{0xe5, 0x53, 0x4b, 0xff}
)

const (
	width, height = 17 * vg.Centimeter, 8.5 * vg.Centimeter
	margin        = 2 * vg.Millimeter
)

// SVG draws the plot: above, the traffic and the admitted part of it; below, how much was
// admitted in the minute before.
func (p Plot) SVG() ([]byte, error) {
	hits, err := p.run()
	if err != nil {
		return nil, err
	}
	above, err := p.above(hits)
	if err != nil {
		return nil, err
	}
	below, err := p.below(hits)
	if err != nil {
		return nil, err
	}
	return render(height, above, below)
}

// render draws plots one above the other, with the same margins left and right.
func render(height vg.Length, plots ...*plot.Plot) ([]byte, error) {
	c := vgsvg.New(width, height)
	column := make([][]*plot.Plot, len(plots))
	for i, p := range plots {
		column[i] = []*plot.Plot{p}
	}
	tiles := draw.Tiles{Rows: len(plots), Cols: 1, PadY: margin}
	for i, at := range plot.Align(column, tiles, draw.Crop(draw.New(c), margin, -margin, margin, -margin)) {
		plots[i].Draw(at[0])
	}
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, err
	}
	// Fonts that readers have, first those with the metrics of the layout.
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), nil
}

func (p Plot) above(hits []hit) (*plot.Plot, error) {
	a := newPlot()
	a.Title.Text = p.title()
	a.Y.Label.Text = "hits per second"
	a.Y.Min, a.Y.Max = 0, 10
	a.Y.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0"}, {Value: 5, Label: "5"}, {Value: 10, Label: "10"}}
	came, passed := perSecond(hits)
	for _, area := range []struct {
		name   string
		counts []int
		color  color.Color
	}{{"refused", came, refused}, {"admitted", passed, admitted}} {
		poly, err := plotter.NewPolygon(steps(area.counts))
		if err != nil {
			return nil, err
		}
		poly.Color, poly.LineStyle.Width = area.color, 0
		a.Add(poly)
		a.Legend.Add(area.name, poly)
	}
	return a, nil
}

func (p Plot) below(hits []hit) (*plot.Plot, error) {
	b := newPlot()
	b.X.Label.Text = "seconds"
	b.Y.Label.Text = "in the last minute"
	b.Y.Min, b.Y.Max = 0, 2*limit+10
	b.Y.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0"}, {Value: limit, Label: fmt.Sprint(limit)}, {Value: 2 * limit, Label: fmt.Sprint(2 * limit)}}
	var line plotter.XYs
	for _, pt := range trailing(hits) {
		if pt.at <= length {
			line = append(line, plotter.XY{X: pt.at.Seconds(), Y: float64(pt.n)})
		}
	}
	count, err := plotter.NewLine(line)
	if err != nil {
		return nil, err
	}
	count.StepStyle = plotter.PostStep
	count.LineStyle = draw.LineStyle{Color: admitted, Width: 1.5}
	most, err := plotter.NewLine(plotter.XYs{{X: 0, Y: limit}, {X: length.Seconds(), Y: limit}})
	if err != nil {
		return nil, err
	}
	most.LineStyle = draw.LineStyle{Color: bound, Width: 1.5, Dashes: []vg.Length{5, 3}}
	b.Add(most, count)
	b.Legend.Add("limit", most)
	return b, nil
}

// steps outlines counts per second as an area.
func steps(counts []int) plotter.XYs {
	outline := plotter.XYs{{}}
	for i, n := range counts {
		if at := outline[len(outline)-1].Y; at != float64(n) {
			outline = append(outline, plotter.XY{X: float64(i), Y: at}, plotter.XY{X: float64(i), Y: float64(n)})
		}
	}
	end := float64(len(counts))
	return append(outline, plotter.XY{X: end, Y: outline[len(outline)-1].Y}, plotter.XY{X: end})
}

// newPlot returns an empty plot over the time of the traffic, without background.
func newPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	sans := func(style *draw.TextStyle, size font.Length) {
		style.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
		style.Color = text
	}
	sans(&p.Title.TextStyle, 12)
	p.Title.Padding = 6
	sans(&p.Legend.TextStyle, 9)
	p.Legend.Top, p.Legend.ThumbnailWidth, p.Legend.Padding = true, 18, 2
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		sans(&a.Label.TextStyle, 9)
		sans(&a.Tick.Label, 9)
		a.Color, a.Tick.Color = text, text
	}
	p.X.Min, p.X.Max = 0, length.Seconds()
	var ticks plot.ConstantTicks
	for at := time.Duration(0); at <= length; at += window {
		ticks = append(ticks, plot.Tick{Value: at.Seconds(), Label: fmt.Sprint(at.Seconds())})
	}
	p.X.Tick.Marker = ticks
	return p
}
