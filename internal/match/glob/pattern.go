// Package glob owns patterns: texts with a * anywhere. It matches a text against a
// pattern, and finds the literals of many patterns in a text.
package glob

import "strings"

// Pattern is a text in which each * stands for zero or more characters.
type Pattern struct {
	Prefix, Suffix string   // before the first * and after the last
	Middles        []string // between them, in order, none empty
	Size           int      // the fewest bytes that match
}

// Parse returns the pattern of a text with at least one *.
func Parse(text string) Pattern {
	parts := strings.Split(text, "*")
	last := len(parts) - 1
	p := Pattern{Prefix: parts[0], Suffix: parts[last], Size: len(text) - last}
	for _, part := range parts[1:last] {
		if part != "" {
			p.Middles = append(p.Middles, part)
		}
	}
	return p
}

// Match reports whether p matches all of s, in time linear in s for each part of p. It
// takes each part at the first position where it fits. A later position never lets more
// of the rest match, so it need not backtrack.
func (p *Pattern) Match(s string) bool {
	if len(s) < p.Size || !strings.HasPrefix(s, p.Prefix) || !strings.HasSuffix(s, p.Suffix) {
		return false
	}
	s = s[len(p.Prefix) : len(s)-len(p.Suffix)]
	for _, m := range p.Middles {
		i := strings.Index(s, m)
		if i < 0 {
			return false
		}
		s = s[i+len(m):]
	}
	return true
}

// Longest returns the longest of the middles; empty if there are none.
func (p *Pattern) Longest() string {
	longest := ""
	for _, m := range p.Middles {
		if len(m) > len(longest) {
			longest = m
		}
	}
	return longest
}
