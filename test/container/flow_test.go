//go:build linux

package container

import (
	"debug/elf"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// isStatic fails the test if a program needs a loader or a library.
func isStatic(t *testing.T, path string) {
	t.Helper()
	program, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is linked dynamically: %v", path, segment.Type)
		}
	}
}

// rulesOf returns a directory with a file of config/examples, inYears.
func rulesOf(t *testing.T, file string) string {
	t.Helper()
	rules, err := os.ReadFile(filepath.Join(harness.Root(t), "config", "examples", file))
	if err != nil {
		t.Fatal(err)
	}
	dir := shared(t)
	write(t, filepath.Join(dir, file), inYears(string(rules)))
	return dir
}

// inYears gives limits years for their units, so that no window ends, and nothing
// is refilled, during a test.
func inYears(rules string) string {
	return regexp.MustCompile(`\bunit: \w+`).ReplaceAllString(rules, "unit: year")
}

// shared returns a temporary directory that every user may read.
func shared(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// healthy waits until /healthcheck says so on the port of loopback.
func healthy(t *testing.T, port int) {
	t.Helper()
	harness.Eventually(t, "/healthcheck is OK", func() bool { return status(port, "/healthcheck") == http.StatusOK })
}

// status returns the HTTP status of a page, 0 if there is no answer.
func status(port int, path string) int {
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return 0
	}
	answer.Body.Close()
	return answer.StatusCode
}

// exhaust makes n requests through Envoy that pass and one that does not.
func exhaust(t *testing.T, envoy *harness.Envoy, n int, path string, headers ...string) {
	t.Helper()
	for i := range n + 1 {
		want := http.StatusOK
		if i == n {
			want = http.StatusTooManyRequests
		}
		if answer := envoy.Get(t, path, headers...); answer.Status != want {
			t.Fatalf("request %d with %v: status %d, want %d; %v", i+1, headers, answer.Status, want, answer.Header)
		}
	}
}

func TestMainFlow(t *testing.T) {
	readImage(t).start(t, container{
		env:    map[string]string{"CONFIG_PATH": "/config"},
		mounts: map[string]string{"/config": rulesOf(t, "edge.yaml")},
	})
	healthy(t, 8080)
	envoy := harness.StartEnvoy(t, "http.yaml", harness.ServiceAt(t, 8081))
	exhaust(t, envoy, 10, "/", "x-user", "alice")
	exhaust(t, envoy, 30, "/login")
	if answer := envoy.Get(t, "/", "x-user", "bob"); answer.Status != http.StatusOK || answer.Header.Get("X-Ratelimit-Remaining") != "9" {
		t.Errorf("another user: %d %v", answer.Status, answer.Header)
	}
}

func TestRootCannotBeWritten(t *testing.T) {
	command := readImage(t).prepare(t, container{
		env:    map[string]string{"CONFIG_PATH": "/config", "SNAPSHOT_FILE": "/snapshot"},
		mounts: map[string]string{"/config": rulesOf(t, "edge.yaml")},
		uid:    0,
	})
	command.SysProcAttr.Credential.Uid, command.SysProcAttr.Credential.Gid = 0, 0 // not for want of rights
	out, err := command.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "read-only file system") {
		t.Errorf("it could write: %v\n%s", err, out)
	}
}
