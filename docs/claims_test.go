package docs

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	function  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w*)\(`)
	named     = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")
	script    = regexp.MustCompile("`(\\w+\\.txtar)`")
	claimRow  = regexp.MustCompile(`(?m)^\| (.+?) \| \[[^]]+\]\(([^)]+)\) \| (.+) \|$`)
	inPackage = regexp.MustCompile("^((?:`\\w+`(?:, )?)+) in `([^`]+)`$")
)

// TestNamedTestsExist looks for each test that a page names.
func TestNamedTestsExist(t *testing.T) {
	exist, names := testsByPackage(t), 0
	all := map[string]bool{}
	for _, functions := range exist {
		for name := range functions {
			all[name] = true
		}
	}
	for page, text := range pagesByPath(t) {
		for _, found := range named.FindAllStringSubmatch(text, -1) {
			names++
			if !all[found[1]] {
				t.Errorf("%s names %s, which is no test", page, found[1])
			}
		}
		for _, found := range script.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join("..", "cmd", "ratelimit", "testdata", "script", found[1])); err != nil {
				t.Errorf("%s names %s: %v", page, found[1], err)
			}
		}
	}
	if names < 50 {
		t.Errorf("only %d tests are named", names)
	}
}

// TestClaimsHaveTests wants each claim of dev/claims.md to have tests in the packages that it
// names, and each claim of the README, and each page that names no test itself, to be there.
func TestClaimsHaveTests(t *testing.T) {
	exist, pages := testsByPackage(t), pagesByPath(t)
	claims := claimRow.FindAllStringSubmatch(pages["docs/dev/claims.md"], -1)
	if rows := strings.Count(pages["docs/dev/claims.md"], "\n| ") - 2; len(claims) != rows {
		t.Errorf("docs/dev/claims.md has %d rows, of which %d have a claim, a link and tests", rows, len(claims))
	}
	claimed := map[string]bool{} // by the link that the README would have
	for _, claim := range claims {
		claimed[path.Join("docs/dev", claim[2])] = true
		for tests := range strings.SplitSeq(claim[3], "; ") {
			if tests == "`make test-python`" {
				continue
			}
			parts := inPackage.FindStringSubmatch(tests)
			if parts == nil {
				t.Errorf("%q: write its tests as `TestA`, `TestB` in `package`; …: %s", claim[1], tests)
				continue
			}
			for name := range strings.SplitSeq(strings.ReplaceAll(parts[1], "`", ""), ", ") {
				if !exist[parts[2]][name] {
					t.Errorf("%q: %s has no %s", claim[1], parts[2], name)
				}
			}
		}
	}
	for page, text := range pages {
		if path.Dir(page) == "docs" && !named.MatchString(text) && !claimed[page] {
			t.Errorf("%s names no test, and docs/dev/claims.md has no row for it", page)
		}
	}
	const heading = "## What we found in none of the three\n"
	_, section, found := strings.Cut(pages["README.md"], heading)
	if !found {
		t.Fatalf("README.md has no %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	_, bullets, _ := strings.Cut(section, "\n- ")
	for bullet := range strings.SplitSeq(bullets, "\n- ") {
		if target := link.FindStringSubmatch(bullet); len(target) < 2 || !claimed[target[1]] {
			t.Errorf("docs/dev/claims.md has no row with the page of this claim of the README: %s", bullet)
		}
	}
}

// TestFiguresOfTheREADMEAreMeasured wants each figure that the README has beside others to be
// in performance.md, where it has its method.
func TestFiguresOfTheREADMEAreMeasured(t *testing.T) {
	pages, figures := pagesByPath(t), regexp.MustCompile(`\d[\d,.]*\d|\d`)
	_, table, found := strings.Cut(pages["README.md"], "## Beside what you would use instead\n")
	_, measured, has := strings.Cut(pages["docs/performance.md"], "## Beside other services\n")
	if !found || !has {
		t.Fatal("README.md or docs/performance.md has no figures beside other services")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	known := map[string]bool{}
	for _, figure := range figures.FindAllString(measured, -1) {
		known[figure] = true
	}
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 {
			continue
		}
		rows++
		for _, cell := range cells[2:] {
			for _, figure := range figures.FindAllString(cell, -1) {
				if !known[figure] {
					t.Errorf("docs/performance.md does not have %s of the README: %s", figure, line)
				}
			}
		}
	}
	if rows < 5 {
		t.Errorf("only %d rows with figures", rows)
	}
}

// TestEveryExampleIsOnAPage looks for a link to each file from which users can start.
func TestEveryExampleIsOnAPage(t *testing.T) {
	page := pagesByPath(t)["docs/envoy.md"]
	for _, dir := range []string{"envoy", "config/examples"} {
		files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(dir), "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files (%v)", dir, err)
		}
		for _, file := range files {
			if name := dir + "/" + filepath.Base(file); !strings.Contains(page, "(../"+name+")") {
				t.Errorf("docs/envoy.md does not link to %s", name)
			}
		}
	}
}

// testsByPackage returns the names of all tests, fuzz targets and benchmarks, by directory.
func testsByPackage(t *testing.T) map[string]map[string]bool {
	t.Helper()
	tests := map[string]map[string]bool{}
	walk(t, "_test.go", func(name, text string) {
		dir := path.Dir(name)
		if tests[dir] == nil {
			tests[dir] = map[string]bool{}
		}
		for _, found := range function.FindAllStringSubmatch(text, -1) {
			tests[dir][found[1]] = true
		}
	})
	return tests
}

// pagesByPath returns the text of all Markdown files but the changelog, whose entries are of
// their time.
func pagesByPath(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	walk(t, ".md", func(name, text string) {
		if name != "CHANGELOG.md" {
			pages[name] = text
		}
	})
	return pages
}

// walk calls visit with the files of the repository whose names end in suffix.
func walk(t *testing.T, suffix string, visit func(name, text string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && file != "..":
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(file, suffix):
			return nil
		}
		text, err := os.ReadFile(file)
		if err == nil {
			visit(strings.TrimPrefix(filepath.ToSlash(file), "../"), string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
