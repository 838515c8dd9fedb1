// Package plots draws how each algorithm decides the same traffic, by running internal/algo
// on it. The drawings are files of the documentation. A test fails when they no longer match
// the code.
package plots

import (
	"fmt"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// The rule that is drawn: 60 hits a minute.
const (
	limit  = 60
	window = time.Minute
	burst  = 20
)

// Plot is one algorithm with its parameters.
type Plot struct {
	File   string // without directory
	Params algo.Params
}

// All are the plots of the documentation.
func All() []Plot {
	rule := func(file string, a algo.Algorithm, more func(*algo.Params)) Plot {
		p := algo.Params{Algorithm: a, Limit: limit, Window: window}
		if more != nil {
			more(&p)
		}
		return Plot{File: file + ".svg", Params: p}
	}
	bursts := func(p *algo.Params) { p.Burst = burst }
	strict := func(p *algo.Params) { p.Strict = true }
	return []Plot{
		rule("fixed_window", algo.FixedWindow, nil),
		rule("sliding_window", algo.SlidingWindow, nil),
		rule("sliding_window_strict", algo.SlidingWindow, strict),
		rule("sliding_log", algo.SlidingLog, nil),
		rule("token_bucket", algo.TokenBucket, bursts),
		rule("leaky_bucket", algo.LeakyBucket, nil),
		rule("hybrid", algo.Hybrid, func(p *algo.Params) { bursts(p); strict(p) }),
	}
}

// title names the rule as a rule file does.
func (p Plot) title() string {
	parts := []string{p.Params.Algorithm.String(), fmt.Sprintf("%d per minute", p.Params.Limit)}
	if p.Params.Burst > 0 {
		parts = append(parts, fmt.Sprintf("burst %d", p.Params.Burst))
	}
	if p.Params.Strict {
		parts = append(parts, "strict")
	}
	return strings.Join(parts, ", ")
}

// phase is a part of the traffic with one rate.
type phase struct {
	from, to  time.Duration
	perSecond int64
}

// traffic shows the differences between the algorithms: 100 hits at the end of a window, 100
// at the beginning of the next, and then twice the limit without end.
var traffic = []phase{
	{50 * time.Second, 60 * time.Second, 10},
	{60 * time.Second, 70 * time.Second, 10},
	{150 * time.Second, 300 * time.Second, 2},
}

const length = 300 * time.Second

// hit is one request of the traffic.
type hit struct {
	at      time.Duration
	allowed bool
}

// run decides the traffic.
func (p Plot) run() ([]hit, error) {
	l, err := algo.New(p.Params)
	if err != nil {
		return nil, err
	}
	// The epoch of the plot is a boundary of windows, as any multiple of the window is.
	start := (1_700_000_000 * time.Second).Truncate(window).Microseconds()
	var hits []hit
	var state algo.State
	for _, ph := range traffic {
		n := int64((ph.to-ph.from)/time.Second) * ph.perSecond
		for i := range n {
			at := ph.from + time.Duration(i)*(ph.to-ph.from)/time.Duration(n)
			var d algo.Decision
			state, d = l.Step(state, start+at.Microseconds(), 1)
			hits = append(hits, hit{at, d.Allowed})
		}
	}
	return hits, nil
}

// perSecond returns for each second how many hits came and how many were admitted.
func perSecond(hits []hit) (came, admitted []int) {
	n := int(length / time.Second)
	came, admitted = make([]int, n), make([]int, n)
	for _, h := range hits {
		i := int(h.at / time.Second)
		came[i]++
		if h.allowed {
			admitted[i]++
		}
	}
	return came, admitted
}

// point is a number of hits at a time.
type point struct {
	at time.Duration
	n  int
}

// trailing returns, for each time at which it changes, how many hits the window that ends
// there holds.
func trailing(hits []hit) []point {
	var admitted []time.Duration
	for _, h := range hits {
		if h.allowed {
			admitted = append(admitted, h.at)
		}
	}
	points := []point{{0, 0}}
	enter, leave := 0, 0
	for enter < len(admitted) || leave < enter {
		// Windows are open at their beginning: a hit as old as the window has left it.
		if leave == enter || enter < len(admitted) && admitted[enter] < admitted[leave]+window {
			points = append(points, point{admitted[enter], enter + 1 - leave})
			enter++
			continue
		}
		points = append(points, point{admitted[leave] + window, enter - leave - 1})
		leave++
	}
	return points
}
