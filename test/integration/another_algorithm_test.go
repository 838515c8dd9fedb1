package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// TestAnotherAlgorithm adds one to a copy of the code, by one Go file, one Lua file
// and one row in the registry, and finds it everywhere.
func TestAnotherAlgorithm(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "cmd", "config/schema", "internal"} {
		copyTree(t, filepath.Join("..", "..", name), filepath.Join(root, name))
	}
	algo := filepath.Join(root, "internal", "algo")
	copyTree(t, "testdata/another/cooldown.go.txt", filepath.Join(algo, "cooldown.go"))
	copyTree(t, "testdata/another/cooldown.lua", filepath.Join(root, "internal", "backend", "redis", "lua", "cooldown.lua"))
	registry := filepath.Join(algo, "registry.go")
	rows, err := os.ReadFile(registry)
	if err != nil {
		t.Fatal(err)
	}
	const last = "concurrencyKind,\n"
	if n := strings.Count(string(rows), last); n != 1 {
		t.Fatalf("the last row of the registry stands there %d times", n)
	}
	if err := os.WriteFile(registry, []byte(strings.Replace(string(rows), last, last+"\tcooldownKind,\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(root, "ratelimit")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "./cmd/ratelimit")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the image is, so that little is compiled
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}

	rules := filepath.Join(root, "rules.yaml")
	text := "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {algorithm: cooldown, unit: hour, requests_per_unit: 5}}\n"
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		cmd := exec.Command(program, args...)
		cmd.Env = harness.Environment()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v:\n%s", args, err, out)
		}
		return string(out)
	}
	if out := run("explain", rules, "--domain", "edge", "user=a"); !strings.Contains(out, "cooldown, 5 per hour") || !strings.Contains(out, "|cd:1h") {
		t.Errorf("explain says\n%s", out)
	}
	server := redistest.Start(t, redistest.Config{})
	for name, settings := range map[string][]string{
		"memory": {"BACKEND_TYPE=memory"}, "redis": patiently("REDIS_URL=" + server.Addr),
	} {
		t.Run(name, func(t *testing.T) {
			service := harness.StartProgram(t, program, rules, settings...)
			for call, want := range []rls.RateLimitResponse_Code{rls.RateLimitResponse_OK, rls.RateLimitResponse_OVER_LIMIT} {
				if answer := service.Ask(t, harness.Request("edge", 1, "user", "a")); answer.OverallCode != want {
					t.Errorf("call %d: %v", call, answer)
				}
			}
			for page, want := range map[string]string{
				"/openapi.yaml": "concurrency, cooldown]", "/page/algorithms.js": "'cooldown'", "/rlconfig": "cooldown",
			} {
				if body := service.Get(t, service.Admin, page); !strings.Contains(body, want) {
					t.Errorf("%s does not hold %q", page, want)
				}
			}
		})
	}
}

// copyTree copies a file, or a directory with all that is in it.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err == nil && info.IsDir() {
		err = os.CopyFS(to, os.DirFS(from))
	} else if err == nil {
		var text []byte
		if text, err = os.ReadFile(from); err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
