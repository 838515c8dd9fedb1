package rulefile_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestParse parses the cases in testdata/*.txtar and compares the results, above all
// problems with their exact positions.
func TestParse(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { testArchive(t, file) })
	}
}

func testArchive(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string][]rulefile.Source{}
	for i := range archive.Files {
		f := &archive.Files[i]
		name, base := path.Split(f.Name)
		name = strings.TrimSuffix(name, "/")
		if base != "want" {
			source := rulefile.Source{Name: base, Data: f.Data}
			if strings.HasPrefix(base, "admin") {
				source.Origin = config.FromAdmin
			}
			sources[name] = append(sources[name], source)
			continue
		}
		t.Run(name, func(t *testing.T) {
			got := outcome(t, sources[name], rulefile.Options{MergeDomains: strings.HasPrefix(name, "merge domains")})
			if *update {
				f.Data = []byte(got)
			} else if want := string(f.Data); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// outcome is the problems, or the warnings and the rules as written back.
func outcome(t *testing.T, sources []rulefile.Source, opts rulefile.Options) string {
	t.Helper()
	rules, err := rulefile.Parse(sources, opts)
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for _, w := range rules.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w.Error())
	}
	for _, d := range rules.Domains {
		text, err := yaml.Marshal(rulefile.Domain{Domain: d})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
		again, err := rulefile.Parse([]rulefile.Source{{Name: "again", Data: text}}, opts)
		if err != nil {
			t.Errorf("written back it does not load again: %v\n%s", err, text)
		} else if back, err := yaml.Marshal(rulefile.Domain{Domain: again.Domains[0]}); err != nil || string(back) != string(text) {
			t.Errorf("written back it means something else: %v\n%s\n%s", err, text, back)
		}
	}
	return b.String()
}

// TestParseBytes has the cases that a text file can't hold, or that are too large for one.
func TestParseBytes(t *testing.T) {
	doc := func(inner string) string {
		return "domain: edge\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1}, metadata: " + inner + "}]\n"
	}
	// Nine levels of nine: 9^9 values from 400 bytes.
	bomb := "{a: &a [x, x, x, x, x, x, x, x, x]"
	for c := 'b'; c <= 'i'; c++ {
		bomb += fmt.Sprintf(", %c: &%c [%s]", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9), ", "))
	}
	// Each descriptor holds the one before it twice.
	nodes := "domain: edge\ndescriptors:\n  - key: x\n    descriptors:\n      - &n0 {key: a}\n"
	for i := range 40 {
		nodes += fmt.Sprintf("      - &n%d {key: b%d, descriptors: [*n%d, {<<: *n%d, key: c}]}\n", i+1, i, i, i)
	}
	for _, tt := range []struct {
		name, data string
		maxBytes   int64
		want       string // contained in the error; empty: none
	}{
		{name: "invalid UTF-8", data: "domain: edge\n# caf\xe9\n", want: "a.yaml:2:6: the byte 0xe9 is not UTF-8; save the file as UTF-8 text"},
		{name: "UTF-16", data: "\xff\xfed\x00o\x00", want: "a.yaml:1:1: the byte 0xff is not UTF-8"},
		{name: "invalid UTF-8 after others", data: "é: é\xc3(", want: "a.yaml:1:5: the byte 0xc3 is not UTF-8"},
		{name: "NUL", data: "domain: e\x00dge", want: "a.yaml:1:10: the character U+0000 has no place in YAML"},
		{name: "C1 control", data: "domain:\n  \u0081", want: "a.yaml:2:3: the character U+0081 has no place in YAML"},
		{name: "delete", data: "domain: \x7f", want: "a.yaml:1:9: the character U+007F has no place in YAML"},
		{name: "byte order mark, CRLF", data: "\ufeffdomain: edge\r\ndescriptors: [{key: a}]\r\n"},
		{name: "next line", data: "domain: edge # \u0085descriptors: [{key: a}]\n"},
		{name: "escaped control characters", data: "domain: \"e\\0dge\"\ndescriptors: [{key: \"a\\x07\"}]"},
		{name: "too large", data: "domain: edge", maxBytes: 11, want: "a.yaml: larger than 11 bytes; split it into several domains"},
		{name: "just not too large", data: "domain: edge", maxBytes: 12},
		{name: "alias bomb", data: doc(bomb + "}"), want: "aliases expand to more than 1000000 values"},
		{name: "bomb of descriptors", data: nodes, want: "aliases expand to more than 1000000 values"},
		{name: "many aliases", data: doc("{a: &a {b: c}, l: [*a" + strings.Repeat(", *a", 100_000) + "]}")},
		{name: "deep metadata", data: doc("{a: " + strings.Repeat("[", 996) + strings.Repeat("]", 996) + "}")},
		{name: "too deep metadata", data: doc("{a: " + strings.Repeat("[", 997) + strings.Repeat("]", 997) + "}"), want: "nested more than 1000 levels deep"},
		{name: "deep descriptors", data: "domain: edge\ndescriptors: " + strings.Repeat("[{key: a, descriptors: ", 499) + "[]" + strings.Repeat("}]", 499)},
		{name: "too deep descriptors", data: "domain: edge\ndescriptors: " + strings.Repeat("[{key: a, descriptors: ", 500) + "[]" + strings.Repeat("}]", 500), want: "nested more than 1000 levels deep"},
		{name: "too deep for the YAML library", data: strings.Repeat("[", 100_000), want: "a.yaml:1:10001: not YAML: "},
		{name: "long raw_body", data: "domain: edge\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1, raw_body: " + strings.Repeat("x", 65537) + "}}]",
			want: "descriptors[0].rate_limit.raw_body: longer than 65536 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := rulefile.Parse([]rulefile.Source{{Name: "a.yaml", Data: []byte(tt.data)}}, rulefile.Options{MaxBytes: tt.maxBytes})
			var bad *config.Invalid
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want no problem", err)
			case tt.want == "":
			case !errors.As(err, &bad):
				t.Errorf("got %v, want a problem with %q", err, tt.want)
			case !strings.Contains(bad.Problems[0].Error(), tt.want):
				t.Errorf("got %v, want a problem with %q", bad.Problems[0], tt.want)
			}
		})
	}
}

// TestString pins the lines that /rlconfig shows.
func TestString(t *testing.T) {
	rules, err := rulefile.Parse([]rulefile.Source{{Name: "a.yaml", Data: []byte(`
domain: edge
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 5}
    descriptors:
      - key: path
        value: /x
        shadow_mode: true
        quota_mode: true
        rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 6, burst: 2, denied_hits: count}
  - key: free
    rate_limit: {unlimited: true}
  - key: both
    rate_limits:
      - {algorithm: hybrid, window: 90s, requests_per_unit: 7, strict: true, token_bucket: {capacity: 3, refill_rate: 1/s}}
      - {unit: day, requests_per_unit: 8}
      - {unit: day, requests_per_unit: 4, shadow_mode: true}
`)}}, rulefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := `edge.user: unit=MINUTE requests_per_unit=5, shadow_mode: false, quota_mode: false
edge.user.path_/x: unit=HOUR requests_per_unit=6, shadow_mode: true, quota_mode: true, algorithm: token_bucket, burst: 2, denied_hits: count
edge.free: unit=UNKNOWN requests_per_unit=0, shadow_mode: false, quota_mode: false, unlimited: true
edge.both: unit=SECOND requests_per_unit=7, shadow_mode: false, quota_mode: false, algorithm: hybrid, window: 1m30s, burst: 3, refill_rate: 1/second, strict: true
edge.both: unit=DAY requests_per_unit=8, shadow_mode: false, quota_mode: false, denied_hits: drop
edge.both: unit=DAY requests_per_unit=4, shadow_mode: true, quota_mode: false, denied_hits: drop
`
	if got := rules.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := rules.Domains[0].String(); got != want {
		t.Errorf("the domain alone: got\n%s\nwant\n%s", got, want)
	}
	if got := rules.Len(); got != 4 {
		t.Errorf("Len() = %d, want 4", got)
	}
}

// TestWindow checks the window that the answer reports for a limit.
func TestWindow(t *testing.T) {
	for _, tt := range []struct {
		window string
		unit   config.Unit
		times  uint32
	}{
		{"unit: minute", config.Minute, 1},
		{"unit: week", config.Week, 1},
		{"window: 90s", config.Second, 90},
		{"window: 60s", config.Minute, 1},
		{"window: 7200s", config.Hour, 2},
		{"window: 2w", config.Week, 2},
		{"window: 30d", config.Month, 1},
		{"window: 365d", config.Year, 1},
		{"window: 366d", config.Day, 366},
		{"window: 1500ms", config.UnitUnknown, 1},
		{"window: 1ms", config.UnitUnknown, 1},
	} {
		data := "domain: edge\ndescriptors: [{key: a, rate_limit: {requests_per_unit: 1, " + tt.window + "}}]"
		rules, err := rulefile.Parse([]rulefile.Source{{Name: "a.yaml", Data: []byte(data)}}, rulefile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if l := rules.Domains[0].Descriptors[0].Limits[0]; l.Unit != tt.unit || l.UnitMultiplier != tt.times {
			t.Errorf("%s: got %d × %v, want %d × %v", tt.window, l.UnitMultiplier, l.Unit, tt.times, tt.unit)
		}
	}
}

// TestMaxLimits loads the most limits that one descriptor may have, and one more.
func TestMaxLimits(t *testing.T) {
	parse := func(limits int) error {
		var b strings.Builder
		b.WriteString("domain: edge\ndescriptors:\n- key: user\n  rate_limits:\n")
		for i := range limits {
			fmt.Fprintf(&b, "  - {unit: hour, requests_per_unit: %d}\n", i+1)
		}
		_, err := rulefile.Parse([]rulefile.Source{{Name: "a.yaml", Data: []byte(b.String())}}, rulefile.Options{})
		return err
	}
	if err := parse(config.MaxLimits); err != nil {
		t.Error(err)
	}
	want := "a.yaml:1029:5: descriptors[0].rate_limits: 1025 limits, and a request may meet 1024 at most; write fewer"
	if err := parse(config.MaxLimits + 1); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestMarshalDescriptor writes one descriptor on its own, as the admin API does.
func TestMarshalDescriptor(t *testing.T) {
	rules, err := rulefile.Parse([]rulefile.Source{{Name: "a.yaml", Data: []byte("domain: edge\ndescriptors: [{key: k0, rate_limit: {unit: day, requests_per_unit: 5}}]\n")}}, rulefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := rulefile.Descriptor{Descriptor: rules.Domains[0].Descriptors[0]}
	asYAML, err := yaml.Marshal(d)
	if want := "key: k0\nrate_limit:\n    requests_per_unit: 5\n    unit: day\n"; err != nil || string(asYAML) != want {
		t.Errorf("as YAML %q, %v, want %q", asYAML, err, want)
	}
	asJSON, err := json.Marshal(d)
	if want := `{"key":"k0","rate_limit":{"requests_per_unit":5,"unit":"day"}}`; err != nil || string(asJSON) != want {
		t.Errorf("as JSON %s, %v, want %s", asJSON, err, want)
	}
}
