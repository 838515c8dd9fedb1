package descriptor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/config"
)

// These tests check that a hostile value costs at most about one pass over it for each
// pattern, for any patterns. They count steps, not time.

// deepest is how many sets a look-up descends through: by starts, then by ends,
// then by a part in the middle.
const deepest = 3

// checkLinear fails if looking s up in the set could take more than linear time:
// if a pattern could be tried twice, sets are nested deeper than there are ways to
// split them.
func checkLinear(t *testing.T, d *Domain, s string) {
	t.Helper()
	tried := map[string]int{}
	var visit func(at uint32, depth int, s string)
	visit = func(at uint32, depth int, s string) {
		if depth > deepest {
			t.Fatalf("sets are nested %d deep", depth)
		}
		w := &d.sets[at]
		switch {
		case w.scan != nil:
			for _, o := range w.scan.owners {
				tried[fmt.Sprint(at, " ", o.at)]++
			}
		case w.lengths == nil:
			for i := range w.patterns {
				tried[fmt.Sprint(at, " ", i)]++
			}
		}
		way := d.wild.setWay(at)
		for _, l := range w.lengths {
			if l.size > len(s) {
				continue
			}
			literal, rest := s[:l.size], s[l.size:]
			if w.by == suffixEdge {
				rest, literal = s[:len(s)-l.size], s[len(s)-l.size:]
			}
			if _, r := d.wild.find(hash(way, w.by, literal), at, w.by, literal); r != nil && r.set != 0 {
				visit(r.set-1, depth+1, rest)
			}
		}
	}
	if d.top.flags&hasLevel == 0 {
		return
	}
	_, set := d.key(d.top, "k")
	if set == 0 {
		return
	}
	visit(set-1, 1, s)
	for pattern, times := range tried {
		if times > 1 {
			t.Fatalf("pattern %s is tried %d times", pattern, times)
		}
	}
}

// matchCounting is pattern.match over a text that counts how often a byte of s is
// passed: each part is sought from where the one before it ended.
func matchCounting(p *pattern, s string) (matched bool, passed int) {
	if len(s) < p.Size || !strings.HasPrefix(s, p.Prefix) || !strings.HasSuffix(s, p.Suffix) {
		return false, len(p.Prefix) + len(p.Suffix)
	}
	passed = len(p.Prefix) + len(p.Suffix)
	at, end := len(p.Prefix), len(s)-len(p.Suffix)
	for _, m := range p.Middles {
		for {
			if at+len(m) > end {
				return false, passed + end - at
			}
			if s[at:at+len(m)] == m {
				break
			}
			at++
			passed++
		}
		at += len(m)
		passed += len(m)
	}
	return true, passed
}

// FuzzWildcardsAreLinear takes patterns, separated by line ends, and a value.
func FuzzWildcardsAreLinear(f *testing.F) {
	many := func(format string, n int) string {
		var lines []string
		for i := range n {
			lines = append(lines, fmt.Sprintf(format, strings.Repeat("a", i+1)))
		}
		return strings.Join(lines, "\n")
	}
	f.Add("a*a*a*a*a*a*a*a*a*a*b", strings.Repeat("a", 5000))
	f.Add("*a*a*a*a*a*a*b*", strings.Repeat("a", 5000)+"c")
	f.Add(many("%s*", 40), strings.Repeat("a", 1000))
	f.Add(many("*%s", 40)+"\n"+many("%s*b", 40), strings.Repeat("a", 1000)+"b")
	f.Add(many("*%s*", 60), strings.Repeat("a", 1000))
	f.Add(many("*%sb*", 60), strings.Repeat("a", 1000)+"c")
	f.Add(many("x*%sb*y*%[1]s*z", 60), "x"+strings.Repeat("ab", 1000)+"z")
	f.Add("*\n**\n*\x00*\n*\xff*", "\x00\xff")
	f.Fuzz(func(t *testing.T, patterns, value string) {
		value = value[:min(len(value), 1<<14)]
		var level []*config.Descriptor
		seen := map[string]bool{}
		for text := range strings.SplitSeq(patterns, "\n") {
			if strings.Contains(text, "*") && !seen[text] && len(level) < 200 {
				seen[text] = true
				level = append(level, &config.Descriptor{Key: "k", Value: text, Limits: []*config.Limit{{Unlimited: true}}})
			}
		}
		d := Compile(&config.Rules{Domains: []*config.Domain{{Name: "edge", Descriptors: level}}}).Domain("edge")
		checkLinear(t, d, value)
		var first *config.Descriptor
		for _, c := range level {
			p := newPattern(c.Value)
			matched, passed := matchCounting(&p, value)
			if matched != p.Match(value) {
				t.Fatalf("%q on %q: match says %v", c.Value, value, !matched)
			}
			if most := len(value) + len(c.Value); passed > most {
				t.Fatalf("%q on %q: %d bytes passed, want at most %d", c.Value, value, passed, most)
			}
			if matched && first == nil {
				first = c
			}
		}
		switch r := d.Lookup([]Entry{{Key: "k", Value: value}}); {
		case seen[value]: // exact, whatever it would match
		case r == nil && first != nil:
			t.Fatalf("%q matches %q, and nothing was found", value, first.Value)
		case r != nil && r.Config != first:
			t.Fatalf("%q: found %q, want %+v", value, r.Config.Value, first)
		}
	})
}
