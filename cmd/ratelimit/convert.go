package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/distlimiter/ratelimit/internal/check"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/convert"
)

type convertCmd struct {
	File   string `arg:"" help:"A file of the other service; - for standard input."`
	From   string `required:"" enum:"limitador,gloo" placeholder:"limitador|gloo" help:"limitador: a list of limits, also in a ConfigMap or a resource Limitador. gloo: a RateLimitConfig, RateLimitServerConfig or Settings."`
	Domain string `short:"d" placeholder:"NAME" help:"Domain of all the rules. The default is the namespace of a limit for Limitador; for Gloo it is custom for Settings, and the namespace and name of other resources."`
}

// Help describes the output.
func (convertCmd) Help() string {
	return `It writes the rules to standard output. What the file asks for and the rules do not do goes to standard error, each a line "file:line:column: path: what; what to do instead". The rules begin with the same lines as comments. docs/migrating.md describes where the two services still answer differently.

Exit codes: 0 everything was carried over, 1 the file cannot be read, 3 something was not carried over.

Example: ratelimit convert --from limitador limits.yaml > rules.yaml`
}

// errNotCarried fails a conversion that has listed what it did not carry over.
var errNotCarried = errors.New("not everything was carried over")

func (c *convertCmd) Run(con console) error {
	text, name, err := c.read()
	if err != nil {
		return err
	}
	result, err := convert.Convert(c.From, name, text, convert.Options{Domain: c.Domain})
	if invalid, is := errors.AsType[*config.Invalid](err); is {
		fmt.Fprintf(con.err, "%v\n%s\n", invalid, check.Count(len(invalid.Problems), "error"))
		return errReported
	}
	if err == nil {
		err = result.Write(con.out, c.From, name)
	}
	if err != nil {
		return err
	}
	for _, p := range result.NotCarried {
		fmt.Fprintf(con.err, "not carried over: %v\n", p)
	}
	fmt.Fprintf(con.err, "%s in %s, %d not carried over\n", check.Count(result.Limits, "limit"), check.Count(len(result.Domains), "domain"), len(result.NotCarried))
	if len(result.NotCarried) > 0 {
		return errNotCarried
	}
	return nil
}

func (c *convertCmd) read() (text []byte, name string, err error) {
	if c.File == "-" {
		text, err = io.ReadAll(os.Stdin)
		return text, "stdin", err
	}
	text, err = os.ReadFile(c.File)
	return text, c.File, err
}
