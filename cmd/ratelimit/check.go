package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/distlimiter/ratelimit/internal/config"
)

// ruleOptions say how rules are read.
type ruleOptions struct {
	MergeDomains bool `group:"rules" negatable:"" env:"MERGE_DOMAIN_CONFIG" help:"Let several files give rules for one domain."`
	SkipDotFiles bool `group:"rules" negatable:"" env:"RUNTIME_IGNOREDOTFILES" help:"Leave out files and directories whose names begin with a dot."`
	DropDenied   bool `group:"rules" negatable:"" env:"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT" help:"Requests that are refused charge nothing: neither the limit that refuses, under fixed_window too, unless a rule says otherwise, nor those of the other descriptors."`
}

func (o ruleOptions) config() config.Options {
	return config.Options{MergeDomains: o.MergeDomains, SkipDotFiles: o.SkipDotFiles, DropDenied: o.DropDenied}
}

// load reads rules as serve would. It prints every problem of every file; then
// its error is errReported.
func (o ruleOptions) load(out io.Writer, paths []string) (*config.Rules, error) {
	rules, err := config.Load(paths, o.config())
	var bad *config.Invalid
	if !errors.As(err, &bad) {
		return rules, err
	}
	for _, p := range bad.Problems {
		fmt.Fprintln(out, p.Error())
	}
	fmt.Fprintln(out, count(len(bad.Problems), "error"))
	return nil, errReported
}

type checkCmd struct {
	Paths []string `arg:"" sep:"none" name:"path" help:"YAML files, or directories of them."`
	ruleOptions
}

// Help says what the errors look like.
func (checkCmd) Help() string {
	return `Each error is a line "file:line:column: path: what is wrong; what to write". Warnings are about rules that load all the same.`
}

func (c *checkCmd) Run(con console) error {
	rules, err := c.load(con.out, c.Paths)
	if err != nil {
		return err
	}
	for _, w := range rules.Warnings {
		fmt.Fprintf(con.out, "warning: %s\n", w.Error())
	}
	fmt.Fprintf(con.out, "valid: %s, %s\n", count(len(rules.Domains), "domain"), count(rules.Len(), "rule"))
	return nil
}

// count returns "1 rule" or "2 rules".
func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}
