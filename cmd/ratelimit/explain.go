package main

import (
	"errors"
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/check"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

type explainCmd struct {
	Paths      paths              `arg:"" name:"path ..." help:"YAML files, or directories of them; - for standard input."`
	Descriptor descriptor.Entries `arg:"" optional:"" name:"descriptor" help:"The descriptor, such as user=alice,path=/x. Write \\, for a comma in a value."`

	Domain string `short:"d" required:"" placeholder:"NAME" help:"Domain that Envoy would send."`
	Output string `short:"o" enum:"text,json" default:"text" help:"text, or json as the admin API returns it."`
	ruleOptions
}

// paths are the arguments up to the first flag. It is a type of its own because kong
// allows no argument after a slice.
type paths []string

// Decode implements kong.MapperValue.
func (p *paths) Decode(ctx *kong.DecodeContext) error {
	for ctx.Scan.Peek().IsValue() {
		token, err := ctx.Scan.PopValue("path")
		if err != nil {
			return err
		}
		*p = append(*p, token.String())
	}
	return nil
}

// Help describes the output and shows an example.
func (explainCmd) Help() string {
	return `For each entry it shows what matches in the rules. Then it shows the rule that the last entry leads to, its limits and the counters that they charge. Limits on sets of entries follow: those that apply, and the nearest others with the keys that do not meet them.

Example: ratelimit explain config/examples --domain edge user=alice`
}

// Validate takes the last argument as the descriptor if no flag separates it from the
// paths.
func (c *explainCmd) Validate(command *kong.Context) error {
	if err := c.ruleOptions.Validate(command); err != nil || c.Descriptor != nil {
		return err
	}
	last := len(c.Paths) - 1
	if last < 1 {
		return errors.New("write a path and a descriptor: ratelimit explain edge.yaml --domain edge user=alice")
	}
	if err := c.Descriptor.UnmarshalText([]byte(c.Paths[last])); err != nil {
		return err
	}
	c.Paths = c.Paths[:last]
	return nil
}

func (c *explainCmd) Run(con console, command *kong.Context) error {
	reader, err := c.reader(command.Selected())
	if err != nil {
		return err
	}
	rules, err := reader.Read(c.Paths, nil)
	if bad, ok := errors.AsType[*config.Invalid](err); ok {
		fmt.Fprintf(con.err, "%v\n%s\n", bad, check.Count(len(bad.Problems), "error"))
		return errReported
	} else if err != nil {
		return err
	}
	explanation := descriptor.Compile(rules).Explain(c.Domain, c.Descriptor)
	if c.Output == "json" {
		err = con.printJSON(explanation)
	} else {
		_, err = fmt.Fprint(con.out, explanation)
	}
	if err == nil && explanation.Outcome != descriptor.Matched {
		err = errReported
	}
	return err
}
