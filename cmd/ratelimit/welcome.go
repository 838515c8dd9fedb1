package main

import (
	"slices"
	"strings"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// firstCommand returns a hit command that shows the first limit of the rules at work,
// or what to do if there is none.
func firstCommand(rules *config.Rules, addr string) string {
	for _, domain := range rules.Domains {
		if e := firstLimited(domain.Descriptors, nil); e != nil {
			command := "ratelimit hit"
			if addr != defaultGRPCAddr {
				command += " --addr " + shellWord(addr)
			}
			return command + " --domain " + shellWord(domain.Name) + " " + shellWord(e.String()) + " -n 20"
		}
	}
	return "add a rate_limit to the rules: they limit nothing yet"
}

// firstLimited returns entries that lead to the first descriptor with a limit of
// a level or below it; nil if there is none.
func firstLimited(level []*config.Descriptor, above entries) entries {
	for _, d := range level {
		path := slices.Concat(above, entries{example(d)})
		for _, l := range d.Limits {
			if !l.Unlimited {
				return path
			}
		}
		if below := firstLimited(d.Descriptors, path); below != nil {
			return below
		}
	}
	return nil
}

// example returns an entry that the descriptor matches: any value will do for a
// key alone, and each * of a pattern may stand for nothing.
func example(d *config.Descriptor) descriptor.Entry {
	value := strings.ReplaceAll(d.Value, "*", "")
	if d.Value == "" || value == "" {
		value = "demo"
	}
	return descriptor.Entry{Key: d.Key, Value: value}
}
