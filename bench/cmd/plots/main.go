// Command plots draws the plots of the documentation.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/bench/figures"
	"github.com/distlimiter/ratelimit/bench/plots"
)

type command struct {
	Docs        string `arg:"" help:"The directory of the documentation: plots of algorithms go into img, of measurements into dev/img."`
	Performance string `default:"../docs/dev/performance.json" help:"The figures to draw."`
	Soak        string `placeholder:"CSV" help:"Draw the samples of make soak, and nothing else."`
}

func (c *command) Run() error {
	if c.Soak != "" {
		return c.soak()
	}
	data, err := figures.Read(c.Performance)
	if err != nil {
		return err
	}
	measured, err := plots.Performance(data)
	if err != nil {
		return err
	}
	hold, err := plots.Hold()
	if err != nil {
		return err
	}
	algorithms := []plots.Drawing{{File: plots.HoldFile, SVG: hold}}
	for _, p := range plots.All() {
		svg, err := p.SVG()
		if err != nil {
			return err
		}
		algorithms = append(algorithms, plots.Drawing{File: p.File, SVG: svg})
	}
	return errors.Join(write(filepath.Join(c.Docs, "img"), algorithms...), write(c.measured(), measured...))
}

// measured returns the directory of the plots of measurements.
func (c *command) measured() string { return filepath.Join(c.Docs, "dev", "img") }

func write(dir string, drawings ...plots.Drawing) error {
	for _, d := range drawings {
		if err := os.WriteFile(filepath.Join(dir, d.File), d.SVG, 0o644); err != nil { //nolint:gosec // documentation is for everybody
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
	return write(c.measured(), plots.Drawing{File: "soak.svg", SVG: svg})
}

func main() {
	k := kong.Parse(&command{}, kong.Description("Draws what each algorithm admits of the same traffic, and the figures of performance; or the samples of a soak."))
	k.FatalIfErrorf(k.Run())
}
