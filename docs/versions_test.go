package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

var (
	// newest is the newest version of the changelog, with its date or "unreleased".
	newest = regexp.MustCompile(`(?m)^## (\d+\.\d+\.\d+) - (?:unreleased|\d{4}-\d{2}-\d{2})$`)
	image  = regexp.MustCompile(`distlimiter/ratelimit:([\w.-]+)`)
)

// newestVersion returns the newest version of the changelog.
func newestVersion(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := newest.FindSubmatch(text)
	if found == nil {
		t.Fatal("CHANGELOG.md has no heading such as ## 0.1.0 - unreleased, or with a date")
	}
	return string(found[1])
}

// TestVersionsAgree holds the chart, the Python package, and the image wherever it is named,
// to the newest version of the changelog.
func TestVersionsAgree(t *testing.T) {
	root := ".."
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	version := newestVersion(t)

	var chart struct {
		Version    string
		AppVersion string `yaml:"appVersion"`
	}
	if err := yaml.Unmarshal([]byte(read(filepath.Join(root, "deploy", "helm", "distlimiter", "Chart.yaml"))), &chart); err != nil {
		t.Fatal(err)
	}
	if chart.Version != version || chart.AppVersion != version {
		t.Errorf("Chart.yaml has version %s and appVersion %s, and CHANGELOG.md %s", chart.Version, chart.AppVersion, version)
	}

	python := regexp.MustCompile(`(?m)^version = "(.*)"$`).FindStringSubmatch(read(filepath.Join(root, "clients", "python", "pyproject.toml")))
	if len(python) < 2 || python[1] != version {
		t.Errorf("pyproject.toml has version %q, and CHANGELOG.md %s", python, version)
	}

	images := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch extension := filepath.Ext(path); {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && path != root || entry.Name() == "bin"):
			return filepath.SkipDir
		case entry.IsDir() || extension != ".md" && extension != ".yaml":
			return nil
		}
		for _, found := range image.FindAllStringSubmatch(read(path), -1) {
			images++
			if found[1] != version {
				t.Errorf("%s names the image %s, and CHANGELOG.md has version %s", path, found[0], version)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if images == 0 {
		t.Error("no file names the image")
	}
}

// TestPythonPackageHasTheLicense: an archive of the package holds only files of its directory.
func TestPythonPackageHasTheLicense(t *testing.T) {
	ours, err := os.ReadFile(filepath.Join("..", "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	if packaged, err := os.ReadFile(filepath.Join("..", "clients", "python", "LICENSE")); err != nil || string(packaged) != string(ours) {
		t.Errorf("clients/python/LICENSE is not LICENSE (%v)", err)
	}
}

// TestChartIsWhereItIsPushed: users install the chart from where a release puts it.
func TestChartIsWhereItIsPushed(t *testing.T) {
	pages := pagesByPath(t)
	pushed := regexp.MustCompile("helm push distlimiter-([\\d.]+)\\.tgz (oci://[^`\\s]+)`").FindStringSubmatch(pages["docs/dev/releasing.md"])
	if pushed == nil {
		t.Fatal("docs/dev/releasing.md pushes no chart")
	}
	address := pushed[2] + "/distlimiter"
	for page, want := range map[string]string{
		"README.md":      "helm install distlimiter " + address + " --version " + pushed[1] + "\n",
		"docs/deploy.md": "`" + address + "`",
	} {
		if !strings.Contains(pages[page], want) {
			t.Errorf("%s does not have %q", page, want)
		}
	}
	if version := newestVersion(t); version != pushed[1] {
		t.Errorf("the chart is pushed as %s, and CHANGELOG.md has version %s", pushed[1], version)
	}
}
