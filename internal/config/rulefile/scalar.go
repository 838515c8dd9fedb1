package rulefile

import (
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
)

// field is a value with the node that it was read from; n is nil if it was not written. A
// value that could not be read is bad: it is zero, and the problem is reported.
type field[T any] struct {
	v   T
	n   *yaml.Node
	bad bool
}

// present reports whether the field was written and could be read.
func (f field[T]) present() bool { return f.n != nil && !f.bad }

// missing reports whether the field was not written, or is null.
func (f field[T]) missing() bool { return f.n == nil }

// at returns the node of the field or, if it was not written, n.
func (f field[T]) at(n *yaml.Node) *yaml.Node {
	if f.missing() {
		return n
	}
	return f.n
}

// copies counts text that is reached through an alias. With all aliases written out, the
// rules must not be larger than a source may be.
func (r *reader) copies(n, target *yaml.Node) {
	if r.aliases == 0 && n == target || r.bomb {
		return
	}
	r.copied += int64(len(target.Value))
	if r.bomb = r.copied > r.maxText; r.bomb {
		r.problem(n, fmt.Sprintf("aliases expand to more than %d bytes of text", r.maxText), "use fewer of them, or several files")
	}
}

// text reads a string. It takes other scalars as they are written, so that a value may be
// 404.
func (r *reader) text(n *yaml.Node, f *field[string]) {
	target := yamlfile.Resolve(n)
	r.copies(n, target)
	switch {
	case yamlfile.IsNull(target):
		*f = field[string]{}
		return
	case target.Kind != yaml.ScalarNode:
		r.problem(n, "want a string, found "+yamlfile.Describe(target), "write one value")
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
	target := yamlfile.Resolve(n)
	if yamlfile.IsNull(target) {
		*f = field[uint32]{}
		return
	}
	*f = field[uint32]{n: n, bad: true}
	remedy := fmt.Sprintf("write a whole number from 0 to %d", uint32(math.MaxUint32))
	value, isNumber := number(target)
	switch {
	case !isNumber:
		r.problem(n, "want a number, found "+yamlfile.Describe(target), remedy)
	case value < 0 || value > math.MaxUint32:
		r.problem(n, target.Value+" is out of range", remedy)
	case value != math.Trunc(value) || target.Tag != "!!int":
		r.problem(n, target.Value+" is not a whole number", remedy)
	default:
		*f = field[uint32]{v: uint32(value), n: n}
		r.warnOctal(n, value)
	}
}

// warnOctal warns of a number that is octal because it begins with 0. It is no error, because
// envoyproxy/ratelimit loads it.
func (r *reader) warnOctal(n *yaml.Node, value float64) {
	if target := yamlfile.Resolve(n); yamlfile.Octal(target) {
		r.warn(n, fmt.Sprintf("%s is %.0f, because a number that begins with 0 is octal", target.Value, value), fmt.Sprintf("write %.0f, or the number without the 0", value))
	}
}

// share reads a fraction: above 0 and up to 1.
func (r *reader) share(n *yaml.Node, f *field[float64]) {
	target := yamlfile.Resolve(n)
	if yamlfile.IsNull(target) {
		*f = field[float64]{}
		return
	}
	value, isNumber := number(target)
	*f = field[float64]{v: value, n: n}
	const remedy = "write a part of the limit above 0 and up to 1, such as 0.1"
	switch {
	case !isNumber:
		r.problem(n, "want a number, found "+yamlfile.Describe(target), remedy)
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
	target := yamlfile.Resolve(n)
	if yamlfile.IsNull(target) {
		*f = field[bool]{}
		return
	}
	value, ok := boolean(target)
	if !ok {
		r.problem(n, "want true or false, found "+yamlfile.Describe(target), "write true or false")
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
