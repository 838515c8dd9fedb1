package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// ruleOptions say how rules are read.
type ruleOptions struct {
	MergeDomains bool `group:"rules" negatable:"" env:"MERGE_DOMAIN_CONFIG" help:"Let several files give rules for one domain."`
	SkipDotFiles bool `group:"rules" negatable:"" env:"RUNTIME_IGNOREDOTFILES" help:"Leave out files and directories whose names begin with a dot."`
	AnyName      bool `group:"rules" negatable:"" env:"CONFIG_ANY_NAME" help:"In directories read files of any name, not only .yaml, .yml and .json. Those of --runtime-root always are."`
	DropDenied   bool `group:"rules" negatable:"" env:"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT" help:"Requests that are refused charge nothing: neither the limit that refuses, under fixed_window too, unless a rule says otherwise, nor those of the other descriptors."`
}

func (o ruleOptions) grammar() rulefile.Options {
	return rulefile.Options{MergeDomains: o.MergeDomains, DropDenied: o.DropDenied}
}

func (o ruleOptions) files() reload.FileOptions {
	return reload.FileOptions{SkipDotFiles: o.SkipDotFiles, AnyName: o.AnyName}
}

// load reads rules as serve would with --config. It prints every problem of every
// file; then its error is errReported. skipped may be nil; see [reload.Files].
func (o ruleOptions) load(out io.Writer, paths []string, skipped func(path, why string)) (*config.Rules, error) {
	rules, err := o.read(paths, skipped)
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

// read reads the files, or standard input for "-".
func (o ruleOptions) read(paths []string, skipped func(path, why string)) (*config.Rules, error) {
	if !slices.Contains(paths, "-") {
		return (&reload.Files{Paths: paths, Options: o.files(), Skipped: skipped}).Load(rulefile.NewParser(o.grammar()).Parse)
	}
	if len(paths) > 1 {
		return nil, errors.New("- is standard input: give it alone")
	}
	data, err := io.ReadAll(io.LimitReader(os.Stdin, rulefile.DefaultMaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	return rulefile.Parse([]rulefile.Source{{Name: "stdin", Data: data}}, o.grammar())
}

type checkCmd struct {
	Paths   []string `arg:"" sep:"none" name:"path" help:"YAML files, or directories of them; - for standard input."`
	Against []string `sep:"none" placeholder:"OLD" help:"Also list the counters that begin anew when these rules, a file or a directory, take the place of OLD. Repeat it for several."`
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

func (c *checkCmd) Run(con console) error {
	rules, err := c.load(con.out, c.Paths, func(path, why string) { fmt.Fprintf(con.out, "skipped: %s: %s\n", path, why) })
	if err != nil {
		return err
	}
	for _, w := range rules.Warnings {
		fmt.Fprintf(con.out, "warning: %s\n", w.Error())
	}
	if hints := rulefile.Hints(rules); len(hints) > 0 { // one is enough: the others are of the same kind
		fmt.Fprintf(con.out, "hint: %s%s\n", hints[0].Error(), others(len(hints)-1))
	}
	fmt.Fprintf(con.out, "valid: %s, %s\n", count(len(rules.Domains), "domain"), count(rules.Len(), "rule"))
	if len(c.Against) == 0 {
		return nil
	}
	old, err := c.load(con.out, c.Against, nil)
	if err != nil {
		return err
	}
	return sayReplacement(con.out, descriptor.Replace(old, rules))
}

// sayReplacement prints which counters do not go on. Its error is errBeginAnew if
// there are any that were there before.
func sayReplacement(out io.Writer, r descriptor.Replacement) error {
	anew, gone, added := 0, 0, 0
	for _, change := range r.Changes {
		switch {
		case change.Old == nil:
			added++
		case change.New == nil:
			gone++
		default:
			anew++
		}
		fmt.Fprintln(out, change)
	}
	fmt.Fprintf(out, "limits: %d begin anew, %d gone, %d new, %d keep their counters\n", anew, gone, added, r.Kept)
	if anew+gone > 0 {
		return errBeginAnew
	}
	return nil
}

// others returns how many more there are, if any.
func others(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %s like it)", count(n, "limit"))
}

// count returns "1 rule" or "2 rules".
func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}
