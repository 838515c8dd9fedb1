package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/check"
	"github.com/distlimiter/ratelimit/internal/commandline"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/settings"
)

// ruleOptions are the settings of commands that read rules.
type ruleOptions struct{ settings.RuleOptions }

// Validate refuses a default that no limit can have.
func (o ruleOptions) Validate(command *kong.Context) error {
	_, err := o.Default(commandline.FieldNames(command.Selected()))
	return err
}

func (o ruleOptions) reader(command *kong.Node) (*check.Reader, error) {
	names := commandline.FieldNames(command)
	defaults, err := o.Default(names)
	return &check.Reader{Grammar: o.Grammar(names), Default: defaults, Files: o.FileOptions(), Stdin: os.Stdin}, err
}

type checkCmd struct {
	Paths   []string            `arg:"" sep:"none" name:"path" help:"YAML files, or directories of them; - for standard input."`
	Against []string            `sep:"none" placeholder:"OLD" help:"Also list the counters that begin anew when the rules replace those of OLD, a file or a directory. Repeat the flag for several."`
	Before  *settings.Algorithm `name:"against-default-algorithm" placeholder:"NAME" help:"Default algorithm of OLD, where it differs from --default-algorithm."`
	Output  string              `short:"o" enum:"text,json" default:"text" help:"text, or json: one object with the whole report."`
	ruleOptions
}

// Help describes the form of the errors.
func (checkCmd) Help() string {
	return `Each error is a line "file:line:column: path: what is wrong; what to write". Warnings are about rules that load anyway, hints about limits that may surprise. Files of a directory that are not read because of their names are listed as skipped. For each default or adjustment a line "adjusted" shows how many rules it changes, and the first of them; json lists them all.

With --against, each limit that does not keep its counters has a line: "begins anew" shows why, and the old limit; "gone" is a limit that no longer applies; "new" is a limit without counters so far. "Partly" names a descriptor where a rule stays, or keeps its counters, for others; … in it is any text. Limits that keep their counters are only counted. A rule with another domain, key or value is gone and new. Both sides take --default-algorithm: before you change it, name the old one with --against-default-algorithm. Exit codes: 0 all counters are kept, 1 the old or the new rules are invalid, 3 some counters begin anew or are gone.

Example: ratelimit check --against /etc/ratelimit/rules rules`
}

// errBeginAnew fails a check that has listed counters that do not go on.
var errBeginAnew = errors.New("counters begin anew")

// Validate refuses defaults that no limit can have.
func (c *checkCmd) Validate(command *kong.Context) error {
	if err := c.ruleOptions.Validate(command); err != nil || c.Before == nil {
		return err
	}
	if err := c.before().Check(); err != nil {
		return fmt.Errorf("--against-default-algorithm: %w", err)
	}
	return nil
}

// before returns the default algorithm of the older rules.
func (c *checkCmd) before() config.Default {
	return config.Default{Algorithm: algo.Algorithm(*c.Before), By: "--against-default-algorithm"}
}

func (c *checkCmd) Run(con console, command *kong.Context) error {
	reader, err := c.reader(command.Selected())
	if err != nil {
		return err
	}
	older := check.Older{Paths: c.Against, Default: reader.Default}
	if c.Before != nil && algo.Algorithm(*c.Before) != reader.Default.Algorithm {
		older.Default = c.before()
	}
	report, err := check.New(reader, c.Paths, older)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		err = con.printJSON(report)
	} else {
		report.WriteText(con.out)
	}
	switch a := report.Against; {
	case err != nil:
		return err
	case !report.Valid || a != nil && len(a.Errors) > 0:
		return errReported
	case a != nil && a.Anew+a.Gone > 0:
		return errBeginAnew
	}
	return nil
}
