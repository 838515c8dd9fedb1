package main

import (
	"errors"
	"os"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/check"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/named"
)

// ruleOptions say how rules are read.
type ruleOptions struct {
	MergeDomains bool `group:"rules" field:"MergeDomains" negatable:"" env:"MERGE_DOMAIN_CONFIG" help:"Let several files give rules for one domain."`
	SkipDotFiles bool `group:"rules" negatable:"" env:"RUNTIME_IGNOREDOTFILES" help:"Leave out files and directories whose names begin with a dot."`
	AnyName      bool `group:"rules" negatable:"" env:"CONFIG_ANY_NAME" help:"In directories read files of any name, not only .yaml, .yml and .json. Those of --runtime-root always are."`
	DropDenied   bool `group:"rules" negatable:"" env:"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT" help:"Requests that are refused charge nothing: neither the limit that refuses, under fixed_window too, unless a rule says otherwise, nor those of the other descriptors."`
}

// grammar returns how files are read, with the names of flags and variables for errors.
func (o ruleOptions) grammar(names named.Fields) rulefile.Options {
	return rulefile.Options{MergeDomains: o.MergeDomains, DropDenied: o.DropDenied, Names: names}
}

func (o ruleOptions) files() reload.FileOptions {
	return reload.FileOptions{SkipDotFiles: o.SkipDotFiles, AnyName: o.AnyName}
}

func (o ruleOptions) reader(command *kong.Node) *check.Reader {
	return &check.Reader{Grammar: o.grammar(names(command)), Files: o.files(), Stdin: os.Stdin}
}

type checkCmd struct {
	Paths   []string `arg:"" sep:"none" name:"path" help:"YAML files, or directories of them; - for standard input."`
	Against []string `sep:"none" placeholder:"OLD" help:"Also list the counters that begin anew when these rules, a file or a directory, take the place of OLD. Repeat it for several."`
	Output  string   `short:"o" enum:"text,json" default:"text" help:"text, or json with one object that has all of it."`
	ruleOptions
}

// Help says what the errors look like.
func (checkCmd) Help() string {
	return `Each error is a line "file:line:column: path: what is wrong; what to write". Warnings are about rules that load all the same, a hint is about limits that may surprise. Files of a directory that are not read because of their names are listed as skipped.

With --against each limit whose counters do not go on is a line: "begins anew" says why, and what it was; "gone" limits apply no more; "new" ones forget nothing. Limits that keep their counters are only counted. A rule with another domain, key or value is gone and new. Exit codes: 0 all counters go on, 1 the rules of either side are invalid, 3 some counters begin anew or are gone.

Example: ratelimit check --against /etc/ratelimit/rules rules`
}

// errBeginAnew fails a check that has listed counters that do not go on.
var errBeginAnew = errors.New("counters begin anew")

func (c *checkCmd) Run(con console, command *kong.Context) error {
	report, err := check.New(c.reader(command.Selected()), c.Paths, c.Against)
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
