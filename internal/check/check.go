// Package check owns the report on rules: what is wrong, odd or surprising about them,
// and which counters begin anew when they take the place of others. How rules are
// read and validated is for the packages of config.
package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// Reader reads rules as the service would.
type Reader struct {
	Grammar rulefile.Options
	Files   reload.FileOptions
	Stdin   io.Reader // what the path "-" stands for
}

// Read reads files and directories, or standard input, which must stand alone. For
// rules that can't be used the error is a *config.Invalid. skipped may be nil; see
// [reload.Files].
func (r *Reader) Read(paths []string, skipped func(path, why string)) (*config.Rules, error) {
	if !slices.Contains(paths, "-") {
		return (&reload.Files{Paths: paths, Options: r.Files, Skipped: skipped}).Load(rulefile.NewParser(r.Grammar).Parse)
	}
	if len(paths) > 1 {
		return nil, errors.New("- is standard input: give it alone")
	}
	data, err := io.ReadAll(io.LimitReader(r.Stdin, rulefile.DefaultMaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	return rulefile.Parse([]rulefile.Source{{Name: "stdin", Data: data}}, r.Grammar)
}

// Report is on rules at some paths.
type Report struct {
	Valid    bool      `json:"valid"`
	Domains  int       `json:"domains"`
	Rules    int       `json:"rules"`
	Errors   []Problem `json:"errors"`
	Warnings []Problem `json:"warnings"` // what loads all the same
	Hints    []Problem `json:"hints"`    // what may surprise
	Skipped  []Skipped `json:"skipped"`
	// Against is about the rules that these would replace; nil if that was not asked.
	Against *Against `json:"against,omitempty"`
}

// Problem is one thing wrong, odd or surprising.
type Problem struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Path   string `json:"path,omitempty"` // within the file, such as descriptors[0].key
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"`
}

// Skipped is a file that is not read because of its name.
type Skipped struct {
	File string `json:"file"`
	Why  string `json:"why"`
}

// Against says what becomes of the counters of older rules.
type Against struct {
	Errors  []Problem `json:"errors"` // of the older rules
	Anew    int       `json:"begin_anew"`
	Gone    int       `json:"gone"`
	New     int       `json:"new"`
	Kept    int       `json:"kept"`
	Changes []Change  `json:"changes"`
}

// Change is about one limit.
type Change struct {
	Domain string                   `json:"domain"`
	Old    *descriptor.CountedLimit `json:"old,omitempty"` // nil: the limit is new
	New    *descriptor.CountedLimit `json:"new,omitempty"` // nil: the limit is gone
	Why    string                   `json:"why,omitempty"` // it begins anew
	text   string
}

// New reports on the rules at paths and, unless it is empty, on what becomes of the
// counters of those at against. Its error is about neither.
func New(r *Reader, paths, against []string) (*Report, error) {
	report := &Report{Errors: []Problem{}, Warnings: []Problem{}, Hints: []Problem{}, Skipped: []Skipped{}}
	rules, err := r.Read(paths, func(path, why string) { report.Skipped = append(report.Skipped, Skipped{path, why}) })
	if report.Errors, err = problems(err); err != nil || rules == nil {
		return report, err
	}
	report.Valid, report.Domains, report.Rules = true, len(rules.Domains), rules.Len()
	report.Warnings = Problems(slices.Concat(rules.Warnings, descriptor.Hidden(rules), rulefile.Useless(rules)))
	report.Hints = Problems(rulefile.Hints(rules))
	if len(against) == 0 {
		return report, nil
	}
	report.Against = &Against{Changes: []Change{}}
	old, err := r.Read(against, nil)
	if report.Against.Errors, err = problems(err); err != nil || old == nil {
		return report, err
	}
	report.Against.count(descriptor.Replace(old, rules))
	return report, nil
}

func (a *Against) count(r descriptor.Replacement) {
	a.Kept = r.Kept
	for _, c := range r.Changes {
		switch {
		case c.Old == nil:
			a.New++
		case c.New == nil:
			a.Gone++
		default:
			a.Anew++
		}
		a.Changes = append(a.Changes, Change{c.Domain, c.Old, c.New, c.Why, c.String()})
	}
}

// problems returns what is wrong with rules, if err is about that.
func problems(err error) ([]Problem, error) {
	if bad, ok := errors.AsType[*config.Invalid](err); ok {
		return Problems(bad.Problems), nil
	}
	return []Problem{}, err
}

// Problems returns problems of rules as reports have them.
func Problems(of []config.Problem) []Problem {
	list := make([]Problem, len(of))
	for i, p := range of {
		list[i] = Problem{p.File, p.Line, p.Column, p.Path, p.What, p.Remedy}
	}
	return list
}

// String returns "file:line:column: path: what is wrong; what to write".
func (p Problem) String() string {
	return config.Problem{Pos: config.Pos{File: p.File, Line: p.Line, Column: p.Column}, Path: p.Path, What: p.What, Remedy: p.Remedy}.Error()
}

// WriteJSON writes the report as one object.
func (r *Report) WriteJSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}

// WriteText writes the report for people to read.
func (r *Report) WriteText(out io.Writer) {
	for _, s := range r.Skipped {
		fmt.Fprintf(out, "skipped: %s: %s\n", s.File, s.Why)
	}
	if writeErrors(out, r.Errors) {
		return
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(out, "warning: %s\n", w)
	}
	if n := len(r.Hints); n == 1 {
		fmt.Fprintf(out, "hint: %s\n", r.Hints[0])
	} else if n > 1 { // one is enough: the others are of the same kind
		fmt.Fprintf(out, "hint: %s (and %s like it)\n", r.Hints[0], Count(n-1, "limit"))
	}
	fmt.Fprintf(out, "valid: %s, %s\n", Count(r.Domains, "domain"), Count(r.Rules, "rule"))
	if r.Against == nil || writeErrors(out, r.Against.Errors) {
		return
	}
	for _, c := range r.Against.Changes {
		fmt.Fprintln(out, c.text)
	}
	fmt.Fprintf(out, "limits: %d begin anew, %d gone, %d new, %d keep their counters\n", r.Against.Anew, r.Against.Gone, r.Against.New, r.Against.Kept)
}

// writeErrors reports whether there are any.
func writeErrors(out io.Writer, errs []Problem) bool {
	for _, e := range errs {
		fmt.Fprintln(out, e)
	}
	if len(errs) > 0 {
		fmt.Fprintln(out, Count(len(errs), "error"))
	}
	return len(errs) > 0
}

// Count returns "1 rule" or "2 rules".
func Count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}
