// Command plots draws the plots of the documentation into a directory.
package main

import (
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/bench/figures"
	"github.com/distlimiter/ratelimit/bench/plots"
)

type command struct {
	Dir         string `arg:"" help:"Where the files go."`
	Performance string `default:"../docs/performance.json" help:"The figures to draw."`
}

func (c *command) Run() error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil { //nolint:gosec // documentation is for everybody
		return err
	}
	data, err := figures.Read(c.Performance)
	if err != nil {
		return err
	}
	drawings, err := plots.Performance(data)
	if err != nil {
		return err
	}
	for _, p := range plots.All() {
		svg, err := p.SVG()
		if err != nil {
			return err
		}
		drawings = append(drawings, plots.Drawing{File: p.File, SVG: svg})
	}
	for _, d := range drawings {
		if err := os.WriteFile(filepath.Join(c.Dir, d.File), d.SVG, 0o644); err != nil { //nolint:gosec // as above
			return err
		}
	}
	return nil
}

func main() {
	k := kong.Parse(&command{}, kong.Description("Draws what each algorithm admits of the same traffic, and the figures of performance."))
	k.FatalIfErrorf(k.Run())
}
