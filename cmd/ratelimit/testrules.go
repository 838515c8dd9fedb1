package main

import (
	"os"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/commandline"
	"github.com/distlimiter/ratelimit/internal/ruletest"
)

type testCmd struct {
	Files  []string `arg:"" sep:"none" name:"file" help:"Files of tests; - for standard input."`
	Rules  []string `sep:"none" placeholder:"PATH" help:"Test these rules, a file or a directory, instead of those that the files name. Repeat the flag for several."`
	Output string   `short:"o" enum:"text,json" default:"text" help:"text, or json: one object with the whole report."`
	ruleOptions
}

// Help shows an example of a file.
func (testCmd) Help() string {
	return `A file lists requests with their times and the expected answers. They are decided as the service would decide them, with counters in memory that are empty at the start of each test, and with a simulated clock:

    rules: edge.yaml
    tests:
      - name: alice may send two a minute
        steps:
          - {descriptors: user=alice, repeat: 2, expect: OK}
          - {descriptors: user=alice, expect: {verdict: OVER_LIMIT, remaining: 0, reset: 60s}}
          - {after: 1m, descriptors: user=alice, expect: OK}

docs/testing-rules.md describes the files. Exit codes: 0 all tests passed, 1 one failed, or the tests or the rules are invalid.`
}

func (c *testCmd) Run(con console, command *kong.Context) error {
	names := commandline.FieldNames(command.Selected())
	defaults, err := c.Default(names)
	if err != nil {
		return err
	}
	report := ruletest.Run(c.Files, ruletest.Options{
		Grammar: c.Grammar(names), Default: defaults, Files: c.FileOptions(), Rules: c.Rules, Stdin: os.Stdin,
	})
	if c.Output == "json" {
		if err := con.printJSON(report); err != nil {
			return err
		}
	} else {
		report.WriteText(con.out)
	}
	if !report.Passed {
		return errReported
	}
	return nil
}
