package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/adminclient"
	"github.com/distlimiter/ratelimit/internal/check"
	"github.com/distlimiter/ratelimit/internal/secretfile"
)

// adminClient locates the admin address of a running service.
type adminClient struct {
	Addr      string        `env:"ADMIN_ADDR" default:"${adminAddr}" help:"The service's admin address: host:port, or a URL."`
	TokenFile string        `placeholder:"FILE" env:"ADMIN_TOKEN_FILE" help:"File with the bearer token of that address."`
	TLS       clientTLS     `embed:"" envprefix:"ADMIN_"`
	Timeout   time.Duration `default:"30s" env:"ADMIN_TIMEOUT" help:"How long to wait for each answer."`
}

// Validate refuses a timeout in which nothing can answer.
func (c *adminClient) Validate() error { return positive("--timeout", c.Timeout) }

// positive refuses a time of 0 or less for a flag.
func positive(flag string, d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%s: %v: use a time above 0", flag, d)
	}
	return nil
}

// client returns a client for the service.
func (c *adminClient) client() (*adminclient.Client, error) {
	client := &adminclient.Client{Addr: c.Addr, Timeout: c.Timeout}
	if c.TokenFile != "" {
		token, err := secretfile.Read(c.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		client.Token = strings.TrimSpace(string(token))
	}
	if !c.TLS.on() && !strings.HasPrefix(c.Addr, "https://") {
		return client, nil
	}
	secure, err := c.TLS.config()
	client.TLS = secure
	return client, err
}

// explain adds to an error of the client the flag that mends it.
func (c *adminClient) explain(err error) error {
	if errors.Is(err, adminclient.ErrAddr) {
		return fmt.Errorf("--addr %s: %w", c.Addr, err)
	}
	if away, ok := errors.AsType[*adminclient.UnreachableError](err); ok {
		return fmt.Errorf("cannot reach %s: is `ratelimit serve` running, and is this its --admin-addr? (%w)", away.Host, away.Err)
	}
	if p, ok := errors.AsType[*adminclient.Problem](err); ok && p.Status == http.StatusUnauthorized {
		return fmt.Errorf("%w: give its file by --token-file", err)
	}
	return err
}

// report prints all problems of a file if err holds them, and then returns errReported. It
// returns any other error as it is.
func report(out io.Writer, file string, err error) error {
	p, ok := errors.AsType[*adminclient.Problem](err)
	if !ok || len(p.Problems) == 0 {
		return err
	}
	for _, wrong := range p.Problems {
		wrong.File = file
		fmt.Fprintln(out, wrong)
	}
	fmt.Fprintln(out, check.Count(len(p.Problems), "error"))
	return errReported
}

type rulesCmd struct {
	List   rulesListCmd   `cmd:"" help:"List the rules in force, with their keys and sources."`
	Apply  rulesApplyCmd  `cmd:"" help:"Create or update rules while the service runs."`
	Delete rulesDeleteCmd `cmd:"" help:"Delete rules that were created while the service ran."`
}

type rulesListCmd struct {
	adminClient
	Domain string `short:"d" placeholder:"NAME" help:"Only rules of this domain."`
	Name   string `placeholder:"NAME" help:"Only rules with a limit of this name."`
	Source string `enum:"file,xds,admin," default:"" placeholder:"file|xds|admin" help:"Only rules of this source."`
	Output string `short:"o" enum:"table,yaml,json" default:"table" help:"table, yaml (rule files, which apply reads) or json (as the API returns it)."`
}

func (c *rulesListCmd) Run(con console) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	list, err := client.Rules(c.Domain, c.Name, c.Source)
	switch {
	case err != nil:
		return c.explain(err)
	case c.Output == "json":
		return list.WriteJSON(con.out)
	case c.Output == "yaml":
		return list.WriteYAML(con.out)
	}
	return list.WriteTable(con.out)
}

type rulesApplyCmd struct {
	Files []string `arg:"" name:"file" help:"Rule files in YAML or JSON; - for standard input. A file may have several domains, separated by lines of ---. If any file has an error, nothing is applied."`
	adminClient
	DryRun  bool `help:"Show what would change, and change nothing."`
	Replace bool `help:"Replace all admin rules of the domain with those of the file."`
}

// Help describes the effect of applied rules.
func (rulesApplyCmd) Help() string {
	return `Rules with the same domain, keys and values are updated; other admin rules stay. Admin rules override those of files and of xDS, survive restarts and reach every replica.

Example: ratelimit rules apply slower.yaml --dry-run`
}

func (c *rulesApplyCmd) Run(con console) error {
	files := make([]adminclient.File, len(c.Files))
	for i, name := range c.Files {
		text, err := readRules(name)
		if err != nil {
			return err
		}
		files[i] = adminclient.File{Name: name, Text: text}
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	var failed error
	file, err := client.ApplyAll(files, c.DryRun, c.Replace, func(file string, r *adminclient.WriteResult) {
		for _, w := range r.Warnings {
			w.File = file
			fmt.Fprintf(con.err, "warning: %v\n", w)
		}
		failed = cmp.Or(sayWritten(con, r), failed)
	})
	return cmp.Or(report(con.err, file, c.explain(err)), failed)
}

func readRules(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(file)
}

// sayWritten lists the changes. Rules that are stored but not in force are a failure.
func sayWritten(con console, r *adminclient.WriteResult) error {
	r.WriteChanges(con.out)
	if r.DryRun || r.InForce {
		return nil
	}
	fmt.Fprintln(con.err, "The rules are stored, but not in force, because loading failed:")
	for _, p := range r.Problems {
		fmt.Fprintln(con.err, p)
	}
	return errReported
}

type rulesDeleteCmd struct {
	Keys []string `arg:"" name:"key" help:"Keys or paths of rules, as list shows them."`
	adminClient
	Domain string `short:"d" placeholder:"NAME" help:"Domain of the rules, needed if several domains have a rule with the path."`
	DryRun bool   `help:"Show what would change, and change nothing."`
}

func (c *rulesDeleteCmd) Run(con console) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	for _, name := range c.Keys {
		key, err := client.KeyOf(c.Domain, name)
		if err != nil {
			return c.explain(err)
		}
		result, err := client.Delete(key, c.DryRun)
		if err != nil {
			return c.explain(err)
		}
		if err := sayWritten(con, &result); err != nil {
			return err
		}
	}
	return nil
}

type statsCmd struct {
	Key string `arg:"" optional:"" help:"Key or path of a rule, as rules list shows it: print its hottest counters too."`
	adminClient
	Domain string `short:"d" placeholder:"NAME" help:"Only rules of this domain."`
	Output string `short:"o" enum:"table,json" default:"table" help:"table, or json as the API returns it."`
}

func (c *statsCmd) Run(con console) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return c.explain(client.Stats(con.out, c.Domain, c.Key, c.Output == "json"))
}
