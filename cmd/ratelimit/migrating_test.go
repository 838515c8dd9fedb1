package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/tlsfiles/tlstest"
)

// migrationRows returns what docs/migrating.md says of each variable.
func migrationRows(t *testing.T) map[string]string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(doc), "## Environment variables\n")
	if !found {
		t.Fatal("docs/migrating.md has no section on environment variables")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([a-z ]+) \\| (.*) \\|$").FindAllStringSubmatch(section, -1) {
		name, state, remark := row[1], row[2], strings.TrimSpace(row[3])
		if rows[name] != "" {
			t.Errorf("docs/migrating.md has two rows for %s", name)
		}
		if !slices.Contains([]string{"same", "mapped", "no effect"}, state) || state != "same" && remark == "" {
			t.Errorf("%s is %q, with the remark %q", name, state, remark)
		}
		rows[name] = state
	}
	return rows
}

// TestMigration starts the bare binary with each of the incumbent's variables, and
// wants docs/migrating.md to have a row for each. What the table calls without effect
// is said to be so in the log, and nothing else is.
func TestMigration(t *testing.T) {
	list, err := os.ReadFile("testdata/incumbent.txt")
	if err != nil {
		t.Fatal(err)
	}
	given := migrationGivens(t)
	rows := migrationRows(t)
	t.Run("variables", func(t *testing.T) {
		for line := range strings.Lines(string(list)) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			fields := strings.Fields(os.Expand(line, func(name string) string {
				value, known := given[name]
				if !known {
					t.Fatalf("nothing stands for $%s in %q", name, line)
				}
				return value
			}))
			name := fields[0]
			state := rows[name]
			if state == "" {
				t.Errorf("docs/migrating.md has no row for %s", name)
			}
			delete(rows, name)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				log := startAndStop(t, append(fields[2:], name+"="+fields[1], "RUNTIME_ROOT="+given["dir"])...)
				said := strings.Contains(log, strings.Replace(name, "_PERSECOND", "", 1)+" has no effect")
				if ignored := state == "no effect"; said != ignored {
					t.Errorf("docs/migrating.md says %q; the log says that it has no effect: %v; it is:\n%s", state, said, log)
				}
			})
		}
	})
	for name := range rows {
		t.Errorf("docs/migrating.md has a row for %s, which testdata/incumbent.txt does not list", name)
	}
}

// migrationGivens makes what variables need: rules, certificates, servers.
func migrationGivens(t *testing.T) map[string]string {
	t.Helper()
	given := map[string]string{"dir": t.TempDir(), "password": "hush"}
	const rules = "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: year, requests_per_unit: 5}}\n"
	for _, path := range []string{"config", "app", "sub/config"} {
		dir := filepath.Join(given["dir"], path)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	authority := tlstest.NewAuthority(t)
	given["ca"] = authority.File
	given["cert"], given["key"] = authority.Issue("server", "127.0.0.1", time.Hour)
	given["redis"] = redistest.Start(t, redistest.Config{}).Addr
	given["guarded"] = redistest.Start(t, redistest.Config{Password: given["password"]}).Addr
	return given
}

// startAndStop runs the bare binary with these variables until it serves, ends it, and
// returns its log.
func startAndStop(t *testing.T, variables ...string) string {
	t.Helper()
	program, err := exec.LookPath("ratelimit")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	// What is given last counts: a variable may be one of these.
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=10",
		"GRPC_HOST=127.0.0.1", "GRPC_PORT=0", "HOST=127.0.0.1", "PORT=0", "DEBUG_HOST=127.0.0.1", "DEBUG_PORT=0",
	}, slices.Concat(variables[len(variables)-1:], variables[:len(variables)-1])...)
	out, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close() // the process has it
	var log strings.Builder
	serves := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(&log, lines.Text())
		if strings.HasPrefix(lines.Text(), "Rules ") || strings.Contains(lines.Text(), `"@message":"started"`) {
			serves = true
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !serves {
		t.Errorf("with %q: serves: %v, ended with %v; its log:\n%s", variables, serves, err, log.String())
	}
	return log.String()
}
