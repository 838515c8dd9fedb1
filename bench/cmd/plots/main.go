// Command plots draws the plots of the documentation into a directory.
package main

import (
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/bench/plots"
)

type command struct {
	Dir string `arg:"" help:"Where the files go."`
}

func (c *command) Run() error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil { //nolint:gosec // documentation is for everybody
		return err
	}
	for _, p := range plots.All() {
		svg, err := p.SVG()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(c.Dir, p.File), svg, 0o644); err != nil { //nolint:gosec // as above
			return err
		}
	}
	return nil
}

func main() {
	k := kong.Parse(&command{}, kong.Description("Draws what each algorithm admits of the same traffic."))
	k.FatalIfErrorf(k.Run())
}
