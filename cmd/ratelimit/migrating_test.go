package main

import (
	"bufio"
	"fmt"
	"maps"
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

// TestMigration starts the bare binary with each variable of envoyproxy/ratelimit, and
// wants docs/migrating.md to have a row for each. What the table calls without effect is
// said to be so in the log, and nothing else is; of all others the effect is seen.
func TestMigration(t *testing.T) {
	list, err := os.ReadFile("testdata/envoyproxy.txt")
	if err != nil {
		t.Fatal(err)
	}
	given, servers := migrationGivens(t)
	rows, unseen := migrationRows(t), maps.Clone(effects)
	t.Run("variables", func(t *testing.T) {
		for line := range strings.Lines(string(list)) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			name, _, _ := strings.Cut(line, " ")
			state, effect := rows[name], effects[name]
			if state == "" {
				t.Errorf("docs/migrating.md has no row for %s", name)
			}
			delete(rows, name)
			delete(unseen, name)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				m := &migrated{T: t, name: name, given: given, servers: servers}
				fields := strings.Fields(os.Expand(line, m.give))
				variables := slices.Concat(fields[2:], []string{name + "=" + fields[1]})
				if strings.Contains(line, "REDIS_") {
					variables = append(variables, "REDIS_PLAIN_KEYS=true") // that tell whose they are
				}
				log := m.startAndStop(effect.live, append(variables, "RUNTIME_ROOT="+given["dir"])...)
				said := strings.Contains(log, strings.Replace(name, "_PERSECOND", "", 1)+" has no effect: ")
				ignored := state == "no effect"
				if said != ignored {
					t.Errorf("docs/migrating.md says %q; the log says that it has no effect: %v; it is:\n%s", state, said, log)
				}
				switch {
				case effect.test != "":
					exists(t, effect.test)
				case effect.after != nil:
					effect.after(m, log)
				}
				if seen := effect.live != nil || effect.after != nil || effect.test != ""; seen == ignored {
					t.Errorf("docs/migrating.md says %q; its effect is looked at: %v", state, seen)
				}
			})
		}
	})
	for name := range rows {
		t.Errorf("docs/migrating.md has a row for %s, which testdata/envoyproxy.txt does not list", name)
	}
	for name := range unseen {
		t.Errorf("testdata/envoyproxy.txt does not list %s, of which there is an effect", name)
	}
}

// migrationGivens makes what variables need: rules, certificates, servers.
func migrationGivens(t *testing.T) (given map[string]string, servers map[string]*redistest.Server) {
	t.Helper()
	given = map[string]string{"dir": t.TempDir(), "password": "hush"}
	domain := func(name, more string) string {
		return "domain: " + name + "\ndescriptors:\n  - {key: user, rate_limit: {unit: year, requests_per_unit: 5}}\n" + more
	}
	edge := domain("edge", `  - {key: other, rate_limit: {unit: year, requests_per_unit: 100}}
  - {key: second, rate_limit: {unit: second, requests_per_unit: 1000000}}
  - {key: bucket, rate_limit: {algorithm: token_bucket, unit: year, requests_per_unit: 1}}
`)
	for path, text := range map[string]string{
		"config/rules.yaml": edge, "app/rules.yaml": domain("app", ""), "sub/config/rules.yaml": domain("sub", ""),
		"broken/config/rules.yaml": "domain: [", "dots/config/rules.yaml": edge, "dots/config/.rules.yaml": "domain: [",
		"merge/config/a.yaml": edge, "merge/config/b.yaml": "domain: edge\ndescriptors:\n  - {key: plan, rate_limit: {unit: year, requests_per_unit: 5}}\n",
	} {
		file := filepath.Join(given["dir"], path)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	authority := tlstest.NewAuthority(t)
	given["ca"] = authority.File
	given["cert"], given["key"] = authority.Issue("server", "127.0.0.1", time.Hour)
	given["envoycert"], given["envoykey"] = authority.Issue("envoy", "envoy", time.Hour)
	redisTLS := redistest.NewTLS(t)
	given["redisca"], given["rediscert"], given["rediskey"] = redisTLS.CA, redisTLS.ClientCert, redisTLS.ClientKey
	servers = map[string]*redistest.Server{
		"redis": redistest.Start(t, redistest.Config{}), "second": redistest.Start(t, redistest.Config{}),
		"guarded": redistest.Start(t, redistest.Config{Password: given["password"]}), "secure": redistest.Start(t, redistest.Config{TLS: redisTLS}),
	}
	for name, server := range servers {
		given[name] = server.Addr
	}
	return given, servers
}

var address = regexp.MustCompile(`(?i)(?m)^(grpc|http|admin) +(\S+)$|"(grpc|http|admin)":"([^"]+)"`)

// startAndStop runs the bare binary with these variables until it serves, looks at it,
// ends it, and returns its log.
func (m *migrated) startAndStop(look func(*migrated), variables ...string) string {
	m.Helper()
	program, err := exec.LookPath("ratelimit")
	if err != nil {
		m.Fatal(err)
	}
	cmd := exec.CommandContext(m.Context(), program)
	// What is given last counts: a variable may be one of these.
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=10",
		"GRPC_HOST=127.0.0.1", "GRPC_PORT=0", "HOST=127.0.0.1", "PORT=0", "DEBUG_HOST=127.0.0.1", "DEBUG_PORT=0",
	}, slices.Concat(variables[len(variables)-1:], variables[:len(variables)-1])...)
	out, write, err := os.Pipe()
	if err != nil {
		m.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	_ = write.Close() // the process has it
	serves, written := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		once := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(&m.log, lines.Text())
			if !once && (strings.HasPrefix(lines.Text(), "Rules ") || strings.Contains(lines.Text(), `"@message":"started"`)) {
				once = true
				close(serves)
			}
		}
	}()
	select {
	case <-serves:
		for _, found := range address.FindAllStringSubmatch(m.log.String(), -1) {
			switch strings.ToLower(found[1] + found[3]) {
			case "grpc":
				m.grpc = found[2] + found[4]
			case "http":
				m.http = found[2] + found[4]
			case "admin":
				m.admin = found[2] + found[4]
			}
		}
		if look != nil {
			look(m)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			m.Error(err)
		}
	case <-written:
		m.Errorf("with %q: does not serve", variables)
	}
	<-written
	if err := cmd.Wait(); err != nil {
		m.Errorf("with %q: ended with %v; its log:\n%s", variables, err, m.log.String())
	}
	return m.log.String()
}
