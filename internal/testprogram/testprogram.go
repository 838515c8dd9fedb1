// Package testprogram finds the real programs that tests run against, such as
// redis-server and Envoy, and decides what a missing one means. By default it skips the
// test, so that contributors can run tests with the programs that they have. It fails the
// test if [Required] is set.
package testprogram

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Required is the environment variable that makes a missing program fail a test.
// `make test` sets it, because a skipped test would look like a passed one.
const Required = "TEST_PROGRAMS_REQUIRED"

// install names the command that installs a program, if it is not `make tools`.
var install = map[string]string{
	"redis-server":   "apt-get install redis-server, or brew install redis",
	"redis-sentinel": "apt-get install redis-sentinel, or brew install redis",
	"promtool":       "apt-get install prometheus, or brew install prometheus",
	"chromium":       "apt-get install chromium, or brew install chromium",
	"gcc":            "apt-get install gcc libc6-dev",
}

// Path returns the path of a program: the one that `make tools` has put into .cache/bin,
// or else the one on PATH. Without either, the test is skipped, or fails if [Required] is
// set; the message says how to install the program. With -short, which is for quick runs,
// tests that run programs are always skipped.
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

// find returns the path of a program; empty if there is none.
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

// pinned returns the program in .cache/bin of the directory of the test, or of a directory
// above it; empty if there is none.
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
