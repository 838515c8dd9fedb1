package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/distlimiter/ratelimit/bench/figures"
)

type librariesCmd struct {
	Results string `arg:"" type:"existingfile" help:"Output of the benchmarks of bench/libraries."`
}

// Run prints the results of the benchmarks as tables.
func (c *librariesCmd) Run() error {
	results, err := readLibraries(c.Results)
	if err != nil {
		return err
	}
	return (&figures.Data{Libraries: results}).LibrariesMarkdown(os.Stdout)
}

func readLibraries(path string) ([]figures.Result, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return figures.ParseLibraries(f)
}

type tablesCmd struct {
	Figures string `arg:"" optional:"" default:"../docs/dev/performance.json" type:"existingfile" help:"What docs has stored."`
}

// Run prints each row that was measured, of which the page has a summary.
func (c *tablesCmd) Run() error {
	data, err := figures.Read(c.Figures)
	if err != nil {
		return err
	}
	if data.Report == nil {
		return fmt.Errorf("%s holds no report", c.Figures)
	}
	return data.Report.Markdown(os.Stdout)
}

type docsCmd struct {
	Report    string `type:"existingfile" placeholder:"FILE" help:"What report --json wrote. Default: the figures in DIR stay."`
	Libraries string `type:"existingfile" placeholder:"FILE" help:"Output of the benchmarks of bench/libraries. Default: as above."`
	Dir       string `default:"../docs/dev" type:"existingdir" help:"Where performance.json and performance.md are."`
}

// Run stores the figures and puts them into the documentation.
func (c *docsCmd) Run() error {
	kept := filepath.Join(c.Dir, "performance.json")
	data, err := figures.Read(kept)
	if err != nil {
		return err
	}
	if c.Report != "" {
		measured, err := figures.ReadReport(c.Report)
		if err != nil {
			return err
		}
		data.Report = measured
	}
	if c.Libraries != "" {
		if data.Libraries, err = readLibraries(c.Libraries); err != nil {
			return err
		}
	}
	if err := data.Write(kept); err != nil {
		return err
	}
	page := filepath.Join(c.Dir, "performance.md")
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	updated, err := data.Update(string(text))
	if err != nil {
		return err
	}
	return os.WriteFile(page, []byte(updated), 0o644) //nolint:gosec // documentation is for everybody
}
