// Package integration tests the whole path over HTTP: a client, the real Envoy
// with the configurations of envoy/, and this project's binary with the rules of
// config/examples.
//
// The tests run beside each other, each with programs of its own, except those that measure
// how long the machine takes.
package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// start serves rules and runs Envoy with a file of envoy/ in front of it.
func start(t *testing.T, file, rules string, settings ...string) (*harness.Service, *harness.Envoy) {
	t.Helper()
	service := startService(t, rules, settings...)
	return service, harness.StartEnvoy(t, file, service)
}

func startService(t *testing.T, rules string, settings ...string) *harness.Service {
	t.Helper()
	return harness.StartService(t, writeRules(t, rules), settings...)
}

func writeRules(t *testing.T, rules string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, rules)
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// example returns the rules of a file in config/examples, with years for their
// units, so that no window ends during a test.
func example(t *testing.T, file string) string {
	t.Helper()
	rules, err := os.ReadFile(filepath.Join(harness.Root(t), "config", "examples", file))
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`\bunit: \w+`).ReplaceAllString(string(rules), "unit: year")
}

// get requests / with headers, and fails the test unless the answer has the status.
func get(t *testing.T, envoy *harness.Envoy, status int, headers ...string) harness.Answer {
	t.Helper()
	answer := envoy.Get(t, "/", headers...)
	if answer.Status != status {
		t.Fatalf("with %v: status %d, want %d; %v", headers, answer.Status, status, answer.Header)
	}
	return answer
}

// exhaust makes n requests that pass and one that does not.
func exhaust(t *testing.T, envoy *harness.Envoy, n int, headers ...string) {
	t.Helper()
	for range n {
		get(t, envoy, http.StatusOK, headers...)
	}
	get(t, envoy, http.StatusTooManyRequests, headers...)
}

// remaining fails the test unless the answer says that n hits are left.
func remaining(t *testing.T, answer harness.Answer, n int) {
	t.Helper()
	if got := answer.Header.Get("X-Ratelimit-Remaining"); got != fmt.Sprint(n) {
		t.Fatalf("%q remaining, want %d; %v", got, n, answer.Header)
	}
}
