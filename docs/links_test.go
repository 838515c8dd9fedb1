// Package docs holds the pages for users. Its tests check their links, tables, versions and
// words.
package docs

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile("(?m)^#+ (.+)$")
	fenced  = regexp.MustCompile("(?ms)^```.*?\n```")
)

// anchor returns the fragment of a link to a heading, by the rules of GitHub.
func anchor(title string) string {
	kept := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r > 127:
			return r
		}
		return -1
	}, strings.ToLower(title))
	return kept
}

// TestLinks follows each link of each Markdown file to a file of the repository, and
// to a heading there.
func TestLinks(t *testing.T) {
	root := ".."
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root:
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, found := range link.FindAllStringSubmatch(fenced.ReplaceAllString(string(text), ""), -1) {
			u, err := url.Parse(found[1])
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			if u.Scheme != "" {
				continue
			}
			target := path
			if u.Path != "" {
				target = filepath.Join(filepath.Dir(path), u.Path)
			}
			follow(t, path, found[1], target, u.Fragment)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// follow checks that the target of a link exists.
func follow(t *testing.T, path, written, target, fragment string) {
	t.Helper()
	if _, err := os.Stat(target); err != nil {
		t.Errorf("%s: the link %s leads nowhere", path, written)
		return
	}
	if fragment == "" {
		return
	}
	text, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	for _, title := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(string(text), ""), -1) {
		if anchor(title[1]) == fragment {
			return
		}
	}
	t.Errorf("%s: the link %s leads to no heading of %s", path, written, target)
}
