// Command plots draws the plots of the documentation into a directory.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/bench/figures"
	"github.com/distlimiter/ratelimit/bench/plots"
)

type command struct {
	Dir         string `arg:"" help:"Where the files go."`
	Performance string `default:"../docs/performance.json" help:"The figures to draw."`
	Soak        string `placeholder:"CSV" help:"Draw the samples of make soak, and nothing else."`
}

func (c *command) Run() error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil { //nolint:gosec // documentation is for everybody
		return err
	}
	if c.Soak != "" {
		return c.soak()
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

func (c *command) soak() error {
	samples, err := os.Open(c.Soak)
	if err != nil {
		return err
	}
	defer samples.Close()
	svg, err := plots.Soak(samples)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Soak, err)
	}
	return os.WriteFile(filepath.Join(c.Dir, "soak.svg"), svg, 0o644) //nolint:gosec // documentation is for everybody
}

func main() {
	k := kong.Parse(&command{}, kong.Description("Draws what each algorithm admits of the same traffic, and the figures of performance; or the samples of a soak."))
	k.FatalIfErrorf(k.Run())
}
