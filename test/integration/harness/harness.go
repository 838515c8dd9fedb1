// Package harness starts the real programs that integration tests run against: Envoy, and
// this project's binary, usually built with the race detector. It owns their ports,
// readiness, output and end. The expected answers are left to the tests.
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

// timeout bounds every wait. It matters only when a test fails.
const timeout = 2 * time.Minute

// binary is the path of cmd/ratelimit, set by Main before any test runs.
var binary string

// Main builds cmd/ratelimit with the race detector, runs the tests and returns their
// exit code. A package that calls StartService calls it from TestMain.
func Main(m *testing.M) int { return run(m, nil, "-race") }

// MainAsShipped is Main without the race detector. It builds the binary like that of the
// image, and so shares the build cache with it.
func MainAsShipped(m *testing.M) int { return run(m, []string{"CGO_ENABLED=0"}, "-trimpath") }

func run(m *testing.M, environment []string, flags ...string) int {
	dir, err := os.MkdirTemp("", "ratelimit-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "ratelimit")
	// Nobody debugs it, and to link it takes less time without what debuggers need.
	args := append(append([]string{"build", "-ldflags=-s -w"}, flags...), "-o", binary, "./cmd/ratelimit")
	build := exec.Command("go", args...)
	build.Env = append(os.Environ(), environment...)
	if build.Dir, err = root(); err != nil { // the module of the service, not of the tests
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %v\n%s", build, err, out)
		return 1
	}
	return m.Run()
}

// Root returns the directory of the repository, which is the directory of the service's
// module.
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

// Eventually waits until ok returns true, or fails the test with what. It is for the state
// of other processes, which send no events.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", timeout, what)
		}
	}
}
