package main

import (
	"testing"

	"github.com/alecthomas/kong"
)

// TestEveryFlagHasAVariable holds the promise of the help: each flag but --help
// has one, and no two flags of a command share one.
func TestEveryFlagHasAVariable(t *testing.T) {
	parser, err := newParser(&commands{})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		command, ok := node.(*kong.Node)
		if !ok {
			return next(nil)
		}
		flags := map[string]string{}
		for _, flag := range command.Flags {
			if flag == parser.Model.HelpFlag {
				continue
			}
			seen++
			if len(flag.Envs) != 1 {
				t.Errorf("%s --%s has variables %v", command.Name, flag.Name, flag.Envs)
				continue
			}
			if other := flags[flag.Envs[0]]; other != "" {
				t.Errorf("%s --%s and --%s share %s", command.Name, flag.Name, other, flag.Envs[0])
			}
			flags[flag.Envs[0]] = flag.Name
			if flag.Help == "" {
				t.Errorf("%s --%s has no help", command.Name, flag.Name)
			}
		}
		return next(nil)
	})
	if err != nil || seen < 30 {
		t.Errorf("visited %d flags, error %v", seen, err)
	}
	for name := range halves {
		found := false
		for _, command := range parser.Model.Children {
			for _, flag := range command.Flags {
				found = found || flag.Name == name
			}
		}
		if !found {
			t.Errorf("halves are given for --%s, which no command has", name)
		}
	}
}
