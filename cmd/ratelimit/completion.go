package main

import (
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/commandline"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help says what to do with the script.
func (completionCmd) Help() string {
	return `Add one of these lines to your shell's start-up file:

source <(ratelimit completion bash)

source <(ratelimit completion zsh)

ratelimit completion fish | source`
}

func (c *completionCmd) Run(con console, command *kong.Context) error {
	script, err := commandline.Script(c.Shell, command.Model.Name)
	fmt.Fprint(con.out, script)
	return err
}

// completeCmd is the command that the completion scripts run.
type completeCmd struct {
	Words []string `arg:"" optional:"" sep:"none" help:"Words after the program's name."`
}

func (c *completeCmd) Run(con console, command *kong.Context) error {
	for _, w := range commandline.Complete(command.Model, c.Words) {
		if _, err := fmt.Fprintf(con.out, "%s\t%s\n", w.Word, w.Help); err != nil {
			return err
		}
	}
	return nil
}
