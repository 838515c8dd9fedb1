// Package commandline adds what people expect of a command line and kong does not do:
// help as a command, --version, suggestions for misspelt commands, shell completion,
// and empty variables that count as unset. It knows no command of its own.
package commandline

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/spell"
)

// AsCommand translates what people try first into commands: help, help check and
// --version. The program must have a command named version.
func AsCommand(args []string) []string {
	switch {
	case len(args) > 0 && args[0] == "help":
		return append(slices.Clone(args[1:]), "--help")
	case len(args) == 1 && args[0] == "--version":
		return []string{"version"}
	}
	return args
}

// UnsetEmpty treats an empty environment variable of a flag as unset, which is what
// compose files and manifests mean by it.
func UnsetEmpty(n *kong.Node) {
	for _, flag := range n.Flags {
		for _, env := range flag.Envs {
			if os.Getenv(env) == "" {
				os.Unsetenv(env)
			}
		}
	}
	for _, child := range n.Children {
		UnsetEmpty(child)
	}
}

// fromVariable matches kong's note that a value comes from the environment. The note
// contains the whole value, which may hold a secret.
var fromVariable = regexp.MustCompile(`\(from envar (\w+)="(?:[^"\\]|\\.)*"\)`)

// Misuse explains a command line that kong refuses: the command whose help to read, and
// what is wrong, with what to write instead.
func Misuse(app *kong.Application, args []string, err error) (command, what string) {
	if word := unknownCommand(app.Node, args); word != "" {
		return app.Name, fmt.Sprintf("unknown command %q: %s", word, spell.Suggest(word, names(app.Node)))
	}
	what = fromVariable.ReplaceAllString(err.Error(), "(from $$$1)")
	if wrong, is := errors.AsType[*kong.ParseError](err); is && wrong.Context != nil && wrong.Context.Selected() != nil {
		return wrong.Context.Selected().FullPath(), what
	}
	return app.Name, what
}

// unknownCommand returns the first word if it is in the place of a command and names
// none.
func unknownCommand(app *kong.Node, args []string) string {
	args = slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return arg == "--help" || arg == "-h" })
	if len(args) == 0 || strings.HasPrefix(args[0], "-") || child(app, args[0]) != nil {
		return ""
	}
	return args[0]
}

// child returns the command of that name; nil if there is none.
func child(n *kong.Node, name string) *kong.Node {
	for _, c := range n.Children {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// names returns the names of the commands that help shows.
func names(n *kong.Node) (list []string) {
	for _, c := range n.Children {
		if !c.Hidden {
			list = append(list, c.Name)
		}
	}
	return list
}
