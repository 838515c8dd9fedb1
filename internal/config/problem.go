package config

import (
	"fmt"
	"strings"
)

// Pos is a place in a source of rules. Line and Column count from 1; 0 means unknown.
type Pos struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// String returns file:line:column, without the parts that are unknown.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one thing wrong with the rules, in reports and answers too.
type Problem struct {
	Pos
	// Path leads from the document to the offending field, such as
	// "descriptors[0].rate_limit.unit". Empty for the document as a whole.
	Path string `json:"path,omitempty"`
	// What describes the mistake. Remedy says what to write instead.
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"`
}

// Error returns "file:line:column: path: mistake; remedy".
func (p Problem) Error() string {
	var b strings.Builder
	for _, where := range []string{p.Pos.String(), p.Path} {
		if where != "" {
			b.WriteString(where + ": ")
		}
	}
	b.WriteString(p.What)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// Invalid is the error of rules that can't be used: every problem of every
// source, in the order of the sources and of their lines. Never empty.
type Invalid struct {
	Problems []Problem
}

// Error returns one line per problem.
func (e *Invalid) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}
