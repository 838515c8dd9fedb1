//go:build linux

package pages

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/test/integration/harness"
	"github.com/distlimiter/ratelimit/test/namespace"
)

func TestMain(m *testing.M) { os.Exit(namespace.Main(m, build)) }

// build compiles the service as the image has it.
func build(dir string) error {
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "bin", "ratelimit"), "./cmd/ratelimit")
	build.Dir, build.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", build, err, out)
	}
	return nil
}

// markdown returns the pages by their path in the repository.
func markdown(t *testing.T) map[string]string {
	t.Helper()
	root := harness.Root(t)
	pages := map[string]string{}
	read := func(name string) {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		pages[name] = string(text)
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md"} {
		read(name)
	}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".md" {
			name, _ := filepath.Rel(root, path)
			read(filepath.ToSlash(name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// TestCommands runs the commands of each page.
func TestCommands(t *testing.T) {
	texts := markdown(t)
	for name := range expected {
		if texts[name] == "" {
			t.Errorf("%s is listed in expected, and has gone", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		var shown []command
		for _, b := range blocks(texts[name]) {
			if slices.Contains([]string{"console", "sh", "bash", "shell"}, b.language) {
				shown = append(shown, commands(b)...)
			}
		}
		if len(shown) > 0 {
			t.Run(name, func(t *testing.T) { runPage(t, name, shown) })
		}
	}
}

func runPage(t *testing.T, name string, shown []command) {
	page := expected[name]
	left := maps.Clone(page.notRun)
	var s *session
	for _, c := range shown {
		text := strings.TrimSpace(c.text)
		if prefix := longestPrefix(maps.Keys(page.notRun), text); prefix != "" {
			delete(left, prefix)
			continue
		}
		if longestPrefix(maps.Keys(elsewhere), text) != "" {
			continue
		}
		if s == nil {
			s = newSession(t, strings.Join([]string{
				filepath.Join(namespace.Dir(), "bin"), filepath.Dir(harness.Tool(t, "envoy")), os.Getenv("PATH"),
			}, ":"))
			for _, e := range page.setup {
				e.prepare(t, s)
			}
		}
		if prefix := longestPrefix(maps.Keys(daemons), text); prefix != "" {
			s.start(t, text, daemons[prefix])
			continue
		}
		code, output := s.run(t, text)
		switch {
		case c.exact && c.shown != "":
			if !shows(c.shown, output) {
				t.Errorf("%s:%d: %s\nprints\n%s\nand the page shows\n%s", name, c.line, text, output, c.shown)
			}
		case code != 0:
			t.Errorf("%s:%d: %s\nends with %d:\n%s", name, c.line, text, code, output)
		}
	}
	for prefix := range left {
		t.Errorf("%s has no command %q, which is listed as one that does not run", name, prefix)
	}
}

// longestPrefix returns the longest of prefixes with which text begins; empty if there is
// none.
func longestPrefix(prefixes func(func(string) bool), text string) string {
	longest := ""
	for prefix := range prefixes {
		if strings.HasPrefix(text, prefix) && len(prefix) > len(longest) {
			longest = prefix
		}
	}
	return longest
}

var (
	ruleFile   = regexp.MustCompile(`\A(?:#.*\n|---\n)*(?:domain|adjust|limits|descriptors|  - key):`)
	complete   = regexp.MustCompile(`(?m)^(?:domain|adjust|rules):`)
	descriptor = regexp.MustCompile(`\A  - key:`)
	testFile   = regexp.MustCompile(`(?m)^tests:`)
)

// TestRulesOnPagesAreValid gives each rule file of each page to check. Where a page shows a
// part of one, the test adds what is above it.
func TestRulesOnPagesAreValid(t *testing.T) {
	root, checked := harness.Root(t), 0
	for name, text := range markdown(t) {
		for _, b := range blocks(text) {
			command := "check"
			switch {
			case b.language != "yaml" || strings.Contains(b.text, "…"): // which stands for what is left out
				continue
			case testFile.MatchString(b.text):
				command = "test"
			case !ruleFile.MatchString(b.text):
				continue
			}
			if descriptor.MatchString(b.text) {
				b.text = "descriptors:\n" + b.text
			}
			if !complete.MatchString(b.text) {
				b.text = "domain: example\n" + b.text
			}
			checked++
			check := exec.Command(filepath.Join(namespace.Dir(), "bin", "ratelimit"), command, "-")
			check.Dir = filepath.Join(root, "config", "tests") // from where tests name their rules
			check.Stdin = strings.NewReader(b.text)
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%s:%d: %v: %v\n%s", name, b.line, check, err, out)
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d rule files were found", checked)
	}
}
