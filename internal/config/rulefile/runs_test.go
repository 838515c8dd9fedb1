package rulefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile/reread"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
)

// whole parses without splitting.
func whole(sources ...Source) (*config.Rules, error) {
	p := newParser(Options{MergeDomains: true})
	p.Length = 0
	return p.Parse(sources)
}

// inRuns returns a parser that remembers and splits at about every n-th descriptor.
func inRuns(n uint64) *Parser {
	p := newParser(Options{MergeDomains: true})
	p.Length = n
	p.memory = reread.NewMemory()
	return p
}

// checkSame compares rules, with positions and warnings, and problems.
func checkSame(t *testing.T, what string, data []byte, got, want *config.Rules, err, wantErr error) {
	t.Helper()
	if !reflect.DeepEqual(problems(t, err), problems(t, wantErr)) {
		t.Fatalf("%s: %q\nerror\n%v\nwant\n%v", what, data, err, wantErr)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: %q\ngot\n%s\n%+v\nwant\n%s\n%+v", what, data, got, got, want, want)
	}
}

// problems returns all problems of an error; none if it is nil.
func problems(t *testing.T, err error) []config.Problem {
	t.Helper()
	var invalid *config.Invalid
	if err != nil && !errors.As(err, &invalid) {
		t.Fatal(err)
	}
	if invalid == nil {
		return nil
	}
	return invalid.Problems
}

// checkSplit parses data in runs, remembered and not, and after other lines.
func checkSplit(t *testing.T, data []byte) {
	t.Helper()
	source := Source{Name: "a.yaml", Data: data}
	want, wantErr := whole(source)
	for _, n := range []uint64{1, 2, reread.RunLength} {
		p := inRuns(n)
		for _, what := range []string{"split", "remembered"} {
			got, err := p.Parse([]Source{source})
			checkSame(t, fmt.Sprintf("%s, runs of %d", what, n), data, got, want, err, wantErr)
		}
		lower := Source{Name: "b.yaml", Data: append([]byte("# comment\n\n"), data...)}
		want, wantErr := whole(lower)
		got, err := p.Parse([]Source{lower})
		checkSame(t, "moved", lower.Data, got, want, err, wantErr)
	}
}

// AddSeeds adds all rules of the tests and examples. It is exported for the tests
// of this package from outside.
func AddSeeds(f *testing.F) {
	f.Helper()
	for _, pattern := range []string{"testdata/*.txtar", "../../../config/examples/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no seeds in %s: %v", pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			if !strings.HasSuffix(file, ".txtar") {
				f.Add(data)
				continue
			}
			for _, seed := range txtar.Parse(data).Files {
				f.Add(seed.Data)
			}
		}
	}
}

// FuzzSplit feeds any text to a parser that splits documents and remembers their parts.
// The result must be the same as for the document as a whole.
func FuzzSplit(f *testing.F) {
	AddSeeds(f)
	for _, c := range splitCases {
		f.Add([]byte(c.text))
	}
	f.Fuzz(checkSplit)
}

// splitCases are documents with text that looks like the start of a descriptor but is not
// one, or that means something else in a document of its own.
var splitCases = []struct {
	name, text string
	runs       int // 0: must be parsed as a whole
}{
	{"plain", "domain: a\ndescriptors:\n- key: x\n- key: y\n", 2},
	{"indented", "domain: a\ndescriptors: # all\n\n  # the first\n  - key: x\n # odd comment\n  - key: y\n    descriptors:\n    - key: z\n", 2},
	{"Windows", "domain: a\r\ndescriptors:\r\n  - key: x\r\n\r\n  - key: y\r\n", 2},
	{"last without line end", "domain: a\ndescriptors:\n- key: x\n-\n  key: y", 2},
	{"block scalar", "domain: a\ndescriptors:\n- key: x\n  rate_limit:\n    raw_body: |\n      - key: no\n\n      # no comment\n    unit: day\n- key: y\n  value: >+\n    text\n\n- key: z\n", 3},
	{"anchor within", "domain: a\ndescriptors:\n- {key: x, rate_limit: &l {unit: day, requests_per_unit: 1}, descriptors: [{key: y, rate_limit: *l}]}\n- key: z\n", 2},
	{"document start", "---\ndomain: a\ndescriptors:\n- key: x\n", 1},
	{"comment, document start", "# rules\n\n---\ndomain: a\ndescriptors:\n- key: x\n", 1},
	{"start of a second document", "domain: b\n---\ndomain: a\ndescriptors:\n- key: x\n", 0},
	{"nothing below", "domain: a\ndescriptors:", 0},
	{"anchor across", "domain: a\ndescriptors:\n- key: x\n  rate_limit: &l {unit: day, requests_per_unit: 1}\n- key: y\n  rate_limit: *l\n", 0},
	{"anchor across, and again", "domain: a\ndescriptors:\n- key: x\n  rate_limit: &l {unit: day, requests_per_unit: 1}\n- key: y\n  rate_limit: *l\n- key: z\n  rate_limit: &l {unit: day, requests_per_unit: 2}\n", 0},
	{"double quotes", "domain: a\ndescriptors:\n- key: \"x\n- key: y\n- key: z\"\n- key: w\n", 0},
	{"single quotes", "domain: a\ndescriptors:\n- key: 'x\n- key: y'\n", 0},
	{"flow", "domain: a\ndescriptors:\n- {key: x, value: y\n- key}\n- key: z\n", 0},
	{"flow list", "domain: a\ndescriptors:\n- key: x\n  metadata: {a: [b\n- c, d]}\n", 0},
	{"quoted head", "domain: \"a\ndescriptors:\n- key: x\"\ndescriptors: []\n", 0},
	{"flow head", "{domain: a,\ndescriptors:\n- key\n}\n", 0},
	{"keys below", "domain: a\ndescriptors:\n- key: x\nconsume: each\n", 0},
	{"keys below, indented", "descriptors:\n  - key: x\ndomain: a\n", 0},
	{"two documents", "domain: a\ndescriptors:\n- key: x\n---\ndomain: b\n", 1},
	{"end of document", "domain: a\ndescriptors:\n- key: x\n...\n- key: y\n", 0},
	{"directive", "%TAG !! tag:example.com,2000:\n---\ndomain: a\ndescriptors:\n- key: !!str x\n", 0},
	{"tag", "domain: a\ndescriptors: !!map\n- key: x\n", 0},
	{"twice", "domain: a\ndescriptors:\n- key: x\ndescriptors:\n- key: y\n", 0},
	{"tab", "domain: a\ndescriptors:\n- key: x\n\t- key: y\n", 0},
	{"odd line break", "domain: a\ndescriptors:\n- key: x\u2028- key: y\n", 0},
	{"old line break", "domain: a\ndescriptors:\n- key: x\r- key: y\n", 0},
	{"error in the middle", "domain: a\ndescriptors:\n- key: x\n- key: [\n- key: y\n", 0},
	{"problems", "domain: a\ndescriptors:\n- kee: x\n- key: x\n  rate_limit: {unit: dey}\n- key: x\n", 3},
	{"warnings", "domain: a\ndescriptors:\n- key: ' x'\n- key: y\n  rate_limit: {unit: day, requests_per_unit: 1, replaces: [{name: z}]}\n", 2},
	{"less indented", "domain: a\ndescriptors:\n    - key: x\n  - key: y\n", 0},
	{"not a list", "domain: a\ndescriptors:\n  key: x\n", 0},
	{"compact nested", "domain: a\ndescriptors:\n- - key: x\n- key: y\n", 2},
	{"empty elements", "domain: a\ndescriptors:\n-\n-\n", 2},
}

func TestSplit(t *testing.T) {
	for _, tt := range splitCases {
		t.Run(tt.name, func(t *testing.T) {
			checkSplit(t, []byte(tt.text))
			documents := inRuns(1).documents([]Source{{Name: "a.yaml", Data: []byte(tt.text)}}, nil)
			if got := len(documents[0].parts); got != tt.runs {
				t.Errorf("parsed in %d runs, want %d", got, tt.runs)
			}
		})
	}
}

// FuzzCut compares the documents of a text with those that YAML finds in it.
func FuzzCut(f *testing.F) {
	AddSeeds(f)
	for _, seed := range []string{"a\n---\nb", "--- a\n...\n---\n", "%YAML 1.1\n---\na: b\n...\n# c\nd", "a: 'b\n---\nc'", "- |\n  x\n---\n- y", "\ufeffa\n---\n\ufeffb", "[a,\n---\nb]", "a\r---\rb"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, what, odd := badText(data, nil); what != "" || odd || bytes.Contains(data, []byte("*")) { // an alias may lead to another document
			return
		}
		// read returns the nodes of documents, with lines, and whether they are well-formed.
		read := func(data []byte, above int) (all []string, ok bool) {
			stream := yaml.NewDecoder(bytes.NewReader(data))
			for {
				var n yaml.Node
				if err := stream.Decode(&n); err != nil {
					return all, errors.Is(err, io.EOF)
				}
				if root := n.Content[0]; !yamlfile.IsNull(root) || root.Value != "" {
					all = append(all, dump(root, above))
				}
			}
		}
		want, ok := read(data, 0)
		if !ok {
			return
		}
		var got []string
		for _, s := range reread.Cut(data, nil) {
			documents, ok := read(s.Data, s.Lines)
			if !ok || len(documents) > 1 {
				t.Fatalf("%q holds %q of %q, well-formed %v", s.Data, documents, data, ok)
			}
			got = append(got, documents...)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\nis cut into %q\nwant %q", data, got, want)
		}
	})
}

// dump returns all fields of a node.
func dump(n *yaml.Node, above int) string {
	text := fmt.Sprintf("%d %q %q %d:%d", n.Kind, n.Tag, n.Value, above+n.Line, n.Column)
	for _, c := range n.Content {
		text += " (" + dump(c, above) + ")"
	}
	return text
}

// TestNoDocumentIsLeftOut checks that a document that Cut does not find is an error.
func TestNoDocumentIsLeftOut(t *testing.T) {
	for _, lineBreak := range []string{"\r", "\u0085", "\u2028", "\u2029"} {
		text := strings.ReplaceAll("domain: a\n---\ndomain: b\n", "\n", lineBreak)
		_, err := Parse([]Source{{Name: "a.yaml", Data: []byte(text)}}, Options{})
		if err == nil || !strings.HasPrefix(err.Error(), "a.yaml:2:1: another document begins here, and is not read; ") {
			t.Errorf("%q: error %v", text, err)
		}
	}
	var b strings.Builder
	for i := range reread.MaxDocuments + 1 {
		if i == reread.MaxDocuments {
			rules, err := Parse([]Source{{Name: "a.yaml", Data: []byte(b.String())}}, Options{})
			if err != nil || len(rules.Domains) != reread.MaxDocuments {
				t.Fatalf("%d documents: error %v", i, err)
			}
		}
		fmt.Fprintf(&b, "---\ndomain: d%d\ndescriptors: [{key: a}]\n", i)
	}
	_, err := Parse([]Source{{Name: "a.yaml", Data: []byte(b.String())}}, Options{})
	want := fmt.Sprintf("a.yaml:%d:1: another document begins here, and is not read; ", 3*reread.MaxDocuments+1)
	if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
}

// TestEditOneOfSeveralDocuments checks that unchanged documents of a file stay the same,
// and that only the changed runs of the other are parsed.
func TestEditOneOfSeveralDocuments(t *testing.T) {
	document := func(name string, n int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "domain: %s\ndescriptors:\n", name)
		for i := range n {
			fmt.Fprintf(&b, "  - key: user\n    value: u%d\n    rate_limit: {unit: day, requests_per_unit: 5}\n", i)
		}
		return b.String()
	}
	before := document("a", 100) + "---\n" + document("b", 1000)
	p := newParser(Options{})
	p.memory = reread.NewMemory()
	parse := func(text string) (*config.Rules, []*config.Domain) {
		t.Helper()
		sources := []Source{{Name: "a.yaml", Data: []byte(text)}}
		rules, err := p.Parse(sources)
		want, wantErr := whole(sources...)
		checkSame(t, "several documents", nil, rules, want, err, wantErr)
		return rules, rules.Domains
	}
	_, first := parse(before)
	after := strings.Replace(before, "u999\n", "other\n", 1)
	fresh := 0
	for _, d := range p.documents([]Source{{Name: "a.yaml", Data: []byte(after)}}, nil) {
		for _, part := range d.parts {
			if p.memory.Run(part.digest) == nil {
				fresh++
			}
		}
	}
	if fresh > 2 {
		t.Errorf("parsed %d runs for one change", fresh)
	}
	_, second := parse(after)
	if first[0] != second[0] || first[1] == second[1] {
		t.Errorf("the first document is the same: %v, want true; the second: %v, want false", first[0] == second[0], first[1] == second[1])
	}
	parse("# moves all lines\n" + after)
}

// TestSplitRandomly edits a document again and again, as people do. A parser with a memory
// must agree with one without, and may parse only the changed runs.
func TestSplitRandomly(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var blocks []string
	block := func() string {
		n := random.IntN(1000)
		return [...]string{
			fmt.Sprintf("  - key: k\n    value: v%d\n    rate_limit: {unit: day, requests_per_unit: %d}\n", n, n),
			fmt.Sprintf("  - key: k%d\n    rate_limits:\n    - unit: day\n      requests_per_unit: 7\n    - {unit: second, requests_per_unit: 1}\n", n),
			fmt.Sprintf("  - key: k%d\n    rate_limit: &l {unit: day, requests_per_unit: 1}\n    descriptors:\n      - {key: a, value: b, rate_limit: *l}\n", n),
			fmt.Sprintf("  # comment\n  - {key: k%d, rate_limit: {unlimited: true, replaces: [{name: x}]}}\n\n", n),
			fmt.Sprintf("  - key: 'k%d '\n    rate_limit: {unit: day}\n", n),
			fmt.Sprintf("  - key: k%d\n    rate_limit:\n      unit: day\n      raw_body: |\n        - key: none\n\n", n),
		}[random.IntN(6)]
	}
	p := inRuns(8)
	var before, wantBefore *config.Rules
	for range 40 {
		at := random.IntN(len(blocks) + 1)
		switch random.IntN(4) {
		case 0:
			blocks = blocks[:at]
			for range 30 {
				blocks = append(blocks, block())
			}
		case 1:
			blocks = append(blocks[:at:at], blocks[min(at+1, len(blocks)):]...)
		default:
			blocks = append(blocks[:at:at], append([]string{block()}, blocks[at:]...)...)
		}
		var sources []Source
		for i, text := range []string{
			"domain: a\ndescriptors:\n" + strings.Join(blocks, ""),
			"domain: b\nconsume: all_or_nothing\ndescriptors:\n  - key: x\n    rate_limit: {unit: day, requests_per_unit: 1}\n",
			"domain: c\ndescriptors:\n" + strings.Join(blocks[:at], ""),
			"{domain: d, descriptors: [{key: x, rate_limit: {unit: day, requests_per_unit: 1}}]}",
			"domain: b\ndescriptors:\n  - key: other\n    rate_limit: {unit: day, requests_per_unit: 1}\n",
			"domain: d\nconsume: all_or_nothing\ndescriptors: []\n",
			"domain: b\ndescriptors:\n  - key: x\n    rate_limit: {unit: second, requests_per_unit: 5}\n",
			"domain: a\ndescriptors:\n  - key: k\n    value: v1\n    rate_limit: {unit: second, requests_per_unit: 5}\n",
		} {
			source := Source{Name: fmt.Sprint(i), Data: []byte(text)}
			switch {
			case i >= 6:
				source.Origin = config.FromAdmin
				fallthrough
			case i >= 4:
				if random.IntN(3) > 0 {
					continue
				}
			}
			sources = append(sources, source)
		}
		want, wantErr := whole(sources...)
		got, err := p.Parse(sources)
		checkSame(t, "edited", sources[0].Data, got, want, err, wantErr)
		checkSame(t, "the rules before", nil, before, wantBefore, nil, nil)
		if err == nil {
			before, wantBefore = got, want
		}
	}
}

// TestSameDomains checks that domains are the same pointers if none of their text has
// changed.
func TestSameDomains(t *testing.T) {
	source := func(name, text string, origin config.Origin) Source {
		return Source{Name: name, Data: []byte(text), Origin: origin}
	}
	const limit = "rate_limit: {unit: day, requests_per_unit: 1}}"
	a := source("a", "domain: a\ndescriptors:\n- {key: x, "+limit+"\n", config.FromFile)
	b := source("b", "domain: b\ndescriptors:\n- {key: x, "+limit+"\n", config.FromFile)
	other := source("b", "domain: b\ndescriptors:\n- {key: y, "+limit+"\n", config.FromFile)
	over := source("admin", "domain: a\ndescriptors:\n- {key: z, "+limit+"\n", config.FromAdmin)
	p := inRuns(1)
	var before []*config.Domain
	for _, tt := range []struct {
		what    string
		sources []Source
		same    []bool
	}{
		{"at first", []Source{a, b}, []bool{false, false}},
		{"again", []Source{a, b}, []bool{true, true}},
		{"one changed", []Source{a, other}, []bool{true, false}},
		{"one overridden", []Source{a, other, over}, []bool{false, true}},
		{"still overridden", []Source{a, other, over}, []bool{false, true}},
		{"in force again", []Source{a, other}, []bool{false, true}},
	} {
		rules, err := p.Parse(tt.sources)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range tt.same {
			if got := len(before) > i && before[i] == rules.Domains[i]; got != want {
				t.Errorf("%s: domain %d is the same: %v, want %v", tt.what, i, got, want)
			}
		}
		before = rules.Domains
	}
}

// TestParseOnlyChanges counts the runs that are parsed when one line changes.
func TestParseOnlyChanges(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("domain: a\ndescriptors:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "  - key: user\n    value: u%d\n    rate_limit: {unit: day, requests_per_unit: 5}\n", i)
	}
	p := newParser(Options{})
	p.memory = reread.NewMemory()
	if _, err := p.Parse([]Source{{Name: "a.yaml", Data: b.Bytes()}}); err != nil {
		t.Fatal(err)
	}
	for _, edit := range [][2]string{
		{"value: u5000\n", "value: other\n"},
		{"  - key: user\n    value: u5000\n", "  - key: new\n  - key: user\n    value: u5000\n"},
		{"  - key: user\n    value: u5000\n    rate_limit: {unit: day, requests_per_unit: 5}\n", ""},
		{"domain: a\n", "# on top\ndomain: other\n"},
	} {
		changed := bytes.Replace(b.Bytes(), []byte(edit[0]), []byte(edit[1]), 1)
		documents := p.documents([]Source{{Name: "a.yaml", Data: changed}}, nil)
		fresh := 0
		for _, part := range documents[0].parts {
			if p.memory.Run(part.digest) == nil {
				fresh++
			}
		}
		if fresh > 2 {
			t.Errorf("%q → %q: parsed %d runs of %d, want 2 at most", edit[0], edit[1], fresh, len(documents[0].parts))
		}
	}
}
