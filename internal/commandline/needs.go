package commandline

import (
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// WithoutEffect returns a sentence for each setting of the selected command that switches
// others on and is not given, although some of those are. The tag "needs" of a flag names
// the setting that switches it on: a flag, perhaps with its value (flag=value). Of several,
// separated by |, one is enough. A setting that is off on purpose needs no sentence.
func WithoutEffect(ctx *kong.Context) (warnings []string) {
	flags := map[string]*kong.Flag{}
	for _, flag := range ctx.Selected().Flags {
		flags[flag.Name] = flag
	}
	var order []string // of needs
	idle := map[string][]string{}
	for _, flag := range ctx.Selected().Flags {
		needs := flag.Tag.Get("needs")
		from := source(ctx, flag)
		// Manifests often list all variables with their defaults.
		if needs == "" || from == "" || from != "--"+flag.Name && os.Getenv(from) == flag.Default {
			continue
		}
		if idle[needs] == nil {
			order = append(order, needs)
		}
		idle[needs] = append(idle[needs], from)
	}
	for _, needs := range order {
		var ways []string
		given := false
		for need := range strings.SplitSeq(needs, "|") {
			name, value, _ := strings.Cut(need, "=")
			given = given || source(ctx, flags[name]) != ""
			ways = append(ways, "--"+strings.Join(append([]string{name}, flags[name].Envs...), " or "))
			if value != "" {
				ways[len(ways)-1] += " (" + value + ")"
			}
		}
		verb := "has"
		if len(idle[needs]) > 1 {
			verb = "have"
		}
		if !given {
			warnings = append(warnings, fmt.Sprintf("%s %s no effect without %s", listed(idle[needs]), verb, strings.Join(ways, ", or ")))
		}
	}
	return warnings
}

// source returns what gives a flag its value: the flag itself or its variable; empty if
// neither does.
func source(ctx *kong.Context, flag *kong.Flag) string {
	for _, step := range ctx.Path {
		if step.Flag == flag {
			return "--" + flag.Name
		}
	}
	for _, name := range flag.Envs {
		if os.Getenv(name) != "" {
			return name
		}
	}
	return ""
}
