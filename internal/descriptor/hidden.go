package descriptor

import (
	"fmt"
	"strings"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
)

// Hidden returns a warning for each descriptor that can never apply, because an earlier
// one of its level, with a *, matches all that it matches.
func Hidden(rules *config.Rules) (warnings []config.Problem) {
	task := background.New()
	defer task.Close()
	for _, d := range rules.Domains {
		warnings = hiddenIn(d.Descriptors, warnings, task)
	}
	return warnings
}

// hiddenIn adds the warnings of a level and of those below it.
func hiddenIn(level []*config.Descriptor, warnings []config.Problem, task *background.Task) []config.Problem {
	var patterns, open []*config.Descriptor
	for _, c := range level {
		warnings = hiddenIn(c.Descriptors, warnings, task)
		task.Step()
		switch {
		case strings.Contains(c.Key+c.Value, "*"):
			patterns = append(patterns, c)
		case c.Value == "":
			open = append(open, c)
		}
	}
	if len(patterns) == 0 {
		return warnings
	}
	alone := make([]*config.Descriptor, len(patterns)) // without what is below them
	of := map[*config.Descriptor]*config.Descriptor{}
	for i, c := range patterns {
		alone[i] = &config.Descriptor{Key: c.Key, Value: c.Value}
		of[alone[i]] = c
		task.Step()
	}
	d := Compile(&config.Rules{Domains: []*config.Domain{{Descriptors: alone}}}).Domain("")
	// Only a * matches a *, so the first pattern that matches the text of another one
	// matches whatever the other does.
	first := func(key, value string) *config.Descriptor {
		at := d.landing(d.firstWildcard(d.top, d.splits(d.top, key, value), key, value))
		if at.slot == none {
			return nil
		}
		return of[d.nodes[at.slot].config]
	}
	for _, c := range patterns {
		if by := first(c.Key, c.Value); by != nil && by != c {
			warnings = append(warnings, hiddenBy(c, by, "write it before that one"))
		}
		task.Step()
	}
	for _, c := range open { // they take any value that no pattern does
		if by := first(c.Key, "*"); by != nil {
			warnings = append(warnings, hiddenBy(c, by, "leave one of them out"))
		}
		task.Step()
	}
	return warnings
}

func hiddenBy(c, by *config.Descriptor, remedy string) config.Problem {
	return config.Problem{
		Pos:    c.Pos,
		What:   fmt.Sprintf("%s can never apply: %s matches all that it matches, and goes before it", entryText(Entry{Key: c.Key, Value: c.Value}), *newPlace(by)),
		Remedy: remedy,
	}
}
