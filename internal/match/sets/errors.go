package sets

import (
	"fmt"
	"strings"
)

// Error is a mistake in a rule.
type Error struct {
	Rule   int    // index of the rule
	Name   string // name of the rule
	Key    string // of the condition, or in count_by; empty: the mistake is not in a key
	Value  string // the bad value as written; empty: the mistake is in the key
	What   string // the mistake, such as `key "user" twice in match`
	Remedy string // what to write instead
	// InCountBy reports whether the mistake is in count_by rather than match.
	InCountBy bool
	// NoName reports that the mistake is a missing name.
	NoName bool
}

func (e *Error) Error() string {
	return fmt.Sprintf("limit %q: %s: %s", e.Name, e.What, e.Remedy)
}

// Errors are all mistakes in a list of rules, in the order of the rules.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}
