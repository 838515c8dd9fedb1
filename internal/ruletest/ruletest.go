// Package ruletest runs tests of rules: tables of requests with their times and expected
// answers. It sends the requests through package limiter, with counters in memory and a
// clock that the tables advance. Reading, matching and deciding are left to the packages
// that the service itself uses.
package ruletest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/distlimiter/ratelimit/internal/check"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
)

// Options say how rules are read.
type Options struct {
	Grammar rulefile.Options
	Default config.Default // the algorithm of limits for which none is written
	Files   reload.FileOptions
	// Rules are files and directories to test instead of the rules that the files of
	// tests name. If it is empty, the files of tests decide.
	Rules []string
	// Stdin is read for the file "-".
	Stdin io.Reader
}

// Report is on files of tests.
type Report struct {
	Passed bool   `json:"passed"`
	Files  []File `json:"files"`
}

// File is the report on a file of tests.
type File struct {
	File   string           `json:"file"`
	Errors []config.Problem `json:"errors"` // in the tests or in the rules: nothing ran
	Tests  []Test           `json:"tests"`
}

// Test is the report on a test.
type Test struct {
	Name     string    `json:"name"`
	Line     int       `json:"line"`
	Passed   bool      `json:"passed"`
	Requests int       `json:"requests"` // sent
	Failures []Failure `json:"failures"`
}

// Failure is an answer that is not as expected.
type Failure struct {
	File       string `json:"file"` // where it is expected
	Line       int    `json:"line"`
	Column     int    `json:"column"`
	Path       string `json:"path"`
	Test       string `json:"test"`
	Request    int    `json:"request"` // counted from 1 within its step
	At         string `json:"at"`      // since the start of the test
	Descriptor string `json:"descriptor,omitempty"`
	Field      string `json:"field,omitempty"` // empty: the request was not decided
	Want       string `json:"want"`
	Got        string `json:"got"`
	Rule       string `json:"rule,omitempty"` // the rule that decided, its limit, and its place
	Limit      string `json:"limit,omitempty"`
	RuleAt     string `json:"rule_at,omitempty"`
	of         int    // requests of the step
}

// Run runs the tests of files; "-" is standard input.
func Run(paths []string, o Options) *Report {
	report := &Report{Passed: true, Files: []File{}}
	for _, path := range paths {
		f := runFile(path, o)
		passed := len(f.Errors) == 0 && !slices.ContainsFunc(f.Tests, func(t Test) bool { return !t.Passed })
		report.Passed = report.Passed && passed
		report.Files = append(report.Files, f)
	}
	return report
}

func runFile(path string, o Options) File {
	out := File{File: path, Errors: []config.Problem{}, Tests: []Test{}}
	data, err := read(path, o.Stdin)
	if path == "-" {
		out.File = "stdin"
	}
	if err != nil {
		out.Errors = append(out.Errors, config.Problem{Pos: config.Pos{File: out.File}, What: "can't be read: " + err.Error(), Remedy: "write the path of a file of tests"})
		return out
	}
	file := &yamlfile.File{Name: out.File}
	documents := file.Parse(data)
	var suites []*suite
	for _, root := range documents {
		suites = append(suites, decode(root, filepath.Dir(path)))
	}
	if len(documents) == 0 && len(file.Problems) == 0 {
		file.Problems = append(file.Problems, config.Problem{Pos: config.Pos{File: out.File, Line: 1, Column: 1}, What: "the file is empty", Remedy: "write rules: and tests:"})
	}
	if invalid := file.Invalid(); invalid != nil {
		out.Errors = invalid.Problems
		return out
	}
	for i, s := range suites {
		tests, problems := s.run(documents[i], o)
		out.Errors = append(out.Errors, problems...)
		out.Tests = append(out.Tests, tests...)
	}
	return out
}

func read(path string, stdin io.Reader) ([]byte, error) {
	if path != "-" {
		return os.ReadFile(path)
	}
	return io.ReadAll(stdin)
}

// run runs the tests of a document, or returns the problems that prevent it.
func (s *suite) run(root yamlfile.Node, o Options) ([]Test, []config.Problem) {
	rules, err := s.rules(o)
	if invalid, is := errors.AsType[*config.Invalid](err); is {
		return nil, invalid.Problems
	}
	if err != nil {
		return nil, []config.Problem{root.Report(err.Error(), "")}
	}
	if rules == nil {
		return nil, []config.Problem{root.Report("no rules to test", "write rules: and the path of a file or directory, or the rules themselves")}
	}
	if problems := s.nameDomains(rules); problems != nil {
		return nil, problems
	}
	var tests []Test
	for i := range s.tests {
		result, err := s.tests[i].run(rules, o.Grammar.DropDenied)
		if err != nil {
			return nil, []config.Problem{root.Report(err.Error(), "")}
		}
		tests = append(tests, result)
	}
	return tests, nil
}

// rules returns the rules to test; nil for none.
func (s *suite) rules(o Options) (*config.Rules, error) {
	if len(o.Rules) > 0 {
		return (&check.Reader{Grammar: o.Grammar, Default: o.Default, Files: o.Files, Stdin: o.Stdin}).Read(o.Rules, nil)
	}
	if len(s.paths)+len(s.inline) == 0 {
		return nil, nil
	}
	files := reload.Files{Paths: s.paths, Options: o.Files}
	parse := func(sources []rulefile.Source) (*config.Rules, error) {
		return rulefile.Parse(append(sources, s.inline...), o.Grammar)
	}
	return files.Load(reload.Adjusted(parse, o.Default))
}

// nameDomains gives steps without a domain the only domain of the rules. If there are
// several, it returns a problem for each such step.
func (s *suite) nameDomains(rules *config.Rules) (problems []config.Problem) {
	for i := range s.tests {
		for j := range s.tests[i].steps {
			step := &s.tests[i].steps[j]
			switch {
			case step.domain != "":
			case len(rules.Domains) == 1:
				step.domain = rules.Domains[0].Name
			default:
				problems = append(problems, step.node.Report(fmt.Sprintf("which of the %d domains?", len(rules.Domains)), "write domain: for the step, the test or the file"))
			}
		}
	}
	return problems
}

// WriteText writes the report for people to read.
func (r *Report) WriteText(out io.Writer) {
	for _, f := range r.Files {
		for _, e := range f.Errors {
			fmt.Fprintln(out, e)
		}
		requests, failed := 0, 0
		for _, t := range f.Tests {
			requests += t.Requests
			if !t.Passed {
				failed++
			}
			for _, failure := range t.Failures {
				fmt.Fprintln(out, failure)
			}
		}
		switch {
		case len(f.Errors) > 0:
			fmt.Fprintf(out, "%s: %s\n", f.File, check.Count(len(f.Errors), "error"))
		case failed > 0:
			fmt.Fprintf(out, "%s: %d of %s failed\n", f.File, failed, check.Count(len(f.Tests), "test"))
		default:
			fmt.Fprintf(out, "%s: %s passed, %s\n", f.File, check.Count(len(f.Tests), "test"), check.Count(requests, "request"))
		}
	}
}
