package main

import (
	"errors"
	"os"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/check"
	"github.com/distlimiter/ratelimit/internal/commandline"
	"github.com/distlimiter/ratelimit/internal/settings"
)

type checkCmd struct {
	Paths   []string `arg:"" sep:"none" name:"path" help:"YAML files, or directories of them; - for standard input."`
	Against []string `sep:"none" placeholder:"OLD" help:"Also list the counters that begin anew when the rules replace those of OLD, a file or a directory. Repeat the flag for several."`
	Output  string   `short:"o" enum:"text,json" default:"text" help:"text, or json: one object with the whole report."`
	settings.RuleOptions
}

// Help describes the form of the errors.
func (checkCmd) Help() string {
	return `Each error is a line "file:line:column: path: what is wrong; what to write". Warnings are about rules that load anyway, hints about limits that may surprise. Files of a directory that are not read because of their names are listed as skipped. For each default or adjustment a line "adjusted" shows how many rules it changes, and the first of them; json lists them all.

With --against, each limit that does not keep its counters has a line: "begins anew" shows why, and the old limit; "gone" is a limit that no longer applies; "new" is a limit without counters so far. Limits that keep their counters are only counted. A rule with another domain, key or value is gone and new. Exit codes: 0 all counters are kept, 1 the old or the new rules are invalid, 3 some counters begin anew or are gone.

Example: ratelimit check --against /etc/ratelimit/rules rules`
}

// errBeginAnew fails a check that has listed counters that do not go on.
var errBeginAnew = errors.New("counters begin anew")

func (c *checkCmd) Run(con console, command *kong.Context) error {
	reader, err := rulesReader(c.RuleOptions, command)
	if err != nil {
		return err
	}
	report, err := check.New(reader, c.Paths, c.Against)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		err = report.WriteJSON(con.out)
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

// rulesReader reads rules as the options say.
func rulesReader(o settings.RuleOptions, command *kong.Context) (*check.Reader, error) {
	names := commandline.FieldNames(command.Selected())
	defaults, err := o.Default(names)
	return &check.Reader{Grammar: o.Grammar(names), Default: defaults, Files: o.FileOptions(), Stdin: os.Stdin}, err
}
