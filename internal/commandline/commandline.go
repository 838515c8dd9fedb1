// Package commandline owns what people expect of any command line and kong does not
// do: help as a command, --version, a word for one that is written wrong, shell
// completion, and empty variables that count as none. It knows no command of its own.
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

// AsCommand takes what people try first for what it stands for: help, help check and
// --version, for which there must be a command version.
func AsCommand(args []string) []string {
	switch {
	case len(args) > 0 && args[0] == "help":
		return append(slices.Clone(args[1:]), "--help")
	case len(args) == 1 && args[0] == "--version":
		return []string{"version"}
	}
	return args
}

// UnsetEmpty makes an empty environment variable of a flag the same as none, which is
// what compose files and manifests mean by it.
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

// fromVariable is how kong says that a value comes from the environment: with all
// of it, which may hold a secret.
var fromVariable = regexp.MustCompile(`\(from envar (\w+)="(?:[^"\\]|\\.)*"\)`)

// Misuse returns whose help to read, and what is wrong with a command line that kong
// does not take, with what to write instead.
func Misuse(app *kong.Application, args []string, err error) (command, what string) {
	if word := unknownCommand(app.Node, args); word != "" {
		return app.Name, fmt.Sprintf("unknown command %q: %s", word, spell.Suggest(word, names(app.Node)))
	}
	what = fromVariable.ReplaceAllString(err.Error(), "(from $$$1)")
	var wrong *kong.ParseError
	if errors.As(err, &wrong) && wrong.Context != nil && wrong.Context.Selected() != nil {
		return wrong.Context.Selected().FullPath(), what
	}
	return app.Name, what
}

// unknownCommand returns the first word, if it is to be a command and is none.
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

// names returns the commands that are shown.
func names(n *kong.Node) (list []string) {
	for _, c := range n.Children {
		if !c.Hidden {
			list = append(list, c.Name)
		}
	}
	return list
}
