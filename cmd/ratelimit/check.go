package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/check"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/named"
	"github.com/distlimiter/ratelimit/internal/settings"
)

// ruleOptions are the settings for reading rules.
type ruleOptions struct {
	MergeDomains     bool               `group:"rules" field:"MergeDomains" negatable:"" env:"MERGE_DOMAIN_CONFIG" help:"Let several files give rules for one domain."`
	SkipDotFiles     bool               `group:"rules" negatable:"" env:"RUNTIME_IGNOREDOTFILES" help:"Leave out files and directories whose names begin with a dot."`
	AnyName          bool               `group:"rules" negatable:"" env:"CONFIG_ANY_NAME" help:"In directories read files of any name, not only .yaml, .yml and .json. Those of --runtime-root always are."`
	DefaultAlgorithm settings.Algorithm `group:"rules" field:"DefaultAlgorithm" placeholder:"NAME" env:"DEFAULT_ALGORITHM" help:"Algorithm of limits for which their rules name none, such as those that come by xDS: instead of fixed_window. Quotas and windows of a day or more keep theirs."`
	DefaultBurst     settings.Burst     `group:"rules" field:"DefaultBurst" placeholder:"BURST" env:"DEFAULT_BURST" help:"Burst that goes with --default-algorithm: a number, or a percentage of the limit, rounded up."`
	DropDenied       bool               `group:"rules" negatable:"" env:"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT" help:"Requests that are refused charge nothing: neither the limit that refuses, under fixed_window too, unless a rule says otherwise, nor those of the other descriptors."`
}

// grammar returns how files are read, with the names of flags and variables for errors.
func (o ruleOptions) grammar(names named.Fields) rulefile.Options {
	return rulefile.Options{MergeDomains: o.MergeDomains, DropDenied: o.DropDenied, Names: names}
}

// defaults returns the algorithm of limits that name none.
func (o ruleOptions) defaults(names named.Fields) (config.Default, error) {
	d := config.Default{Algorithm: algo.Algorithm(o.DefaultAlgorithm), Burst: config.Burst(o.DefaultBurst), By: names.Either("DefaultAlgorithm")}
	if err := d.Check(); err != nil {
		return d, fmt.Errorf("%s: %w", names.Either("DefaultBurst"), err)
	}
	return d, nil
}

// Validate refuses a default that no limit can have.
func (o ruleOptions) Validate(command *kong.Context) error {
	_, err := o.defaults(names(command.Selected()))
	return err
}

func (o ruleOptions) files() reload.FileOptions {
	return reload.FileOptions{SkipDotFiles: o.SkipDotFiles, AnyName: o.AnyName}
}

func (o ruleOptions) reader(command *kong.Node) (*check.Reader, error) {
	defaults, err := o.defaults(names(command))
	return &check.Reader{Grammar: o.grammar(names(command)), Default: defaults, Files: o.files(), Stdin: os.Stdin}, err
}

type checkCmd struct {
	Paths   []string            `arg:"" sep:"none" name:"path" help:"YAML files, or directories of them; - for standard input."`
	Against []string            `sep:"none" placeholder:"OLD" help:"Also list the counters that begin anew when these rules, a file or a directory, take the place of OLD. Repeat it for several."`
	Before  *settings.Algorithm `name:"against-default-algorithm" placeholder:"NAME" help:"Default algorithm of OLD, where it was another one than --default-algorithm is now."`
	Output  string              `short:"o" enum:"text,json" default:"text" help:"text, or json with one object that has all of it."`
	ruleOptions
}

// Help describes the form of the errors.
func (checkCmd) Help() string {
	return `Each error is a line "file:line:column: path: what is wrong; what to write". Warnings are about rules that load all the same, a hint is about limits that may surprise. Files of a directory that are not read because of their names are listed as skipped. A line "adjusted" tells of each default or adjustment how many rules it changes, and the first of them; json has all.

With --against each limit whose counters do not go on is a line: "begins anew" says why, and what it was; "gone" limits apply no more; "new" ones forget nothing. "Partly" names a descriptor where a rule stays, or goes on, for others; an … in it is any text. Limits that keep their counters are only counted. A rule with another domain, key or value is gone and new. Both sides take --default-algorithm: before you change it, say by --against-default-algorithm which one there was. Exit codes: 0 all counters go on, 1 the rules of either side are invalid, 3 some counters begin anew or are gone.

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
