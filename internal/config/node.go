package config

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/spell"
)

// Bounds on what one source may ask for.
const (
	maxDepth    = 1000    // nested lists and mappings; a level of descriptors is two
	maxExpanded = 1000000 // nodes reached through aliases
)

// reader walks the YAML nodes of one source and notes every problem with its
// place. It reads a node as gopkg.in/yaml.v2, the parser of
// envoyproxy/ratelimit, would: merged and explicit keys apply in the order they
// are written, booleans may be yes or off, and null is the zero value.
type reader struct {
	file     string
	lines    int // before those that nodes count
	path     []step
	problems []Problem
	warnings []Problem

	open     map[*yaml.Node]bool // anchored nodes being read: reading one again would not end
	depth    int
	aliases  int // aliases being followed
	expanded int // nodes reached through them
	bomb     bool
	maxText  int64 // bytes of text that may be reached through them
	copied   int64 // bytes of such text
}

// step is one step of the path from the document: a key, or an index when empty.
type step struct {
	key   string
	index int
}

func (r *reader) push(key string)     { r.path = append(r.path, step{key: key}) }
func (r *reader) pushIndex(index int) { r.path = append(r.path, step{index: index}) }
func (r *reader) pop()                { r.path = r.path[:len(r.path)-1] }

func (r *reader) pathString() string {
	var b strings.Builder
	for _, s := range r.path {
		switch {
		case s.key == "":
			fmt.Fprintf(&b, "[%d]", s.index)
			continue
		case b.Len() > 0:
			b.WriteByte('.')
		}
		b.WriteString(plainKey(s.key))
	}
	return b.String()
}

// plainKey quotes a key that would blur the path: only metadata and mistakes do.
func plainKey(key string) string {
	for _, c := range key {
		if c != '_' && c != '-' && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return strconv.Quote(abridge(key))
		}
	}
	return abridge(key)
}

func (r *reader) pos(n *yaml.Node) Pos {
	return Pos{File: r.file, Line: r.lines + n.Line, Column: n.Column}
}

func (r *reader) report(n *yaml.Node, what, remedy string) Problem {
	return Problem{Pos: r.pos(n), Path: r.pathString(), What: what, Remedy: remedy}
}

func (r *reader) problem(n *yaml.Node, what, remedy string) {
	r.problems = append(r.problems, r.report(n, what, remedy))
}

func (r *reader) warn(n *yaml.Node, what, remedy string) {
	r.warnings = append(r.warnings, r.report(n, what, remedy))
}

// problemIn and warnIn report on a field of what the path leads to.
func (r *reader) problemIn(key string, n *yaml.Node, what, remedy string) {
	r.push(key)
	r.problem(n, what, remedy)
	r.pop()
}

func (r *reader) warnIn(key string, n *yaml.Node, what, remedy string) {
	r.push(key)
	r.warn(n, what, remedy)
	r.pop()
}

// enter returns the list or mapping that n stands for, for leave to be called
// when it has been read. It refuses what would not end, or not soon.
func (r *reader) enter(n *yaml.Node) (target *yaml.Node, ok bool) {
	target = resolve(n)
	switch {
	case r.bomb:
		return nil, false
	case r.open[target]:
		r.problem(n, fmt.Sprintf("the anchor %q contains itself", target.Anchor), "write out what is meant")
		return nil, false
	case r.depth == maxDepth:
		r.problem(n, fmt.Sprintf("nested more than %d levels deep", maxDepth), "use fewer levels")
		return nil, false
	}
	r.depth++
	if n != target {
		r.aliases++
	}
	if target.Anchor != "" {
		if r.open == nil {
			r.open = map[*yaml.Node]bool{}
		}
		r.open[target] = true
	}
	if r.aliases > 0 {
		r.expanded += 1 + len(target.Content)
		if r.bomb = r.expanded > maxExpanded; r.bomb {
			r.problem(n, fmt.Sprintf("aliases expand to more than %d values", maxExpanded), "use fewer of them, or several files")
		}
	}
	return target, true
}

func (r *reader) leave(n *yaml.Node) {
	target := resolve(n)
	r.depth--
	if n != target {
		r.aliases--
	}
	if target.Anchor != "" {
		delete(r.open, target)
	}
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	n = resolve(n)
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

// keys are the keys that a mapping may have.
type keys struct {
	names []string // at most 32
	index map[string]int
	// lenient mappings also take, without effect, every key that
	// envoyproxy/ratelimit knows anywhere, as it does.
	lenient bool
}

func newKeys(lenient bool, names ...string) *keys {
	k := &keys{names: names, index: make(map[string]int, len(names)), lenient: lenient}
	for i, name := range names {
		k.index[name] = i
	}
	return k
}

// incumbentKeys are the keys that envoyproxy/ratelimit accepts in any place.
var incumbentKeys = newKeys(false, "domain", "key", "value", "descriptors", "rate_limit", "unit", "requests_per_unit",
	"unlimited", "shadow_mode", "quota_mode", "name", "replaces", "detailed_metric", "value_to_metric", "share_threshold", "metadata")

// mapping reads n as a mapping with these keys and calls set for each, with the
// path leading to the value. A merge key's mappings come in their place, so that
// set may see a key again, which then counts. It returns false, and has reported
// why, when n is no mapping.
func (r *reader) mapping(n *yaml.Node, k *keys, set func(key string, value *yaml.Node)) bool {
	target, ok := r.enter(n)
	if !ok {
		return false
	}
	defer r.leave(n)
	if target.Kind != yaml.MappingNode {
		r.problem(n, "want a mapping, found "+describe(target), fmt.Sprintf("write a mapping with keys such as %q", k.names[0]))
		return false
	}
	var seen uint32
	for i := 0; i+1 < len(target.Content); i += 2 {
		key, value := resolve(target.Content[i]), target.Content[i+1]
		if isMerge(key) {
			before := seen
			r.merge(value, k, func(name string, value *yaml.Node) {
				if before&(1<<k.index[name]) != 0 {
					r.warn(key, fmt.Sprintf("<< replaces the %s written before it", name), "write << first")
				}
				set(name, value)
			})
			continue
		}
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
			r.problem(key, "a key must be a string, found "+describe(key), "write one of "+strings.Join(k.names, ", "))
			continue
		}
		index, known := k.index[key.Value]
		if !known {
			r.unknownKey(key, k)
			continue
		}
		if seen&(1<<index) != 0 {
			r.problemIn(key.Value, key, fmt.Sprintf("duplicate key %q", key.Value), "remove one of them")
			continue
		}
		seen |= 1 << index
		r.push(key.Value)
		set(key.Value, value)
		r.pop()
	}
	return true
}

func (r *reader) unknownKey(key *yaml.Node, k *keys) {
	if _, ok := incumbentKeys.index[key.Value]; ok && k.lenient {
		r.warnIn(key.Value, key, fmt.Sprintf("%q has no effect here", key.Value), "write one of "+strings.Join(k.names, ", "))
		return
	}
	r.problemIn(key.Value, key, fmt.Sprintf("unknown key %q", abridge(key.Value)), spell.Suggest(key.Value, k.names))
}

func isMerge(key *yaml.Node) bool {
	return key.Kind == yaml.ScalarNode && key.Value == "<<" && key.Tag == "!!merge"
}

// merge reads the value of a merge key: a mapping, or a list of them of which
// the first has precedence.
func (r *reader) merge(n *yaml.Node, k *keys, set func(key string, value *yaml.Node)) {
	switch target := resolve(n); target.Kind {
	case yaml.MappingNode:
		r.mapping(n, k, set)
	case yaml.SequenceNode:
		if target, ok := r.enter(n); ok {
			defer r.leave(n)
			for _, element := range slices.Backward(target.Content) {
				r.mapping(element, k, set)
			}
		}
	default:
		r.problem(n, "<< wants a mapping, found "+describe(target), "write <<: *anchor")
	}
}

// list reads n as a list and calls each for its elements, with the path leading
// to the element. It returns false, and has reported why, when n is no list.
func (r *reader) list(n *yaml.Node, of string, each func(n *yaml.Node)) bool {
	target, ok := r.enter(n)
	if !ok {
		return false
	}
	defer r.leave(n)
	if target.Kind != yaml.SequenceNode {
		r.problem(n, fmt.Sprintf("want a list of %s, found %s", of, describe(target)), "begin each element with -")
		return false
	}
	for i, element := range target.Content {
		r.pushIndex(i)
		each(element)
		r.pop()
	}
	return true
}

// field is a value with the place it was written at; n is nil when it was not.
// One that could not be read is bad: its value is zero, and it is reported.
type field[T any] struct {
	v   T
	n   *yaml.Node
	bad bool
}

// given says whether there is a value to look at.
func (f field[T]) given() bool { return f.n != nil && !f.bad }

// missing says whether nothing was written, or null.
func (f field[T]) missing() bool { return f.n == nil }

// at returns where the field was written, or else the place of what it misses from.
func (f field[T]) at(n *yaml.Node) *yaml.Node {
	if f.missing() {
		return n
	}
	return f.n
}

// copies counts text that is reached through an alias: written out, the rules must
// not be larger than their source may be.
func (r *reader) copies(n, target *yaml.Node) {
	if r.aliases == 0 && n == target || r.bomb {
		return
	}
	r.copied += int64(len(target.Value))
	if r.bomb = r.copied > r.maxText; r.bomb {
		r.problem(n, fmt.Sprintf("aliases expand to more than %d bytes of text", r.maxText), "use fewer of them, or several files")
	}
}

// text reads a string. Other scalars count as they are written, so that a value
// may be 404.
func (r *reader) text(n *yaml.Node, f *field[string]) {
	target := resolve(n)
	r.copies(n, target)
	switch {
	case isNull(target):
		*f = field[string]{}
		return
	case target.Kind != yaml.ScalarNode:
		r.problem(n, "want a string, found "+describe(target), "write one value")
		*f = field[string]{n: n, bad: true}
		return
	}
	*f = field[string]{v: target.Value, n: n}
	if target.Tag == "!!binary" {
		raw, err := base64.StdEncoding.DecodeString(target.Value)
		if f.bad = err != nil || !utf8.Valid(raw); f.bad {
			r.problem(n, "the !!binary value is not text in base64", "write the text itself")
			raw = nil
		}
		f.v = string(raw)
	}
}

// number reads a whole number from 0 to 4294967295.
func (r *reader) number(n *yaml.Node, f *field[uint32]) {
	target := resolve(n)
	if isNull(target) {
		*f = field[uint32]{}
		return
	}
	*f = field[uint32]{n: n, bad: true}
	remedy := fmt.Sprintf("write a whole number from 0 to %d", uint32(math.MaxUint32))
	value, isNumber := number(target)
	switch {
	case !isNumber:
		r.problem(n, "want a number, found "+describe(target), remedy)
	case value < 0 || value > math.MaxUint32:
		r.problem(n, target.Value+" is out of range", remedy)
	case value != math.Trunc(value) || target.Tag != "!!int":
		r.problem(n, target.Value+" is not a whole number", remedy)
	default:
		*f = field[uint32]{v: uint32(value), n: n}
	}
}

// share reads a part of something: above 0 and up to 1.
func (r *reader) share(n *yaml.Node, f *field[float64]) {
	target := resolve(n)
	if isNull(target) {
		*f = field[float64]{}
		return
	}
	value, isNumber := number(target)
	*f = field[float64]{v: value, n: n}
	const remedy = "write a part of the limit above 0 and up to 1, such as 0.1"
	switch {
	case !isNumber:
		r.problem(n, "want a number, found "+describe(target), remedy)
	case !(value > 0 && value <= 1):
		r.problem(n, target.Value+" is out of range", remedy)
	default:
		return
	}
	f.bad = true
}

// number returns the value of a number, exact up to 2^53.
func number(n *yaml.Node) (value float64, ok bool) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" {
		return 0, false
	}
	if i, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 0, 64); err == nil {
		return float64(i), true
	}
	err := n.Decode(&value)
	return value, err == nil
}

// boolean reads a boolean as YAML 1.1 writes it.
func (r *reader) boolean(n *yaml.Node, f *field[bool]) {
	target := resolve(n)
	if isNull(target) {
		*f = field[bool]{}
		return
	}
	value, ok := boolean(target)
	if !ok {
		r.problem(n, "want true or false, found "+describe(target), "write true or false")
	}
	*f = field[bool]{v: value, n: n, bad: !ok}
}

func boolean(n *yaml.Node) (value, ok bool) {
	plain := n.Tag == "!!str" && n.Style == 0
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" && !plain {
		return false, false
	}
	switch n.Value {
	case "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y":
		return true, true
	case "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N":
		return false, true
	}
	return false, false
}

// metadata reads any mapping into JSON-like values and adds its keys to those
// that into already has: nil, bool, float64, string, []any and map[string]any.
func (r *reader) metadata(n *yaml.Node, into map[string]any) {
	target, ok := r.enter(n)
	if !ok {
		return
	}
	defer r.leave(n)
	if target.Kind != yaml.MappingNode {
		r.problem(n, "want a mapping, found "+describe(target), "write keys and values")
		return
	}
	seen := make(map[string]bool, len(target.Content)/2)
	for i := 0; i+1 < len(target.Content); i += 2 {
		key, value := resolve(target.Content[i]), target.Content[i+1]
		if isMerge(key) {
			r.mergeMetadata(value, into)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			r.problem(key, "a key must be a string, found "+describe(key), "write a name")
			continue
		}
		if seen[key.Value] {
			r.problemIn(key.Value, key, fmt.Sprintf("duplicate key %q", key.Value), "remove one of them")
			continue
		}
		seen[key.Value] = true
		r.copies(target.Content[i], key)
		r.push(key.Value)
		into[key.Value] = r.anything(value)
		r.pop()
	}
}

func (r *reader) mergeMetadata(n *yaml.Node, into map[string]any) {
	target, ok := r.enter(n)
	if !ok {
		return
	}
	if target.Kind != yaml.SequenceNode {
		r.leave(n)
		r.metadata(n, into)
		return
	}
	defer r.leave(n)
	for _, element := range slices.Backward(target.Content) {
		r.metadata(element, into)
	}
}

func (r *reader) anything(n *yaml.Node) any {
	switch target := resolve(n); target.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(target.Content)/2)
		r.metadata(n, m)
		return m
	case yaml.SequenceNode:
		list := make([]any, 0, len(target.Content))
		r.list(n, "values", func(n *yaml.Node) { list = append(list, r.anything(n)) })
		return list
	default:
		return r.scalar(n)
	}
}

func (r *reader) scalar(n *yaml.Node) any {
	target := resolve(n)
	if isNull(target) {
		return nil
	}
	if value, ok := boolean(target); ok {
		return value
	}
	if value, ok := number(target); ok {
		if !math.IsNaN(value) && !math.IsInf(value, 0) {
			return value
		}
		r.warn(n, target.Value+" is no number in JSON", "it is passed on as a string")
		return target.Value
	}
	var text field[string]
	r.text(n, &text)
	return text.v
}

// describe names a node in an error.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "the alias *" + n.Value
	case isNull(n):
		return "nothing"
	case n.Tag == "!!str":
		return "the string " + strconv.Quote(abridge(n.Value))
	}
	return abridge(n.Value)
}

// abridge keeps errors readable whatever they quote.
func abridge(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}
