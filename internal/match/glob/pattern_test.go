package glob_test

import (
	"testing"

	"github.com/distlimiter/ratelimit/internal/match/glob"
)

// FuzzMatch compares Match with a matcher that goes back wherever it can.
func FuzzMatch(f *testing.F) {
	f.Add("a*b*c", "aXbXbc")
	f.Add("*", "")
	f.Add("ab*ba", "aba")
	f.Add("*a**a*", "a")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 50 || len(s) > 200 {
			return
		}
		for _, pattern := range []string{pattern + "*", "*" + pattern, "a*" + pattern} {
			p := glob.Parse(pattern)
			if got, want := p.Match(s), matches(pattern, s); got != want {
				t.Fatalf("%q on %q: %t, want %t", pattern, s, got, want)
			}
		}
	})
}

// matches reports whether pattern matches s, by the definition.
func matches(pattern, s string) bool {
	reach := make([]bool, len(s)+1) // s[:i] is matched by the pattern so far
	reach[0] = true
	for _, c := range []byte(pattern) {
		next := make([]bool, len(s)+1)
		for i := range reach {
			if c == '*' {
				next[i] = reach[i] || i > 0 && next[i-1]
			} else if i > 0 {
				next[i] = reach[i-1] && s[i-1] == c
			}
		}
		reach = next
	}
	return reach[len(s)]
}
