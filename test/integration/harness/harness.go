// Package harness starts the real programs that integration tests run against:
// this project's binary, as a rule built with the race detector, and Envoy. It owns
// their ports, readiness, output and end; what they should answer is left to the tests.
package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/testprogram"
)

// patience is how long anything awaited may take. It bounds failing tests only.
const patience = 30 * time.Second

// binary is the path of cmd/ratelimit, set by Main before any test runs.
var binary string

// Main builds cmd/ratelimit with the race detector, runs the tests and returns their
// exit code. A package that calls StartService calls it from TestMain.
func Main(m *testing.M) int { return run(m, nil, "-race") }

// MainAsShipped is Main without the race detector: the binary is built as that of the
// image is, with which it shares what was compiled.
func MainAsShipped(m *testing.M) int { return run(m, []string{"CGO_ENABLED=0"}, "-trimpath") }

func run(m *testing.M, environment []string, flags ...string) int {
	dir, err := os.MkdirTemp("", "ratelimit-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "ratelimit")
	args := append(append([]string{"build"}, flags...), "-o", binary, "./cmd/ratelimit")
	build := exec.Command("go", args...)
	build.Env = append(os.Environ(), environment...)
	if build.Dir, err = root(); err != nil { // with the requirements of the service, and not of the tests
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %v\n%s", build, err, out)
		return 1
	}
	return m.Run()
}

// Root returns the directory of the repository, which is that of the service's module.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// root returns the directory above that of the tests' module.
func root() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(filepath.Dir(strings.TrimSpace(string(mod)))), nil
}

// Tool returns the path of a program, as [testprogram.Path] does.
func Tool(t testing.TB, name string) string {
	t.Helper()
	return testprogram.Path(t, name)
}

// Eventually waits until ok holds, and fails the test with what was awaited if it
// does not. It is for the state of other processes, which send no event.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
