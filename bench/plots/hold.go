package plots

import (
	"fmt"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// HoldFile is the drawing of [Hold].
const HoldFile = "hold.svg"

// reservation is the rule that is drawn: a budget of 100 an hour, of which a request holds
// its estimate for at most a minute.
var reservation = algo.Params{Algorithm: algo.FixedWindow, Limit: 100, Window: time.Hour, Hold: time.Minute}

// holdLength is the time that is drawn.
const holdLength = 135 * time.Second

// asking is a call of the drawing.
type asking struct {
	at      time.Duration
	request uint64
	settles bool
	hits    int64
	label   string
}

// calls are those of three requests: one that costs less than its estimate, one that costs
// more, and one whose end nobody tells of.
var calls = []asking{
	{5 * time.Second, 1, false, 40, "A reserves 40"},
	{15 * time.Second, 2, false, 40, "B reserves 40"},
	{25 * time.Second, 3, false, 40, "C is refused"},
	{35 * time.Second, 1, true, 25, "A ends: 25"},
	{45 * time.Second, 3, false, 30, "C reserves 30"},
	{60 * time.Second, 2, true, 50, "B ends: 50"},
}

// room is how much of the limit is used, and how much used or held, at a time.
type room struct {
	at         time.Duration
	used, both int64
}

// rooms decides the calls and returns what is used and held in every second.
func rooms() (all []room, err error) {
	l, err := algo.New(reservation)
	if err != nil {
		return nil, err
	}
	start := (1_700_000_000 * time.Second).Truncate(time.Hour).Microseconds()
	var state algo.State
	rest := calls
	for at := time.Duration(0); at <= holdLength; at += time.Second {
		now := start + at.Microseconds()
		for ; len(rest) > 0 && rest[0].at <= at; rest = rest[1:] {
			state, _ = l.For(algo.Hold{ID: rest[0].request, Settles: rest[0].settles}).Step(state, now, rest[0].hits)
		}
		left := func(s algo.State) int64 {
			_, d := l.For(algo.Hold{}).Step(s, now, 0)
			return int64(reservation.Limit) - d.Remaining
		}
		r := room{at: at, both: left(state)}
		ended := state // what would be used if all ended and cost nothing
		for _, c := range calls {
			ended, _ = l.For(algo.Hold{ID: c.request, Settles: true}).Step(ended, now, 0)
		}
		r.used = left(ended)
		all = append(all, r)
	}
	return all, nil
}

// Hold draws what becomes of reservations: what is held becomes what is used when its
// request ends, and goes back when it expires.
func Hold() ([]byte, error) {
	all, err := rooms()
	if err != nil {
		return nil, err
	}
	p := newPlot()
	p.Title.Text = fmt.Sprintf("%s, %d per hour, held for a minute at most", reservation.Algorithm, reservation.Limit)
	p.X.Label.Text, p.Y.Label.Text = "seconds", "of the limit"
	p.X.Max = holdLength.Seconds()
	p.X.Tick.Marker, p.Y.Tick.Marker = every(15, int(p.X.Max)), every(25, int(reservation.Limit))
	p.Y.Min, p.Y.Max = 0, float64(reservation.Limit)+35
	for _, area := range []struct {
		name string
		of   func(room) int64
	}{{"held", func(r room) int64 { return r.both }}, {"used", func(r room) int64 { return r.used }}} {
		var counts []int
		for _, r := range all[:len(all)-1] {
			counts = append(counts, int(area.of(r)))
		}
		poly, err := plotter.NewPolygon(steps(counts))
		if err != nil {
			return nil, err
		}
		poly.Color, poly.LineStyle.Width = refused, 0
		if area.name == "used" {
			poly.Color = admitted
		}
		p.Add(poly)
		p.Legend.Add(area.name, poly)
	}
	limit := float64(reservation.Limit)
	most, err := plotter.NewLine(plotter.XYs{{X: 0, Y: limit}, {X: p.X.Max, Y: limit}})
	if err != nil {
		return nil, err
	}
	most.LineStyle = draw.LineStyle{Color: bound, Width: 1.5, Dashes: []vg.Length{5, 3}}
	p.Add(most)
	p.Legend.Add("limit", most)
	labels := plotter.XYLabels{}
	for i, c := range append(calls, asking{at: calls[4].at + reservation.Hold, label: "C expires"}) {
		labels.XYs = append(labels.XYs, plotter.XY{X: c.at.Seconds(), Y: limit + 4 + 9*float64(2-i%3)})
		labels.Labels = append(labels.Labels, c.label)
		mark, err := plotter.NewLine(plotter.XYs{{X: c.at.Seconds(), Y: 0}, {X: c.at.Seconds(), Y: limit + 3 + 9*float64(2-i%3)}})
		if err != nil {
			return nil, err
		}
		mark.LineStyle = draw.LineStyle{Color: text, Width: 0.5, Dashes: []vg.Length{1, 2}}
		p.Add(mark)
	}
	written, err := plotter.NewLabels(labels)
	if err != nil {
		return nil, err
	}
	for i := range written.TextStyle {
		written.TextStyle[i] = p.Legend.TextStyle
	}
	p.Add(written)
	return render(height, p)
}

func every(step, most int) (ticks plot.ConstantTicks) {
	for at := 0; at <= most; at += step {
		ticks = append(ticks, plot.Tick{Value: float64(at), Label: fmt.Sprint(at)})
	}
	return ticks
}
