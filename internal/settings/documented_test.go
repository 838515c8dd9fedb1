package settings_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/settings"
	"github.com/distlimiter/ratelimit/internal/telemetry"
)

// TestEveryVariableThatIsReadIsDocumented notes which variables are asked for, in
// environments that lead to all stores, and looks for each in env.example or, if it has no
// effect or a meaning of its own, in docs/.
func TestEveryVariableThatIsReadIsDocumented(t *testing.T) {
	read := map[string]bool{}
	for _, environment := range []map[string]string{
		{},
		{"BACKEND_TYPE": "memory"},
		{"REDIS_URL": "127.0.0.1:1", "REDIS_TYPE": "CLUSTER"},
		{"REDIS_URL": "mymaster,127.0.0.1:1", "REDIS_TYPE": "SENTINEL", "REDIS_TLS": "true"},
		{"REDIS_HOST": "127.0.0.1", "REDIS_SSL": "true"},
		{"REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": "127.0.0.1:1", "REDIS_PERSECOND": "true", "REDIS_PERSECOND_SOCKET_TYPE": "tcp", "REDIS_PERSECOND_URL": "127.0.0.1:2", "REDIS_PERSECOND_TLS": "true"},
	} {
		getenv := func(name string) string {
			read[name] = true
			return environment[name]
		}
		settings.WantsStatsd(getenv, "localhost")
		settings.TunesGC(getenv)
		if _, err := settings.ReadStore(getenv); err != nil {
			t.Errorf("%v: %v", environment, err)
		}
		if _, err := settings.ReadRedis(getenv); err != nil {
			t.Errorf("%v: %v", environment, err)
		}
		if err := settings.CompleteTelemetry(getenv, &telemetry.Settings{}, true, true); err != nil {
			t.Errorf("%v: %v", environment, err)
		}
		if _, err := settings.Address(getenv, "ADMIN_ADDR", "127.0.0.1:6070"); err != nil {
			t.Error(err)
		}
		if _, err := settings.OpenedBy(getenv, "ADMIN_ADDR", "127.0.0.1:6070", "0.0.0.0:6070"); err != nil {
			t.Error(err)
		}
	}
	if len(read) < 60 {
		t.Fatalf("only %d variables were read", len(read))
	}
	text := documentation(t)
	for name := range read {
		if strings.HasPrefix(name, "OTEL_") { // OpenTelemetry's own, which it documents
			continue
		}
		// What has no effect of the one Redis has none of the other, and health is of both.
		if rest, second := strings.CutPrefix(name, "REDIS_PERSECOND_"); strings.HasPrefix(rest, "STARTUP_") || second && rest == "HEALTH_CHECK_ACTIVE_CONNECTION" {
			name = "REDIS_" + rest
		}
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(text) {
			t.Errorf("%s is in neither env.example nor docs/", name)
		}
	}
}

// documentation returns env.example and all of docs/, and the README.
func documentation(t *testing.T) string {
	t.Helper()
	root := filepath.Join("..", "..")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	var all strings.Builder
	for _, file := range append(pages, filepath.Join(root, "env.example"), filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
