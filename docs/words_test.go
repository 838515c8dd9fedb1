package docs

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// banned are phrases of the table in CONTRIBUTING.md, as far as a regular expression finds
// them without false alarms.
var banned = regexp.MustCompile(`(?i)\b(?:` + strings.Join([]string{
	`says\s+whether`,
	`lest`,
	`whoever`,
	`nobody's`, `somebody's`,
	`comes\s+by`, `comes?\s+about`,
	`as\s+good\s+as`,
	`so\s+(?:many|much)`,
	`what\s+there\s+(?:is|are)`,
	`incumbent`,
}, `|`) + `)\b|,\s+for\s+(?:it\s+is|there\s+(?:is|are)|they)\b`)

// allowed begin the names of files that may have such phrases.
var allowed = []string{
	"CONTRIBUTING.md", // lists them
}

var (
	block    = regexp.MustCompile("(?ms)^ *```.*?\\n *```")
	inline   = regexp.MustCompile("`[^`\n]*`")
	hashMark = regexp.MustCompile(`(?m)(?:^|\s)#+.*$`)
	dashMark = regexp.MustCompile(`(?m)--.*$`)
	mark     = regexp.MustCompile(`(?m)^\s*(?://|#+|--)`)
)

// TestWords finds banned phrases in comments and pages, also those that span lines.
func TestWords(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))
		if entry.IsDir() {
			if name != ".." && strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "node_modules" {
				return filepath.SkipDir
			}
			return nil
		}
		for _, prefix := range allowed {
			if strings.HasPrefix(name, prefix) {
				return nil
			}
		}
		prose := proseOf[filepath.Ext(name)]
		if prose == nil {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		words := prose(t, text)
		for _, at := range banned.FindAllIndex(words, -1) {
			line := 1 + bytes.Count(words[:at[0]], []byte("\n"))
			t.Errorf("%s:%d: %q: see Words in CONTRIBUTING.md", name, line, strings.Join(strings.Fields(string(words[at[0]:at[1]])), " "))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestWordsAreFound holds the regular expressions to examples.
func TestWordsAreFound(t *testing.T) {
	for _, test := range []struct{ ext, text, want string }{
		{".go", "package a\n\n// f says\n// whether.\nfunc f() {}\n", "says // whether"},
		{".go", "package a\n\n/* lest */\nvar s = \"whoever\"\n", "lest"},
		{".go", "package a // says\nvar whether int\n", ""},
		{".md", "It is\nas good as\nnew. `lest`\n```\nlest\n```\n", "as good as"},
		{".yaml", "whoever: 1 # fine\nb: c#lest\n", ""},
		{".yaml", "# Whoever\na: b", "Whoever"},
		{".lua", "local lest = 1 -- nobody's\n", "nobody's"},
		{".md", "We wait, for they are late. The limit, for it alone, holds.", ", for they"},
	} {
		got := banned.Find(proseOf[test.ext](t, []byte(test.text)))
		want := strings.ReplaceAll(test.want, "// ", "")
		if strings.Join(strings.Fields(string(got)), " ") != want {
			t.Errorf("%s %q: found %q, want %q", test.ext, test.text, got, want)
		}
	}
}

// proseOf returns, by the extension of a file, a function that takes out all that people do
// not read as prose. The result has the lines of the file.
var proseOf = map[string]func(t *testing.T, text []byte) []byte{
	".go":   goComments,
	".lua":  func(_ *testing.T, text []byte) []byte { return only(text, dashMark.FindAllIndex(text, -1)) },
	".yaml": func(_ *testing.T, text []byte) []byte { return only(text, hashMark.FindAllIndex(text, -1)) },
	".yml":  func(_ *testing.T, text []byte) []byte { return only(text, hashMark.FindAllIndex(text, -1)) },
	".md": func(_ *testing.T, text []byte) []byte {
		return inline.ReplaceAllFunc(block.ReplaceAllFunc(bytes.Clone(text), blank), blank)
	},
}

func goComments(t *testing.T, text []byte) []byte {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "", text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var comments [][]int
	for _, group := range file.Comments {
		for _, c := range group.List {
			at := files.PositionFor(c.Pos(), false).Offset
			comments = append(comments, []int{at, at + len(c.Text)})
		}
	}
	return only(text, comments)
}

// only blanks all of text but the comments, which are in order, and the marks with which
// they begin.
func only(text []byte, comments [][]int) []byte {
	var out []byte
	end := 0
	for _, c := range comments {
		out = append(out, blank(text[end:c[0]])...)
		out = append(out, mark.ReplaceAllFunc(text[c[0]:c[1]], spaces)...)
		end = c[1]
	}
	return append(out, blank(text[end:])...)
}

// blank keeps the lines of text and nothing else, so that little remains to search. If there
// was more than white space, no phrase spans it.
func blank(text []byte) []byte {
	if len(bytes.TrimSpace(text)) == 0 {
		return text
	}
	return append([]byte{0}, bytes.Repeat([]byte("\n"), bytes.Count(text, []byte("\n")))...)
}

// spaces replaces a mark at the beginning of a line.
func spaces(text []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return r
		}
		return ' '
	}, text)
}
