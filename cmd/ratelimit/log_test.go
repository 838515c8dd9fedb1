package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestJSONLog holds that with LOG_FORMAT=json all that the service writes is JSON,
// every writer's alike, and that one line says what it has started with.
func TestJSONLog(t *testing.T) {
	program, err := exec.LookPath("ratelimit")
	if err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rules, []byte("domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: minute, requests_per_unit: 5}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A library writes to the log when the statsd server is away.
	start := func(flags ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), program, append([]string{
			"serve", "--config", rules, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--drain-timeout", "100ms",
		}, flags...)...)
		cmd.Env = append(os.Environ(), "LOG_FORMAT=json", "STATSD_HOST=127.0.0.1", "STATSD_PORT=1", "GORACE=atexit_sleep_ms=10")
		return cmd
	}
	t.Run("serving", func(t *testing.T) {
		cmd := start()
		var out bytes.Buffer
		cmd.Stdout = &out
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var started map[string]any
		statsd, stopped := false, false
		for lines := json.NewDecoder(stderr); lines.More(); {
			var line map[string]any
			if err := lines.Decode(&line); err != nil {
				t.Fatal(err)
			}
			if line["@message"] == "started" {
				started = line
			}
			statsd = statsd || line["logger"] == "statsd"
			if started != nil && statsd && !stopped {
				stopped = true
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if out.Len() > 0 {
			t.Errorf("on stdout: %s", &out)
		}
		for field, want := range map[string]any{"domains": 1.0, "rules": 1.0, "level": "info"} {
			if started[field] != want {
				t.Errorf("started with %v %v, want %v", field, started[field], want)
			}
		}
		for _, field := range []string{"grpc", "http", "admin"} {
			if addr, _ := started[field].(string); !strings.HasPrefix(addr, "127.0.0.1:") {
				t.Errorf("started with %v %q", field, addr)
			}
		}
		if try, _ := started["try"].(string); !strings.HasPrefix(try, "ratelimit hit --domain ") {
			t.Errorf("to try: %q", try)
		}
	})
	t.Run("failing", func(t *testing.T) {
		out, err := start("--grpc-addr", "nowhere:x").CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitFailure {
			t.Errorf("ended with %v", err)
		}
		said := false
		for line := range bytes.Lines(out) {
			var fields map[string]any
			if err := json.Unmarshal(line, &fields); err != nil {
				t.Errorf("not JSON: %s", line)
			}
			text, _ := fields["error"].(string)
			said = said || strings.Contains(text, "--grpc-addr")
		}
		if !said {
			t.Errorf("the reason is not in the log:\n%s", out)
		}
	})
}
