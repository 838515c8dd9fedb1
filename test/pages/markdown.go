// Package pages runs what the README and docs/ show. Each command of a page runs in a copy of
// the tree, in a shell that the commands of the page share, and must print what the page
// shows; what can't run here is listed with the reason. Rule files and tests of rules on the
// pages must be valid.
//
// The tests run in namespaces of their own, so that the ports on the pages are free. That
// needs root.
package pages

import (
	"regexp"
	"strings"
)

// block is a fenced block of a Markdown page.
type block struct {
	line     int // of its first line
	language string
	text     string
}

var fence = regexp.MustCompile("(?m)^( *)```(\\w*)\n((?s:(?:.*?\n)?)) *```$")

// blocks returns the fenced blocks of a page, in order.
func blocks(page string) []block {
	var all []block
	for _, at := range fence.FindAllStringSubmatchIndex(page, -1) {
		indent, text := page[at[2]:at[3]], page[at[6]:at[7]]
		all = append(all, block{
			line:     strings.Count(page[:at[6]], "\n") + 1,
			language: page[at[4]:at[5]],
			text:     strings.TrimPrefix(strings.ReplaceAll("\n"+text, "\n"+indent, "\n"), "\n"),
		})
	}
	return all
}

// command is a command that a page shows.
type command struct {
	line  int
	text  string
	shown string // what it prints, by the page
	exact bool   // the page shows what it prints
}

// commands returns the commands of a block: in a console block those behind a $, with what
// they print; in a block of shell all lines. A line that ends with a backslash goes on.
func commands(b block) []command {
	var all []command
	continued := false
	for line := range strings.Lines(b.text) {
		prompted := b.language == "console" && strings.HasPrefix(line, "$ ")
		switch {
		case continued:
			all[len(all)-1].text += line
			continued = strings.HasSuffix(line, "\\\n")
		case prompted || b.language != "console":
			all = append(all, command{line: b.line, text: strings.TrimPrefix(line, "$ "), exact: prompted})
			continued = strings.HasSuffix(line, "\\\n")
		case len(all) > 0:
			all[len(all)-1].shown += line
		}
		b.line++
	}
	kept := all[:0]
	for _, c := range all {
		if text := strings.TrimSpace(c.text); text != "" && !strings.HasPrefix(text, "#") {
			kept = append(kept, c)
		}
	}
	return kept
}

// shows reports whether output is what a page shows. In the page an ellipsis stands for any
// text of a line, and one on a line of its own for any lines.
func shows(shown, output string) bool {
	var pattern strings.Builder
	pattern.WriteString("^")
	for line := range strings.Lines(shown) {
		line = strings.TrimRight(line, " \n")
		if line == "…" {
			pattern.WriteString(`(?s:.*)`)
			continue
		}
		parts := strings.Split(line, "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		pattern.WriteString(strings.Join(parts, ".*") + `[ \r]*(?:\n|$)`)
	}
	pattern.WriteString(`\s*$`)
	return regexp.MustCompile(pattern.String()).MatchString(output)
}
