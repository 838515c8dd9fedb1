// Package check owns the report on rules: their errors, warnings and hints, and which
// counters begin anew when they replace other rules. The packages of config read and
// validate rules.
package check

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// Reader reads rules as the service would.
type Reader struct {
	Grammar rulefile.Options
	Default config.Default // the algorithm of limits for which none is written
	Files   reload.FileOptions
	Stdin   io.Reader // read for the path "-"
}

// Read reads files and directories, or standard input, which must stand alone. For
// rules that can't be used the error is a *config.Invalid. skipped may be nil; see
// [reload.Files].
func (r *Reader) Read(paths []string, skipped func(path, why string)) (*config.Rules, error) {
	load := reload.Adjusted(rulefile.NewParser(r.Grammar).Parse, r.Default)
	if !slices.Contains(paths, "-") {
		return (&reload.Files{Paths: paths, Options: r.Files, Skipped: skipped}).Load(load)
	}
	if len(paths) > 1 {
		return nil, errors.New("- is standard input: give it alone")
	}
	data, err := io.ReadAll(io.LimitReader(r.Stdin, rulefile.DefaultMaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	return load([]rulefile.Source{{Name: "stdin", Data: data}})
}

// Report is on rules at some paths.
type Report struct {
	Valid    bool             `json:"valid"`
	Domains  int              `json:"domains"`
	Rules    int              `json:"rules"`
	Errors   []config.Problem `json:"errors"`
	Warnings []config.Problem `json:"warnings"` // about rules that load all the same
	Hints    []config.Problem `json:"hints"`    // about limits that may surprise
	Skipped  []Skipped        `json:"skipped"`
	// Adjustments are those that change rules, in the order in which they apply.
	Adjustments []Adjustment `json:"adjustments"`
	// Against compares with the rules that these would replace; nil if there are none
	// to compare with.
	Against *Against `json:"against,omitempty"`
}

// Adjustment is a default or an adjustment with the rules that it changes.
type Adjustment struct {
	config.AdjustedBy
	Rules []Adjusted `json:"rules"` // never empty
}

// Adjusted is a rule that differs from its written form. Written and Limits are its
// limits in words, before and after all adjustments.
type Adjusted struct {
	Domain  string `json:"domain"`
	Path    string `json:"path"`
	Written string `json:"written"`
	Limits  string `json:"limits"`
}

// Skipped is a file that is not read because of its name.
type Skipped struct {
	File string `json:"file"`
	Why  string `json:"why"`
}

// Against reports what happens to the counters of older rules.
type Against struct {
	Errors []config.Problem `json:"errors"` // of the older rules
	// DefaultBefore and DefaultAfter are the algorithms of limits for which none is written.
	DefaultBefore string `json:"default_algorithm_before"`
	DefaultAfter  string `json:"default_algorithm_after"`
	Anew          int    `json:"begin_anew"`
	Gone          int    `json:"gone"`
	New           int    `json:"new"`
	Kept          int    `json:"kept"`
	// Partial reports that too many rules overlap for all to be compared.
	Partial bool     `json:"partial,omitempty"`
	Changes []Change `json:"changes"`
}

// Change is about one limit.
type Change struct {
	Domain string                   `json:"domain"`
	Old    *descriptor.CountedLimit `json:"old,omitempty"` // nil: the limit is new
	New    *descriptor.CountedLimit `json:"new,omitempty"` // nil: the limit is gone
	Why    string                   `json:"why,omitempty"` // it begins anew
	// Example is a descriptor to which this happens. Partly reports that something else
	// becomes of the limit for other descriptors.
	Example string `json:"example,omitempty"`
	Partly  bool   `json:"partly,omitempty"`
	text    string
}

// Older are the rules to compare with.
type Older struct {
	Paths   []string       // empty: none
	Default config.Default // the algorithm of limits for which none is written
}

// New reports on the rules at paths and on the counters of older rules. Problems of either
// are in the report; the error is about anything else.
func New(r *Reader, paths []string, older Older) (*Report, error) {
	report := &Report{Warnings: []config.Problem{}, Hints: []config.Problem{}, Skipped: []Skipped{}, Adjustments: []Adjustment{}}
	rules, err := r.Read(paths, func(path, why string) { report.Skipped = append(report.Skipped, Skipped{path, why}) })
	if report.Errors, err = problems(err); err != nil || rules == nil {
		return report, err
	}
	report.Valid, report.Domains, report.Rules = true, len(rules.Domains), rules.Len()
	report.Warnings = append(report.Warnings, slices.Concat(rules.Warnings, descriptor.Hidden(rules), rulefile.SetWarnings(rules))...)
	report.Hints = append(report.Hints, rulefile.Hints(rules)...)
	report.Adjustments = append(report.Adjustments, adjustments(rules)...)
	if len(older.Paths) == 0 {
		return report, nil
	}
	report.Against = &Against{Changes: []Change{}, DefaultBefore: older.Default.Algorithm.String(), DefaultAfter: r.Default.Algorithm.String()}
	before := *r
	before.Default = older.Default
	old, err := before.Read(older.Paths, nil)
	if report.Against.Errors, err = problems(err); err != nil || old == nil {
		return report, err
	}
	report.Against.count(descriptor.Replace(old, rules))
	return report, nil
}

// adjustments returns the adjustments of the rules. A default comes before written
// adjustments.
func adjustments(rules *config.Rules) (all []Adjustment) {
	at := map[*config.Adjustment]int{}
	var order []*config.Adjustment
	for r := range rules.All() {
		d := r.Descriptor()
		for _, by := range d.AdjustedBy() {
			i, known := at[by]
			if !known {
				i = len(all)
				at[by] = i
				order = append(order, by)
				all = append(all, Adjustment{AdjustedBy: config.DescribeAdjustments([]*config.Adjustment{by})[0]})
			}
			all[i].Rules = append(all[i].Rules, Adjusted{r.Domain.Name, r.Name(), d.AsWritten().LimitsText(), d.LimitsText()})
		}
	}
	slices.SortFunc(order, func(a, b *config.Adjustment) int {
		return cmp.Compare(slices.Index(rules.Adjust, a), slices.Index(rules.Adjust, b))
	})
	sorted := make([]Adjustment, len(all))
	for i, by := range order {
		sorted[i] = all[at[by]]
	}
	return sorted
}

func (a *Against) count(r descriptor.Replacement) {
	a.Kept, a.Partial = r.Kept, r.Partial
	for _, c := range r.Changes {
		switch {
		case c.Old == nil:
			a.New++
		case c.New == nil:
			a.Gone++
		default:
			a.Anew++
		}
		a.Changes = append(a.Changes, Change{c.Domain, c.Old, c.New, c.Why, c.Example.String(), c.Partly, c.String()})
	}
}

// problems returns the problems of rules that err holds; any other error is returned.
func problems(err error) ([]config.Problem, error) {
	if bad, ok := errors.AsType[*config.Invalid](err); ok {
		return bad.Problems, nil
	}
	return []config.Problem{}, err
}

var fixedWindow = algo.FixedWindow.String() // the default algorithm that needs no word

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
	for _, a := range r.Adjustments {
		first := a.Rules[0]
		fmt.Fprintf(out, "adjusted: %s by %s; the first is %s in domain %s: %s (written %s)\n",
			Count(len(a.Rules), "rule"), a.AdjustedBy, config.Quote(first.Path), config.Quote(first.Domain), first.Limits, first.Written)
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
	if a := r.Against; a.DefaultBefore != fixedWindow || a.DefaultAfter != fixedWindow {
		fmt.Fprintf(out, "default algorithm: %s before, %s after\n", a.DefaultBefore, a.DefaultAfter)
	}
	if r.Against.Partial {
		fmt.Fprintln(out, "warning: too many patterns overlap for all to be compared")
	}
	for _, c := range r.Against.Changes {
		fmt.Fprintln(out, c.text)
	}
	fmt.Fprintf(out, "limits: %d begin anew, %d gone, %d new, %d keep their counters\n", r.Against.Anew, r.Against.Gone, r.Against.New, r.Against.Kept)
}

// writeErrors writes the errors and reports whether there are any.
func writeErrors(out io.Writer, errs []config.Problem) bool {
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
