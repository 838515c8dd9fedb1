package convert

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/distlimiter/ratelimit/internal/match/sets"
)

// A condition of Limitador is an expression of CEL on the entries of a request. This
// parser reads what rules can express: comparisons of an entry with texts, joined by &&.

// expr is an expression.
type expr struct {
	op   string // "text", "list", "true", "false", "entry", "entries", "!", "&&", "||", "==", "!=", "in", "has", or a method
	text string // of a text, or the key of an entry
	args []*expr
}

// inexpressible is the error of an expression that rules can't express.
type inexpressible struct{ what, remedy string }

func (e *inexpressible) Error() string { return e.what }

func cannot(remedy, format string, args ...any) error {
	return &inexpressible{fmt.Sprintf(format, args...), remedy}
}

const compareOnly = "write comparisons of an entry with texts, joined by &&, or limits of their own"

// parseExpr reads an expression.
func parseExpr(text string) (*expr, error) {
	tokens, err := tokenize(text)
	if err != nil {
		return nil, err
	}
	p := &exprParser{tokens: tokens}
	e, err := p.or()
	if err == nil && p.peek() != "" {
		err = cannot(compareOnly, "%q is not understood there", p.peek())
	}
	return e, err
}

// tokenize splits an expression. A text is unescaped and keeps its first quote.
func tokenize(text string) (tokens []string, err error) {
	for text != "" {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case unicode.IsSpace(r):
			text = text[size:]
			continue
		case r == '"' || r == '\'':
			end := 1
			var b strings.Builder
			for ; end < len(text) && text[end] != byte(r); end++ {
				if text[end] == '\\' && end+1 < len(text) {
					if end++; !strings.ContainsRune(`\'"`, rune(text[end])) {
						return nil, cannot("write the character itself", `the escape \%c`, text[end])
					}
				}
				b.WriteByte(text[end])
			}
			if end >= len(text) {
				return nil, cannot("end it", "a text without an end")
			}
			tokens = append(tokens, `"`+b.String())
			text = text[end+1:]
			continue
		case isWord(r):
			size = strings.IndexFunc(text, func(r rune) bool { return !isWord(r) })
			if size < 0 {
				size = len(text)
			}
		default:
			for _, op := range []string{"&&", "||", "==", "!=", "<=", ">="} {
				if strings.HasPrefix(text, op) {
					size = 2
				}
			}
		}
		tokens = append(tokens, text[:size])
		text = text[size:]
	}
	return tokens, nil
}

func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

type exprParser struct{ tokens []string }

// peek returns the next token; empty at the end.
func (p *exprParser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

// take consumes the next token if it is this one, and reports whether it did.
func (p *exprParser) take(token string) bool {
	if p.peek() != token {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *exprParser) next() string {
	token := p.peek()
	if token != "" {
		p.tokens = p.tokens[1:]
	}
	return token
}

func (p *exprParser) or() (*expr, error)  { return p.joined("||", p.and) }
func (p *exprParser) and() (*expr, error) { return p.joined("&&", p.unary) }

func (p *exprParser) joined(op string, part func() (*expr, error)) (*expr, error) {
	e, err := part()
	for err == nil && p.take(op) {
		var right *expr
		right, err = part()
		e = &expr{op: op, args: []*expr{e, right}}
	}
	return e, err
}

func (p *exprParser) unary() (*expr, error) {
	if p.take("!") {
		e, err := p.unary()
		return &expr{op: "!", args: []*expr{e}}, err
	}
	left, err := p.primary()
	if err != nil {
		return nil, err
	}
	switch op := p.peek(); op {
	case "==", "!=", "in":
		p.next()
		right, err := p.primary()
		return &expr{op: op, args: []*expr{left, right}}, err
	case "<", ">", "<=", ">=":
		return nil, cannot(compareOnly, "%s compares numbers", op)
	}
	return left, nil
}

func (p *exprParser) primary() (*expr, error) {
	switch token := p.next(); {
	case token == "":
		return nil, cannot("write the rest", "the expression ends too soon")
	case token[0] == '"':
		return &expr{op: "text", text: token[1:]}, nil
	case token == "true" || token == "false":
		return &expr{op: token}, nil
	case token == "(":
		e, err := p.or()
		if err == nil && !p.take(")") {
			err = cannot("close it", "a parenthesis without its end")
		}
		return e, err
	case token == "[":
		list := &expr{op: "list"}
		for !p.take("]") {
			e, err := p.primary()
			if err != nil {
				return nil, err
			}
			list.args = append(list.args, e)
			if !p.take(",") && p.peek() != "]" {
				return nil, cannot("close it", "a list without its end")
			}
		}
		return list, nil
	case token == "has" && p.take("("):
		e, err := p.primary()
		if err == nil && (e.op != "entry" || !p.take(")")) {
			err = cannot(compareOnly, "has() of something other than an entry")
		}
		return &expr{op: "has", args: []*expr{e}}, err
	case token == "limit" && p.peek() == ".":
		return nil, cannot("remove it", "the limit's own name or id")
	case token == "descriptors":
		return p.descriptor()
	case unicode.IsDigit(rune(token[0])):
		return nil, cannot("quote it: the value of an entry is a text", "the number %s", token)
	case isWord(rune(token[0])) && p.peek() != "(":
		// In versions before 2 it is an entry of the request. Its key may have dots.
		key := []string{token}
		for len(p.tokens) > 1 && p.tokens[0] == "." && isWord([]rune(p.tokens[1])[0]) && !(len(p.tokens) > 2 && p.tokens[2] == "(") {
			p.next()
			key = append(key, p.next())
		}
		return p.methods(&expr{op: "entry", text: strings.Join(key, ".")})
	default:
		return nil, cannot(compareOnly, "%q is not understood", strings.TrimPrefix(token, `"`))
	}
}

// descriptor reads the part after the word descriptors: [0], and an entry of it.
func (p *exprParser) descriptor() (*expr, error) {
	const remedy = "send what limits depend on in one descriptor, and write descriptors[0]"
	if !p.take("[") {
		return nil, cannot(remedy, "descriptors without an index")
	}
	if index := p.next(); index != "0" {
		return nil, cannot(remedy, "descriptors[%s]: a limit is held against each descriptor on its own", strings.TrimPrefix(index, `"`))
	}
	if !p.take("]") {
		return nil, cannot(remedy, "an index without its end")
	}
	switch {
	case p.take("."):
		return p.methods(&expr{op: "entry", text: p.next()})
	case p.take("["):
		key := p.next()
		if !strings.HasPrefix(key, `"`) || !p.take("]") {
			return nil, cannot("write descriptors[0]['key']", "an entry whose key is not a text")
		}
		return p.methods(&expr{op: "entry", text: key[1:]})
	}
	return &expr{op: "entries"}, nil
}

// methods reads calls of methods of an entry.
func (p *exprParser) methods(e *expr) (*expr, error) {
	if !p.take(".") {
		return e, nil
	}
	name := p.next()
	if !slices.Contains([]string{"startsWith", "endsWith", "contains"}, name) || !p.take("(") {
		return nil, cannot("use ==, !=, in, startsWith, endsWith or contains", "%s", name)
	}
	arg, err := p.primary()
	if err == nil && !p.take(")") {
		err = cannot("close it", "a parenthesis without its end")
	}
	return &expr{op: name, args: []*expr{e, arg}}, err
}

// conditions returns an expression, or its opposite, as conditions that must all hold.
// The error is errNever if they never can, or an *inexpressible.
func (e *expr) conditions(opposite bool) (list []sets.Condition, err error) {
	switch e.op {
	case "!":
		return e.args[0].conditions(!opposite)
	case "true", "false":
		if (e.op == "true") == opposite {
			return nil, errNever
		}
		return nil, nil
	case "&&", "||":
		left, err := e.args[0].conditions(opposite)
		if err != nil {
			return nil, err
		}
		right, err := e.args[1].conditions(opposite)
		if err != nil {
			return nil, err
		}
		if (e.op == "&&") != opposite {
			return append(left, right...), nil
		}
		if len(left) == 1 && len(right) == 1 && isAny(left[0]) && isAny(right[0]) && left[0].Key == right[0].Key {
			left[0].Any.Values = append(left[0].Any.Values, right[0].Any.Values...)
			return left, nil
		}
		return nil, cannot("write a limit of its own for each", "%s of conditions on different entries", e.op)
	case "has", "in":
		if e.op == "in" && e.args[1].op != "entries" {
			break
		}
		key := e.args[0].text
		if e.op == "in" && e.args[0].op != "text" {
			return nil, cannot("write a text", "the key of an entry that is not a text")
		}
		return []sets.Condition{{Key: key, Absent: opposite}}, nil
	}
	return e.comparison(opposite)
}

// isAny reports whether a condition requires one of some values and nothing else.
func isAny(c sets.Condition) bool {
	return !c.Absent && len(c.Any.Values) > 0 && len(c.Not.Values) == 0
}

// errNever is the error of a condition that is never met.
var errNever = errors.New("it is never met")

// comparison returns the condition that an entry has, or does not have, one of some
// values.
func (e *expr) comparison(opposite bool) ([]sets.Condition, error) {
	if len(e.args) != 2 {
		return nil, cannot(compareOnly, "it compares nothing")
	}
	entry, with := e.args[0], e.args[1]
	if (e.op == "==" || e.op == "!=") && entry.op == "text" {
		entry, with = with, entry
	}
	values := []*expr{with}
	if e.op == "in" {
		if with.op != "list" {
			return nil, cannot("write a list of texts", "in something other than a list")
		}
		values = with.args
	}
	if entry.op != "entry" {
		return nil, cannot(compareOnly, "it compares something other than an entry")
	}
	var set sets.Set
	for _, v := range values {
		switch {
		case v.op == "entry" && e.op != "in":
			return nil, cannot(fmt.Sprintf("quote a text: '%s'", v.text), "it compares two entries")
		case v.op != "text":
			return nil, cannot(compareOnly, "it compares with something other than a text")
		case strings.Contains(v.text, "*"):
			return nil, cannot("send a value without *", "the value %q has a *, which stands for any characters in rules", v.text)
		}
		before, after := "", ""
		if e.op == "endsWith" || e.op == "contains" {
			before = "*"
		}
		if e.op == "startsWith" || e.op == "contains" {
			after = "*"
		}
		set.Values = append(set.Values, before+v.text+after)
	}
	if set.Values == nil && !opposite {
		return nil, errNever
	}
	if (e.op == "!=") != opposite {
		return []sets.Condition{{Key: entry.text, Not: set}}, nil
	}
	return []sets.Condition{{Key: entry.text, Any: set}}, nil
}

// merge returns conditions, one for each key, that hold when all of a list do.
func merge(list []sets.Condition) (merged []sets.Condition, err error) {
	for _, c := range list {
		at := slices.IndexFunc(merged, func(m sets.Condition) bool { return m.Key == c.Key })
		if at < 0 {
			merged = append(merged, c)
			continue
		}
		m := &merged[at]
		if m.Absent != c.Absent {
			return nil, errNever
		}
		for _, v := range c.Not.Values {
			if !slices.Contains(m.Not.Values, v) {
				m.Not.Values = append(m.Not.Values, v)
			}
		}
		if c.Any.Values == nil {
			continue
		}
		if m.Any.Values == nil {
			m.Any.Values = c.Any.Values
			continue
		}
		if slices.ContainsFunc(slices.Concat(m.Any.Values, c.Any.Values), func(v string) bool { return strings.Contains(v, "*") }) {
			return nil, cannot("write one condition", "several patterns that %q must match", c.Key)
		}
		m.Any.Values = slices.DeleteFunc(m.Any.Values, func(v string) bool { return !slices.Contains(c.Any.Values, v) })
		if len(m.Any.Values) == 0 {
			return nil, errNever
		}
	}
	return merged, nil
}
