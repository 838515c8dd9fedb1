// Package schema holds config/schema to the parsers: what they accept validates, and what
// they refuse, of a kind that a schema can say, does not. That the keys are the same is
// for the test of package rulefile.
package schema

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/config/schema"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/ruletest"
)

const base = "https://raw.githubusercontent.com/distlimiter/ratelimit/main/config/schema/"

// compile returns a schema of config/schema.
func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	for name, text := range map[string][]byte{"rules.json": schema.Rules, "tests.json": schema.Tests} {
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := c.AddResource(base+name, document); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile(base + name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// documents returns the documents of YAML as an editor has them. ok is false for what is
// no YAML, or has no form in JSON.
func documents(text []byte) (list []any, ok bool) {
	stream := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var v any
		switch err := stream.Decode(&v); {
		case errors.Is(err, io.EOF):
			return list, true
		case err != nil:
			return nil, false
		}
		j, ok := inJSON(v)
		if !ok {
			return nil, false
		}
		list = append(list, j)
	}
}

// inJSON returns a value as JSON has it.
func inJSON(v any) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for key, e := range v {
			var ok bool
			if m[key], ok = inJSON(e); !ok {
				return nil, false
			}
		}
		return m, true
	case map[any]any:
		m := map[string]any{}
		for key, e := range v {
			name, isText := key.(string)
			value, ok := inJSON(e)
			if !isText || !ok {
				return nil, false
			}
			m[name] = value
		}
		return m, true
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			var ok bool
			if list[i], ok = inJSON(e); !ok {
				return nil, false
			}
		}
		return list, true
	case time.Time:
		return v.Format(time.RFC3339), true
	case float64:
		return v, v-v == 0 // JSON has neither infinity nor NaN
	}
	return v, true
}

// unsayable are the problems that a schema can't say: those of text, and those that need
// arithmetic or another place.
var unsayable = regexp.MustCompile(`not YAML|is empty; |a key must be a string|duplicate key|contains itself|already given|says otherwise|<< wants|!!binary|` +
	`replaces itself|control characters|takes longer than|a sliding_log of|a window of|is not a duration; write a duration with its unit, such as 90s, 1h30m or 7d$|` +
	`a rate of zero|1\.0 is not a whole number|count_by names|has bits beyond|is not a prefix of addresses|unlimited among|beside token_bucket|\.inf is out|` +
	`is no percentage|is no burst|sub_windows without strict|too long; write at most|is more than 4294967295|in the list already|an empty value in a list|without the length of a prefix|a list of values beside`)

// TestRules: each case of rulefile that is valid without a warning validates, and the
// schema refuses each problem that a schema can say, at or around its place.
func TestRules(t *testing.T) {
	s := compile(t, "rules.json")
	archives, err := filepath.Glob("../../internal/config/rulefile/testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	valid, refused := 0, 0
	for _, archive := range archives {
		a, err := txtar.ParseFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			if path.Base(f.Name) == "want" {
				continue
			}
			where := filepath.Base(archive) + ": " + f.Name
			rules, err := rulefile.Parse([]rulefile.Source{{Name: "x", Data: f.Data}}, rulefile.Options{MergeDomains: true})
			docs, readable := documents(f.Data)
			invalid, _ := errors.AsType[*config.Invalid](err)
			switch {
			case !readable || len(docs) != 1: // problems have no document
			case err == nil && bytes.Contains(f.Data, []byte("<<: ")): // rules merge what is below, too
			case err == nil && len(rules.Warnings) == 0:
				valid++
				if err := s.Validate(docs[0]); err != nil {
					t.Errorf("%s is valid, but not by the schema: %v", where, err)
				}
			case err != nil:
				places := refusals(s.Validate(docs[0]))
				for _, p := range invalid.Problems {
					if unsayable.MatchString(p.Error()) {
						continue
					}
					refused++
					at := steps(p.Path)
					if !slices.ContainsFunc(places, func(place []string) bool { return isNear(place, at) }) {
						t.Errorf("%s: the schema does not refuse %v", where, p)
					}
				}
			}
		}
	}
	if valid < 40 || refused < 60 {
		t.Errorf("compared %d valid files and %d problems only", valid, refused)
	}
}

// isNear reports whether a place is at or just below the mapping or list that has the
// field.
func isNear(place, field []string) bool {
	above := max(len(field)-1, 0)
	return len(place) >= above && len(place) <= len(field)+1 && slices.Equal(place[:above], field[:above])
}

// refusals returns the places of all that is wrong.
func refusals(err error) (places [][]string) {
	invalid, is := errors.AsType[*jsonschema.ValidationError](err)
	if !is {
		return nil
	}
	var walk func(*jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		if len(e.Causes) == 0 {
			places = append(places, e.InstanceLocation)
		}
		for _, cause := range e.Causes {
			walk(cause)
		}
	}
	walk(invalid)
	return places
}

// steps splits a path such as descriptors[0].key.
func steps(path string) (list []string) {
	for step := range strings.SplitSeq(path, ".") {
		key, index, indexed := strings.Cut(step, "[")
		if key != "" {
			list = append(list, key)
		}
		if indexed {
			for i := range strings.SplitSeq(strings.TrimSuffix(index, "]"), "][") {
				list = append(list, i)
			}
		}
	}
	return list
}

// TestExamples: rules and tests of rules in config are valid, and name their schema, so
// that editors find it.
func TestExamples(t *testing.T) {
	for dir, name := range map[string]string{"../../config/examples": "rules.json", "../../config/tests": "tests.json"} {
		s := compile(t, name)
		files, err := filepath.Glob(dir + "/*.yaml")
		if err != nil || len(files) == 0 {
			t.Fatalf("no files in %s: %v", dir, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if first := "# yaml-language-server: $schema=../schema/" + name + "\n"; !strings.HasPrefix(string(text), first) {
				t.Errorf("%s does not begin with %q", file, first)
			}
			docs, ok := documents(text)
			if !ok || len(docs) == 0 {
				t.Errorf("%s can't be read", file)
			}
			for _, d := range docs {
				if err := s.Validate(d); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
		}
	}
}

// TestTests: what ratelimit test takes validates, and what it refuses does not.
func TestTests(t *testing.T) {
	s := compile(t, "tests.json")
	const rules = "rules: {domain: edge, descriptors: [{key: user}]}\n"
	step := func(text string) string { return rules + "tests: [{name: x, steps: [{" + text + "}]}]" }
	for _, tt := range []struct {
		text  string
		valid bool
	}{
		{step("descriptors: user"), true},
		{step("descriptors: [user, {entries: [{key: user, value: 1}], hits: -1, limit: {requests_per_unit: 1, unit: Hour, unit_multiplier: 2}}]"), true},
		{step("descriptors: user, at: 1h30m, hits: 0, repeat: 5, every: 250ms, expect: {allowed: 5, rule: null, name: '', remaining: 0, reset: 0s, shadow: false}"), true},
		{step("descriptors: [user, user], at: '2024-01-01T00:00:01+00:00', domain: edge, expect: {descriptors: [OK, {verdict: ok}]}"), true},
		{step("descriptors: user, after: 7d, expect: OK"), true},
		{rules + "start: 2026-03-29T00:00:00Z\ndomain: edge\ntests: [{name: x, start: 2026-03-29T00:00:00Z, domain: edge, steps: [{descriptors: a}]}]", true},
		{step("descriptor: user"), false},
		{step("descriptors: user, after: 1s, at: 1s"), false},
		{step("descriptors: user, after: soon"), false},
		{step("descriptors: user, after: -1s"), false},
		{step("descriptors: user, repeat: 0"), false},
		{step("descriptors: user, expect: NO"), false},
		{step("descriptors: user, expect: {verdict: OK, allowed: 1}"), false},
		{step("descriptors: user, expect: {remaining: many}"), false},
		{step("descriptors: user, expect: {descriptors: [{verdit: OK}]}"), false},
		{step("descriptors: {hits: 1}"), false},
		{step("descriptors: {entries: [{value: a}]}"), false},
		{step("descriptors: {entries: a, limit: {unit: day}}"), false},
		{step("descriptors: {entries: a, limit: {unit: fortnight, requests_per_unit: 1}}"), false},
		{step("hits: 1"), false},
		{rules + "tests: []", false},
		{rules + "start: yesterday\ntests: [{name: x, steps: [{descriptors: a}]}]", false},
		{rules + "tests: [{steps: [{descriptors: a}]}]", false},
		{"rules: [{domain: edge, descriptors: [{keys: a}]}]\ntests: [{name: x, steps: [{descriptors: a}]}]", false},
	} {
		report := ruletest.Run([]string{"-"}, ruletest.Options{Stdin: strings.NewReader(tt.text)})
		if taken := len(report.Files[0].Errors) == 0; taken != tt.valid {
			t.Errorf("%s\nis taken: %v: %v", tt.text, taken, report.Files[0].Errors)
		}
		docs, ok := documents([]byte(tt.text))
		if !ok {
			t.Fatalf("%s: can't be read", tt.text)
		}
		if err := s.Validate(docs[0]); (err == nil) != tt.valid {
			t.Errorf("%s\nvalid %v: %v", tt.text, tt.valid, err)
		}
	}
}
