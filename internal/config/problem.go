package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a source of rules. Line and Column count from 1; 0 means unknown.
type Pos struct {
	File         string
	Line, Column int
}

// String returns file:line:column, without what is unknown.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one thing wrong with the rules.
type Problem struct {
	Pos
	// Path leads from the document to the offending field, such as
	// "descriptors[0].rate_limit.unit". Empty for the document as a whole.
	Path string
	// What is wrong, and what to write instead.
	What, Remedy string
}

// Error returns "file:line:column: path: what is wrong; what to write".
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

// invalid returns the problems as an error; nil when there are none.
func invalid(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return &Invalid{Problems: problems}
}

// allOf returns the problems of all errors as one, nil when there are none.
func allOf(errs ...error) error {
	var problems []Problem
	for _, err := range errs {
		if bad, ok := errors.AsType[*Invalid](err); ok {
			problems = append(problems, bad.Problems...)
		} else if partial, ok := errors.AsType[*Partial](err); ok {
			problems = append(problems, partial.Problems...)
		} else if err != nil {
			problems = append(problems, Problem{What: err.Error()})
		}
	}
	return invalid(problems)
}

// inOrder sorts the problems of one source by place and drops repetitions: an
// alias shows the problems of its anchor again.
func inOrder(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(problems, func(a, b Problem) bool {
		return a.Pos == b.Pos && a.What == b.What && (a.Line != 0 || a.Path == b.Path)
	})
}
