package descriptor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

func TestHiddenNamesWhatCanNeverApply(t *testing.T) {
	for _, tt := range []struct {
		name, descriptors string
		want              []string // line of the hidden descriptor, and of the one that hides it
	}{
		{"a prefix before a longer one", "{key: path, value: /a*}\n{key: path, value: /a/b*}", []string{"2 path=/a* (r.yaml:1:1)"}},
		{"the longer one first", "{key: path, value: /a/b*}\n{key: path, value: /a*}", nil},
		{"other keys", "{key: path, value: /a*}\n{key: route, value: /a/b*}", nil},
		{"an exact value wins wherever it is", "{key: path, value: /a*}\n{key: path, value: /a/b}", nil},
		{"a part in the middle", "{key: path, value: '*a*'}\n{key: path, value: 'x*a*y'}\n{key: path, value: 'x*b*y'}", []string{"2 path=*a* (r.yaml:1:1)"}},
		{"ends that overlap", "{key: path, value: 'a*a'}\n{key: path, value: 'a*'}\n{key: path, value: 'a*ba'}", []string{"3 path=a*a (r.yaml:1:1)"}},
		{"a key alone behind any value", "{key: path}\n{key: path, value: '*'}", []string{"1 path=* (r.yaml:2:1)"}},
		{"a key alone behind some values", "{key: path}\n{key: path, value: 'a*'}", nil},
		{"more than are tried one by one", "{key: p, value: 'a*'}\n{key: p, value: 'b*'}\n{key: p, value: 'c*'}\n{key: p, value: 'd*'}\n{key: p, value: 'e*'}\n{key: p, value: 'f*'}\n{key: p, value: 'g*'}\n{key: p, value: 'c/d*'}", []string{"8 p=c* (r.yaml:3:1)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkHidden(t, levelOf(tt.descriptors), tt.want)
			below := &config.Descriptor{Key: "host", Descriptors: levelOf(tt.descriptors)}
			checkHidden(t, []*config.Descriptor{below}, tt.want)
		})
	}
}

// levelOf makes the descriptors, one a line, in the flow style of YAML.
func levelOf(lines string) (level []*config.Descriptor) {
	for i, line := range strings.Split(lines, "\n") {
		c := &config.Descriptor{Pos: config.Pos{File: "r.yaml", Line: i + 1, Column: 1}}
		for field := range strings.SplitSeq(strings.Trim(line, "{}"), ", ") {
			name, text, _ := strings.Cut(field, ": ")
			if name == "key" {
				c.Key = text
			} else {
				c.Value = strings.Trim(text, "'")
			}
		}
		level = append(level, c)
	}
	return level
}

func checkHidden(t *testing.T, level []*config.Descriptor, want []string) {
	t.Helper()
	var got []string
	for _, p := range descriptor.Hidden(&config.Rules{Domains: []*config.Domain{{Name: "edge", Descriptors: level}}}) {
		_, by, _ := strings.Cut(p.What, "can never apply: ")
		by, _, _ = strings.Cut(by, " matches all")
		got = append(got, fmt.Sprintf("%d %s", p.Line, by))
	}
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestHiddenAgreesWithLookups looks short values up in random patterns. A pattern that some
// value reaches must not be hidden. With a small alphabet, every other pattern must be.
func TestHiddenAgreesWithLookups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfNDistinct(rapid.StringOfN(rapid.RuneFrom([]rune("ab**")), 1, 3, -1), 1, 9, rapid.ID).Draw(t, "values")
		var level []*config.Descriptor
		for i, text := range texts {
			if strings.Contains(text, "*") {
				level = append(level, &config.Descriptor{Key: "k", Value: text, Limits: []*config.Limit{{Unlimited: true}}, Pos: config.Pos{Line: i + 1}})
			}
		}
		rules := &config.Rules{Domains: []*config.Domain{{Name: "d", Descriptors: level}}}
		hidden := map[int]bool{}
		for _, p := range descriptor.Hidden(rules) {
			hidden[p.Line] = true
		}
		reached := map[int]bool{}
		d := descriptor.Compile(rules).Domain("d")
		values := []string{""}
		for i := 0; i < len(values) && len(values[i]) < 5; i++ { // c stands for all other bytes
			values = append(values, values[i]+"a", values[i]+"b", values[i]+"c")
		}
		for _, value := range values {
			if r := d.Lookup([]descriptor.Entry{{Key: "k", Value: value}}); r != nil {
				reached[r.Config.Pos.Line] = true
			}
		}
		for _, c := range level {
			if hidden[c.Pos.Line] == reached[c.Pos.Line] {
				t.Fatalf("%s: hidden %v, reached by a value %v", c.Value, hidden[c.Pos.Line], reached[c.Pos.Line])
			}
		}
	})
}

// TestHiddenNamesValuesOfListsThatMakeNoDifference: an exact value is one if a pattern or a
// range of its own list gets its entries without it, and no other descriptor does.
func TestHiddenNamesValuesOfListsThatMakeNoDifference(t *testing.T) {
	for name, tt := range map[string]struct {
		level []*config.Descriptor
		want  []string
	}{
		"beside a pattern":            {[]*config.Descriptor{list("k", "x", "x*", "y")}, []string{"x"}},
		"beside a range":              {[]*config.Descriptor{list("k", "10.1.2.3", "10.0.0.0/8", "192.0.2.1")}, []string{"10.1.2.3"}},
		"an earlier pattern takes it": {[]*config.Descriptor{leaf("k", "*"), list("k", "x", "x*")}, nil},
		"a later pattern does not":    {[]*config.Descriptor{list("k", "x", "x*"), leaf("k", "*")}, []string{"x"}},
		"a longer range takes it":     {[]*config.Descriptor{list("k", "10.1.2.3", "10.0.0.0/8"), list("k", "10.1.0.0/16", "b")}, nil},
		"another key":                 {[]*config.Descriptor{list("k", "x", "y"), list("l", "x*", "y*")}, nil},
		"a pattern of another list":   {[]*config.Descriptor{list("k", "x", "y*"), list("k", "x*", "z")}, nil},
	} {
		var got []string
		for _, p := range descriptor.Hidden(rules("e", tt.level...)) {
			if _, value, is := strings.Cut(p.What, "the value "); is && strings.Contains(p.What, "makes no difference: a pattern or a range") {
				value, _, _ = strings.Cut(value, " ")
				got = append(got, value)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// TestHiddenFinderFindsTheSameInRulesThatChange, and keeps nothing of domains that are gone.
func TestHiddenFinderFindsTheSameInRulesThatChange(t *testing.T) {
	domain := func(name string, values ...string) *config.Domain {
		d := &config.Domain{Name: name}
		for _, v := range values {
			d.Descriptors = append(d.Descriptors, leaf("k", v))
		}
		return d
	}
	kept, other := domain("kept", "a*", "ab*"), domain("other", "b*", "bc*", "bd*")
	var f descriptor.HiddenFinder
	for i, domains := range [][]*config.Domain{{kept}, {kept, other}, {other}, {domain("other", "b*")}, {kept, other}} {
		r := &config.Rules{Domains: domains}
		if got, want := f.Find(r), descriptor.Hidden(r); !slices.Equal(got, want) {
			t.Errorf("%d: got %v, want %v", i, got, want)
		}
	}
}

// BenchmarkHidden measures how long each load of rules looks for rules that can never apply,
// where a level has that many patterns of one form and none of them hides another.
func BenchmarkHidden(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		for name, pattern := range map[string]string{"starts": "/api/v1/resource-%d/*", "middles": "*/resource-%d/*", "ends": "*/resource-%d"} {
			var level []*config.Descriptor
			for i := range n {
				level = append(level, leaf("path", fmt.Sprintf(pattern, i)))
			}
			r := rules("e", level...)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for b.Loop() {
					descriptor.Hidden(r)
				}
			})
		}
	}
}
