// Command ratelimit is a rate-limit service for Envoy, with the tools to check
// its rules, to explain them and to try them out.
//
// This package owns the command line: flags, exit codes and output. It turns flags into
// options of the packages that do the work.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/commandline"
	"github.com/distlimiter/ratelimit/internal/settings"
	"github.com/distlimiter/ratelimit/internal/visible"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // the command ran and failed: invalid rules, no matching rule, port in use
	exitUsage   = 2 // the command line or the environment is wrong
	exitOver    = 4 // hit: a request was over its limit
	exitAnew    = 3 // check --against: the rules are valid, and counters begin anew; convert: something was not carried over
)

// groups are the sections of serve's help.
var groups = []kong.Group{
	{Key: "rules", Title: "Rules:"},
	{Key: "xds", Title: "Rules from an xDS server:"},
	{Key: "listen", Title: "Addresses:"},
	{Key: "admin", Title: "Admin address:"},
	{Key: "tls", Title: "TLS of gRPC:"},
	{Key: "decisions", Title: "Decisions:"},
	{Key: "headers", Title: "Response headers:"},
	{Key: "store", Title: "Counters:"},
	{Key: "bounds", Title: "Bounds:"},
	{Key: "connections", Title: "Connections and shutdown:"},
	{Key: "stats", Title: "Statistics:"},
	{Key: "telemetry", Title: "OpenTelemetry:"},
	{Key: "log", Title: "Log:"},
}

// errReported fails a command that has already printed why.
var errReported = errors.New("reported")

const description = `A rate-limit service for Envoy with seven algorithms, and the tools to check, explain and try its rules.

Each flag can also be set by the environment variable that its help names. A flag wins over its variable, and an empty variable counts as not set. Exit codes: 0 success, 1 failure, 2 wrong usage. "ratelimit help COMMAND" and "ratelimit --version" work too.`

type commands struct {
	Serve   serveCmd   `cmd:"" default:"withargs" help:"Answer Envoy's rate-limit requests. The default command."`
	Check   checkCmd   `cmd:"" help:"Validate rules. Exit 0 if they are valid, else list every error and exit 1. With --against, list the counters that begin anew."`
	Explain explainCmd `cmd:"" help:"Show which rule decides a descriptor, and why. Exit 1 if none does."`
	Test    testCmd    `cmd:"" help:"Run tests of rules: requests with their times and the expected answers. Exit 0 if all pass, else 1."`
	Hit     hitCmd     `cmd:"" help:"Send real requests to a running service and print its decisions. Exit 0 if all were OK, 4 if one was OVER_LIMIT."`
	Rules   rulesCmd   `cmd:"" help:"List and change the rules of a running service."`
	Credit  creditCmd  `cmd:"" help:"Give hits back to the counters of a descriptor in a running service."`
	Stats   statsCmd   `cmd:"" help:"Print counts, rates and hottest counters of the rules of a running service."`
	Tail    tailCmd    `cmd:"" help:"Print decisions of a running service as they happen."`
	Convert convertCmd `cmd:"" help:"Convert a file of Limitador or Gloo into rules, and list what cannot be carried over."`
	Schema  schemaCmd  `cmd:"" help:"Print the JSON Schema of rule files, for editors."`
	Version versionCmd `cmd:"" help:"Print the version."`

	Completion completionCmd `cmd:"" help:"Print a shell script that completes commands, flags and values."`
	Complete   completeCmd   `cmd:"" hidden:"" help:"List the words that may follow."`
}

// console holds the outputs of commands.
type console struct{ out, err io.Writer }

// standardOutput keeps the first error of writing. A command whose results are lost, because a disk
// is full or the reader has gone, must not succeed.
type standardOutput struct {
	to  io.Writer
	err error
}

// Write implements io.Writer.
func (o *standardOutput) Write(text []byte) (int, error) {
	n, err := o.to.Write(text)
	o.err = cmp.Or(o.err, err)
	return n, err
}

// printJSON prints a report as one object.
func (c console) printJSON(report any) error {
	encoder := json.NewEncoder(c.out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(report)
}

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

func newParser(into *commands, options ...kong.Option) (*kong.Kong, error) {
	return kong.New(into, append(options,
		kong.Name("ratelimit"),
		kong.Description(description),
		kong.DefaultEnvars("RATELIMIT"), // for flags that name none
		kong.Resolvers(kong.ResolverFunc(hostAndPort)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}),
		kong.ExplicitGroups(groups),
		kong.Vars(settings.Defaults()),
	)...)
}

func execute(args []string, stdout, stderr io.Writer) int {
	out := &standardOutput{to: visible.Writer{To: stdout}}
	stderr = visible.Writer{To: stderr}
	parser, err := newParser(&commands{}, kong.Writers(out, stderr), kong.Bind(console{out, stderr}))
	if err != nil {
		return fail(stderr, err, exitUsage)
	}
	args = commandline.AsCommand(args)
	commandline.UnsetEmpty(parser.Model.Node)
	ctx, err := parser.Parse(args)
	if out.err != nil { // help was lost
		return fail(stderr, out.err, exitFailure)
	}
	if err != nil {
		command, what := commandline.Misuse(parser.Model, args, err)
		fmt.Fprintf(stderr, "ratelimit: %s\nRun \"%s --help\" to see how it is used.\n", what, command)
		return exitUsage
	}
	err = ctx.Run()
	if out.err != nil && ctx.Command() != "serve" { // a service does without readers
		err = out.err
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errOverLimit):
		return exitOver // the table says so
	case errors.Is(err, errBeginAnew), errors.Is(err, errNotCarried):
		return exitAnew // it is listed
	default:
		return fail(stderr, err, exitFailure)
	}
}

func fail(stderr io.Writer, err error, code int) int {
	if !errors.Is(err, errReported) {
		fmt.Fprintf(stderr, "ratelimit: %v\n", err)
	}
	return code
}

// hostAndPort is the kong resolver that composes an address from the variables of its host
// and port if neither the flag nor its own variable is set.
func hostAndPort(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !strings.HasSuffix(flag.Name, "-addr") || os.Getenv(flag.Envs[0]) != "" {
		return nil, nil
	}
	addr, err := settings.Address(os.Getenv, flag.Envs[0], flag.Default)
	if err != nil || addr == "" {
		return nil, err
	}
	return addr, nil
}
