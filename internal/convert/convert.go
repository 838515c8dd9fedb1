// Package convert converts files of other services to rules: Limitador's limits and
// Gloo's rate limit resources. It lists everything that can't be carried over, with its
// place and what to do instead, and drops nothing silently. Package config owns the
// meaning of rules, package rulefile their written form.
package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// Result is the result of converting a file.
type Result struct {
	Domains []*config.Domain
	Limits  int // of the file, that the domains have
	// NotCarried lists what the file asks for and the rules do not do, in the order of
	// the file's lines.
	NotCarried []config.Problem
}

// Options of a conversion.
type Options struct {
	// Domain is the domain of all rules, whatever the file says. If it is empty, the
	// file decides.
	Domain string
}

// Convert reads a file of a service: limitador or gloo. The error is a *config.Invalid if
// it is not such a file.
func Convert(from, name string, data []byte, o Options) (*Result, error) {
	file := &yamlfile.File{Name: name}
	c := &converter{opts: o, result: &Result{}, names: map[*config.Domain]map[string]bool{}}
	read := c.limitador
	if from == "gloo" {
		read = c.gloo
	}
	documents := file.Parse(data)
	for _, d := range documents {
		read(d)
	}
	if len(documents) == 0 && len(file.Problems) == 0 {
		file.Problems = append(file.Problems, config.Problem{Pos: config.Pos{File: name, Line: 1, Column: 1}, What: "the file is empty", Remedy: "give one with limits of " + from})
	}
	if invalid := file.Invalid(); invalid != nil {
		return nil, invalid
	}
	r := c.result
	r.Domains = slices.DeleteFunc(r.Domains, func(d *config.Domain) bool { return len(d.Limits)+len(d.Descriptors) == 0 })
	slices.SortStableFunc(r.NotCarried, func(a, b config.Problem) int { return a.Line - b.Line })
	return r, nil
}

// converter builds the rules.
type converter struct {
	opts   Options
	result *Result
	names  map[*config.Domain]map[string]bool // of rules on sets of entries
}

// notCarried adds to the list of what the rules do not do.
func (c *converter) notCarried(n yamlfile.Node, what, remedy string) {
	c.result.NotCarried = append(c.result.NotCarried, n.Report(what, remedy))
}

// domain returns the domain of that name, and adds it if it is missing.
func (c *converter) domain(name string) *config.Domain {
	if c.opts.Domain != "" {
		name = c.opts.Domain
	}
	for _, d := range c.result.Domains {
		if d.Name == name {
			return d
		}
	}
	d := &config.Domain{Name: name}
	c.result.Domains = append(c.result.Domains, d)
	c.names[d] = map[string]bool{}
	return d
}

// nameIn returns a name for a rule on sets of entries that no other one in the domain has.
func (c *converter) nameIn(d *config.Domain, name string) string {
	const most = 200 // bytes; rules allow 256
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '_'
		}
		return r
	}, name)
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "")
	}
	unique := name
	for i := 2; c.names[d][unique]; i++ {
		unique = name + "-" + strconv.Itoa(i)
	}
	c.names[d][unique] = true
	return unique
}

// limit returns a fixed window of hits. If there is none, it lists the problem and returns
// nil.
func (c *converter) limit(n yamlfile.Node, hits uint32, window time.Duration, denied algo.DeniedHits) *config.Limit {
	compiled, err := algo.New(algo.Params{Limit: hits, Window: window, DeniedHits: denied})
	if err != nil {
		c.notCarried(n, fmt.Sprintf("%v: it is left out", err), "write a limit of your own")
		return nil
	}
	unit, units := config.Measure(window)
	return &config.Limit{Algo: compiled, RequestsPerUnit: hits, Unit: unit, UnitMultiplier: units}
}

// number returns the number of a limit. A number too large for rules never refuses in
// practice: it is listed and cut.
func (c *converter) number(n yamlfile.Node) (hits uint32, ok bool) {
	v, ok := n.Int(0, math.MaxInt64)
	if v > math.MaxUint32 {
		c.notCarried(n, fmt.Sprintf("a limit of %d", v), fmt.Sprintf("%d is the largest, and was written instead", uint32(math.MaxUint32)))
		v = math.MaxUint32
	}
	return uint32(v), ok
}

// literal reports whether a value stands only for itself in rules, and lists it if not.
func (c *converter) literal(n yamlfile.Node, value string) bool {
	if !strings.Contains(value, "*") {
		return true
	}
	c.notCarried(n, fmt.Sprintf("the value %q has a *, which stands for any characters in rules", yamlfile.Abridge(value)), "send a value without *, and write that")
	return false
}

// present adds the condition that an entry is present, unless its key already has a
// condition.
func present(match []sets.Condition, key string) []sets.Condition {
	if slices.ContainsFunc(match, func(c sets.Condition) bool { return c.Key == key }) {
		return match
	}
	return append(match, sets.Condition{Key: key})
}

// Write writes the domains as a rule file, which begins with a list of what was not
// carried over. It fails if the rules would not load.
func (r *Result) Write(out io.Writer, from, name string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Made of %s, a file of %s.\n", name, from)
	if len(r.NotCarried) > 0 {
		fmt.Fprintf(&b, "# Not carried over:\n")
	}
	for _, p := range r.NotCarried {
		fmt.Fprintf(&b, "#   %s\n", strings.Join(strings.FieldsFunc(p.Error(), unicode.IsControl), " "))
	}
	for i, d := range r.Domains {
		if i > 0 {
			b.WriteString("---\n")
		}
		encoder := yaml.NewEncoder(&b)
		encoder.SetIndent(2)
		if err := errors.Join(encoder.Encode(rulefile.Domain{Domain: d}), encoder.Close()); err != nil {
			return err
		}
	}
	if len(r.Domains) > 0 {
		if _, err := rulefile.Parse([]rulefile.Source{{Name: "the rules", Data: b.Bytes()}}, rulefile.Options{}); err != nil {
			return fmt.Errorf("the rules would not load: %w", err)
		}
	}
	_, err := out.Write(b.Bytes())
	return err
}
