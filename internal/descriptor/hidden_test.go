package descriptor_test

import (
	"fmt"
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
