package sets

import (
	"net/netip"
	"strings"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/match/cidr"
	"github.com/distlimiter/ratelimit/internal/match/glob"
)

// member is a compiled member of a Set: an exact text, a prefix of addresses or a
// pattern.
type member struct {
	literal               // exact or addresses, if pattern is nil
	pattern *glob.Pattern // nil: not a pattern
}

func textMember(value string) member {
	if !strings.Contains(value, "*") {
		return member{literal: literal{kind: exact, text: value}}
	}
	p := glob.Parse(value)
	return member{pattern: &p}
}

func addressMember(p netip.Prefix) member {
	return member{literal: literal{kind: addresses, prefix: p}}
}

// appendLiterals appends the literals that every value of the member has.
func (m *member) appendLiterals(dst []literal) []literal {
	p := m.pattern
	if p == nil {
		return append(dst, m.literal)
	}
	n := len(dst)
	if p.Prefix != "" {
		dst = append(dst, literal{kind: start, text: p.Prefix})
	}
	if p.Suffix != "" {
		dst = append(dst, literal{kind: end, text: p.Suffix})
	}
	if middle := p.Longest(); middle != "" {
		dst = append(dst, literal{kind: middlePart, text: middle})
	}
	if len(dst) == n {
		dst = append(dst, literal{kind: every})
	}
	return dst
}

// isJust reports whether every value with this literal of the member is in the member.
func (m *member) isJust(l literal) bool { return m.pattern == nil || m.pattern.Size == len(l.text) }

// all reports whether every value is in the member.
func (m *member) all() bool { return m.pattern != nil && m.pattern.Size == 0 }

func (m *member) has(value string) bool {
	switch {
	case m.pattern != nil:
		return m.pattern.Match(value)
	case m.kind == exact:
		return m.text == value
	}
	p, ok := cidr.Of(value)
	return ok && cidr.Covers(m.prefix, p)
}

// set is a compiled Set.
type set struct {
	members []member
	many    *finder // finds indices of members; nil if they are few
}

// few is the number of members up to which all are tried one by one.
const few = 8

func newSet(members []member, task *background.Task) *set {
	s := &set{members: members}
	if len(members) <= few {
		return s
	}
	t := tally{}
	for i := range members {
		t.add("", &members[i])
		task.Step()
	}
	b := finderBuilder{}
	for i := range members {
		l, _ := t.rarest("", &members[i])
		o := newOwner(i)
		if members[i].isJust(l) {
			o |= isMet
		}
		b[l] = append(b[l], o)
		task.Step()
	}
	s.many = b.build(task)
	return s
}

func (s *set) has(value string) bool {
	if s.many != nil {
		return !s.many.each(value, func(o owner) bool { return o&isMet == 0 && !s.members[o.index()].has(value) })
	}
	for i := range s.members {
		if s.members[i].has(value) {
			return true
		}
	}
	return false
}

// all reports whether every value is in one of the members.
func (s *set) all() bool {
	for i := range s.members {
		if s.members[i].all() {
			return true
		}
	}
	return false
}

// anchor is a literal of a value of a key, under which a rule may be filed.
type anchor struct {
	key string
	literal
}

// tally counts the rules that could be filed under each anchor.
type tally map[anchor]int

func (t tally) add(key string, m *member) {
	var some [3]literal
	for _, l := range m.appendLiterals(some[:0]) {
		t[anchor{key, l}]++
	}
}

// rarest returns the literal of a member that the fewest rules share, and their number.
func (t tally) rarest(key string, m *member) (rarest literal, shared int) {
	var some [3]literal
	for i, l := range m.appendLiterals(some[:0]) {
		if n := t[anchor{key, l}]; i == 0 || n < shared {
			rarest, shared = l, n
		}
	}
	return rarest, shared
}
