package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestStructureHasEveryPackage compares dev/structure.md with the directories that it is
// about: each package of the service has its place there, and each that is named exists.
func TestStructureHasEveryPackage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("dev", "structure.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"internal/*", "cmd/*"} {
		found, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range found {
			name := strings.TrimPrefix(filepath.ToSlash(dir), "../")
			if sources, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(sources) > 0 && !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("docs/dev/structure.md does not say what %s is", name)
			}
		}
	}
	for _, named := range regexp.MustCompile("`((?:internal|test|cmd|config|docs|client|clients|bench|deploy|envoy)(?:/\\w+)*)`").FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(named[1]))); err != nil {
			t.Errorf("docs/dev/structure.md: %v", err)
		}
	}
}
