// Package testprogram finds the real programs that tests run against, such as
// redis-server and Envoy, and decides what a missing one means: it skips the test
// where a contributor runs tests with what is at hand, and fails the test where
// everything must run.
package testprogram

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Required is the environment variable that makes a missing program fail a test.
// `make test` sets it: a skipped test would pass for a good one.
const Required = "TEST_PROGRAMS_REQUIRED"

// install names the command that installs a program, where it is not `make tools`.
var install = map[string]string{
	"redis-server":   "apt-get install redis-server, or brew install redis",
	"redis-sentinel": "apt-get install redis-sentinel, or brew install redis",
	"promtool":       "apt-get install prometheus, or brew install prometheus",
	"chromium":       "apt-get install chromium, or brew install chromium",
	"gcc":            "apt-get install gcc libc6-dev",
}

// Path returns the path of a program: the one that `make tools` has put into
// .cache/bin, or else the one on PATH. Without either, the test is skipped, or fails
// if [Required] is set; the message tells how to install the program. With -short,
// which is for a quick look, tests that run programs are skipped too.
func Path(t testing.TB, name string) string {
	t.Helper()
	required := os.Getenv(Required) != ""
	if path := find(t, name); path != "" {
		if testing.Short() && !required {
			t.Skipf("runs %s: left out with -short", name)
		}
		return path
	}
	remedy := "make tools"
	if command, ok := install[name]; ok {
		remedy += ", or " + command
	}
	if required {
		t.Fatalf("needs %s: %s", name, remedy)
	}
	t.Skipf("needs %s: %s", name, remedy)
	return ""
}

// find returns the path of a program, or nothing.
func find(t testing.TB, name string) string {
	t.Helper()
	if path := pinned(t, name); path != "" {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// pinned returns the program in .cache/bin of the directory of the test, or of one
// above it; nothing if there is none.
func pinned(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		path := filepath.Join(dir, ".cache", "bin", name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
}
