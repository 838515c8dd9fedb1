// Package yamlfile reads YAML that is not rules, such as tests of rules and the files of
// other services. It records each mistake with file, line, column and path. It leaves
// rules to package rulefile, which reads them as envoyproxy/ratelimit does. What nodes are,
// and how errors name them, is here for both.
package yamlfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/spell"
)

// File is a file that is being read.
type File struct {
	Name     string
	Problems []config.Problem // found so far
	lines    []string
}

// Parse returns the documents of a file, without empty ones. A syntax error is a problem.
func (f *File) Parse(data []byte) (documents []Node) {
	f.lines = strings.Split(string(data), "\n")
	stream := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		switch err := stream.Decode(&n); {
		case errors.Is(err, io.EOF):
			return documents
		case err != nil:
			f.Problems = append(f.Problems, SyntaxError(f.Name, 0, data, err))
			return documents
		}
		if root := (Node{f, n.Content[0], ""}); !root.IsNull() {
			documents = append(documents, root)
		}
	}
}

// Invalid returns all problems of the file, in the order of its lines; nil if it has none.
func (f *File) Invalid() *config.Invalid {
	if len(f.Problems) == 0 {
		return nil
	}
	problems := slices.Clone(f.Problems)
	slices.SortStableFunc(problems, func(a, b config.Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &config.Invalid{Problems: slices.Compact(problems)} // each alias repeats those of its anchor
}

// Node is a value in a file, with the path that leads to it. The zero Node is no value.
type Node struct {
	file *File
	node *yaml.Node
	path string
}

// Present reports whether the node is a value, which may be null.
func (n Node) Present() bool { return n.node != nil }

// YAML returns the value as a node of gopkg.in/yaml.v3.
func (n Node) YAML() *yaml.Node { return n.node }

// Pos returns the position of the value.
func (n Node) Pos() config.Pos {
	return config.Pos{File: n.file.Name, Line: n.node.Line, Column: n.node.Column}
}

// Path returns the path from the document to the value, such as tests[0].name.
func (n Node) Path() string { return n.path }

// Report returns a problem with the value.
func (n Node) Report(what, remedy string) config.Problem {
	return config.Problem{Pos: n.Pos(), Path: n.path, What: what, Remedy: remedy}
}

// Problem records a problem with the value.
func (n Node) Problem(what, remedy string) {
	n.file.Problems = append(n.file.Problems, n.Report(what, remedy))
}

// resolved follows aliases.
func (n Node) resolved() *yaml.Node { return Resolve(n.node) }

// IsNull reports whether the value is null or empty.
func (n Node) IsNull() bool { return IsNull(n.node) }

// IsScalar reports whether the value is neither a list nor a mapping.
func (n Node) IsScalar() bool { return n.resolved().Kind == yaml.ScalarNode }

// IsList reports whether the value is a list.
func (n Node) IsList() bool { return n.resolved().Kind == yaml.SequenceNode }

// IsMapping reports whether the value is a mapping.
func (n Node) IsMapping() bool { return n.resolved().Kind == yaml.MappingNode }

// String describes the value for an error.
func (n Node) String() string { return Describe(n.node) }

// Abridge shortens a quoted text, so that errors stay readable.
func Abridge(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

// Field is a key of a mapping with its value.
type Field struct {
	Name  string
	Key   Node
	Value Node
}

// Fields returns the fields of a mapping in their order. Those of a merge key (<<) come
// after the mapping's own, which win. A repeated key is a problem, and so is a value that
// is no mapping. Null and the zero Node have no fields.
func (n Node) Fields() []Field {
	if !n.Present() {
		return nil
	}
	return n.fields(0)
}

func (n Node) fields(depth int) (fields []Field) {
	if n.IsNull() {
		return nil
	}
	if !n.IsMapping() {
		n.Problem("want a mapping, found "+n.String(), "write keys with values")
		return nil
	}
	var merged []Field
	for i, content := 0, n.resolved().Content; i+1 < len(content); i += 2 {
		key, value := Node{n.file, content[i], n.path}, Node{n.file, content[i+1], n.path}
		if IsMerge(key.node) {
			merged = append(merged, value.merged(depth)...)
			continue
		}
		if !key.IsScalar() {
			key.Problem("a key must be a string, found "+key.String(), "write a name")
			continue
		}
		name := key.resolved().Value
		path := n.path + "." + name
		if n.path == "" {
			path = name
		}
		key.path, value.path = path, path
		if slices.ContainsFunc(fields, func(f Field) bool { return f.Name == name }) {
			key.Problem(fmt.Sprintf("duplicate key %q", Abridge(name)), "remove one of them")
			continue
		}
		fields = append(fields, Field{name, key, value})
	}
	for _, m := range merged {
		if !slices.ContainsFunc(fields, func(f Field) bool { return f.Name == m.Name }) {
			fields = append(fields, m)
		}
	}
	return fields
}

// merged returns the fields that a merge key brings.
func (n Node) merged(depth int) (fields []Field) {
	const deepest = 20 // an anchor may contain itself
	switch {
	case depth == deepest:
		n.Problem("<< leads to more than 20 others", "write out the keys")
	case n.IsList():
		for _, e := range n.List() {
			fields = append(fields, e.merged(depth+1)...)
		}
	default:
		fields = n.fields(depth + 1)
	}
	return fields
}

// Mapping returns the values of a mapping by key. An unknown key is a problem.
func (n Node) Mapping(known ...string) map[string]Node {
	values := map[string]Node{}
	for _, f := range n.Fields() {
		if !slices.Contains(known, f.Name) {
			f.Key.Problem(fmt.Sprintf("unknown key %q", Abridge(f.Name)), spell.Suggest(f.Name, known))
			continue
		}
		values[f.Name] = f.Value
	}
	return values
}

// List returns the elements of a list. Null and the zero Node have none. Any other value is
// a problem.
func (n Node) List() (elements []Node) {
	if !n.Present() || n.IsNull() {
		return nil
	}
	if !n.IsList() {
		n.Problem("want a list, found "+n.String(), "begin each element with -")
		return nil
	}
	for i, c := range n.resolved().Content {
		elements = append(elements, Node{n.file, c, fmt.Sprintf("%s[%d]", n.path, i)})
	}
	return elements
}

// Text returns a scalar as it is written. Null and the zero Node are the empty text. Any
// other value is a problem, and ok is false.
func (n Node) Text() (text string, ok bool) {
	switch {
	case !n.Present() || n.IsNull():
		return "", true
	case !n.IsScalar():
		n.Problem("want a string, found "+n.String(), "write one value")
		return "", false
	}
	return n.resolved().Value, true
}

// Octal reports whether a whole number is octal because it begins with 0, as in YAML 1.1.
// Its author hardly meant that.
func Octal(n *yaml.Node) bool {
	digits := strings.TrimLeft(n.Value, "+-")
	return n.Tag == "!!int" && len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '7'
}

// Int returns a whole number within bounds. Any other value is a problem, and ok is false.
// So is a number that begins with 0, which YAML takes for octal.
func (n Node) Int(least, most int64) (value int64, ok bool) {
	remedy := fmt.Sprintf("write a whole number from %d to %d", least, most)
	if most == math.MaxInt64 {
		remedy = fmt.Sprintf("write a whole number of at least %d", least)
	}
	if !n.IsScalar() || n.resolved().Tag != "!!int" || n.resolved().Decode(&value) != nil {
		n.Problem("want a whole number, found "+n.String(), remedy)
		return 0, false
	}
	if Octal(n.resolved()) {
		n.Problem(fmt.Sprintf("%s is %d, because a number that begins with 0 is octal", n.resolved().Value, value), "write the number without the 0")
		return 0, false
	}
	if value < least || value > most {
		n.Problem(fmt.Sprintf("%d is out of range", value), remedy)
		return 0, false
	}
	return value, true
}

// Bool returns true or false. Any other value is a problem, and ok is false.
func (n Node) Bool() (value, ok bool) {
	if !n.IsScalar() || n.resolved().Tag != "!!bool" || n.resolved().Decode(&value) != nil {
		n.Problem("want true or false, found "+n.String(), "write true or false")
		return false, false
	}
	return value, true
}

// Duration returns a duration of 0 or more, such as 1m30s, 250ms or 7d. A day has 24
// hours. Any other value is a problem, and ok is false.
func (n Node) Duration() (d time.Duration, ok bool) {
	const remedy = "write a time such as 90s, 1h30m, 250ms or 7d"
	text, ok := n.Text()
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(text)
	if days, found := strings.CutSuffix(text, "d"); found {
		var count uint64
		if count, err = strconv.ParseUint(days, 10, 32); err == nil && count > math.MaxInt64/uint64(24*time.Hour) {
			err = strconv.ErrRange
		}
		d = time.Duration(count) * 24 * time.Hour
	}
	switch {
	case err != nil:
		n.Problem(fmt.Sprintf("%q is not a time", Abridge(text)), remedy)
	case d < 0:
		n.Problem(fmt.Sprintf("%v is before now", d), remedy)
	default:
		return d, true
	}
	return 0, false
}

// Values returns the values of a mapping by key. Any key is allowed.
func (n Node) Values() map[string]Node {
	values := map[string]Node{}
	for _, f := range n.Fields() {
		values[f.Name] = f.Value
	}
	return values
}

// Nested returns the documents of a text that is a file itself, as in a ConfigMap. If the
// text is written as a block (|), their positions are those in this file.
func (n Node) Nested() (documents []Node) {
	text, ok := n.Text()
	if !ok || text == "" {
		return nil
	}
	inner := &File{Name: n.file.Name}
	lines, columns := n.node.Line-1, n.node.Column-1
	if n.node.Style&yaml.LiteralStyle != 0 {
		lines, columns = n.node.Line, n.file.indent(n.node.Line+1)
	}
	documents = inner.Parse([]byte(text))
	for _, p := range inner.Problems {
		p.Line, p.Column = p.Line+lines, p.Column+columns
		n.file.Problems = append(n.file.Problems, p)
	}
	for i := range documents {
		documents[i].file = n.file
		documents[i].path = n.path + "." + documents[i].path
		documents[i].path = strings.TrimSuffix(documents[i].path, ".")
		shift(documents[i].node, lines, columns)
	}
	return documents
}

// shift moves a node and all nodes below it. The targets of aliases are moved as well.
func shift(n *yaml.Node, lines, columns int) {
	n.Line += lines
	n.Column += columns
	for _, c := range n.Content {
		shift(c, lines, columns)
	}
}

// indent returns the indentation of a line, counted from 1, or of the first line after it
// that is not empty.
func (f *File) indent(line int) int {
	for i, text := range f.lines {
		if trimmed := strings.TrimLeft(text, " "); i+1 >= line && strings.TrimSpace(trimmed) != "" {
			return len(text) - len(trimmed)
		}
	}
	return 0
}
