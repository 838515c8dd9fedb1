package commandline

import (
	"strings"

	"github.com/alecthomas/kong"

	"github.com/distlimiter/ratelimit/internal/named"
)

// FieldNames returns the settings of the fields of options that messages name: the flags that
// are tagged with them, and their variables.
func FieldNames(command *kong.Node) named.Fields {
	type way struct{ flags, variables []string }
	ways := map[string]way{"MemoryLimit": {variables: []string{"GOMEMLIMIT"}}} // Go reads it by itself
	for _, flag := range command.Flags {
		for field := range strings.FieldsSeq(flag.Tag.Get("field")) {
			w := ways[field]
			ways[field] = way{append(w.flags, "--"+flag.Name), append(w.variables, flag.Envs...)}
		}
	}
	return func(field string) (flag, variable string) {
		w := ways[field]
		return listed(w.flags), listed(w.variables)
	}
}

// listed returns "a", "a and b" or "a, b and c".
func listed(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
