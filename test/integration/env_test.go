package integration

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

var update = flag.Bool("update", false, "write env.example anew")

var (
	helpGroup   = regexp.MustCompile(`^(\w.*):$`)
	helpFlag    = regexp.MustCompile(`^ {2,8}(?:-\w, )?--(?:\[no-\])?([^ =]+)(?:=(\S+))?(?:\s+(.*))?$`)
	helpEnv     = regexp.MustCompile(`\$([A-Z][A-Z0-9_]*)`)
	helpMention = regexp.MustCompile(`--[a-z][a-z-]*`)
	ownEnv      = regexp.MustCompile(` ?\(\$(\w+)\)\.?$`)
	placeholder = regexp.MustCompile(`^[A-Z][A-Z:=,.-]*$`) // what to write, rather than a default
	assigned    = regexp.MustCompile(`(?m)^#([A-Z][A-Z0-9_]*)=(.*)$`)
)

// helpEntry is a group of the help, or a flag of it.
type helpEntry struct{ group, flag, value, text string }

func readHelp(t *testing.T) (entries []helpEntry) {
	t.Helper()
	help, err := harness.Command("serve", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(help)) {
		line = strings.TrimSuffix(line, "\n")
		if m := helpGroup.FindStringSubmatch(line); m != nil {
			entries = append(entries, helpEntry{group: m[1]})
		} else if m := helpFlag.FindStringSubmatch(line); m != nil {
			entries = append(entries, helpEntry{flag: m[1], value: m[2], text: m[3]})
		} else if strings.HasPrefix(line, "      ") {
			last := &entries[len(entries)-1]
			last.text = strings.TrimSpace(last.text + " " + strings.TrimSpace(line))
		}
	}
	return entries
}

// envExample is env.example as it should be: what `ratelimit serve --help` says of
// each variable with its default, and testdata/env-redis.txt.
func envExample(t *testing.T) string {
	t.Helper()
	redis, err := os.ReadFile(filepath.Join("testdata", "env-redis.txt"))
	if err != nil {
		t.Fatal(err)
	}
	entries := readHelp(t)
	variables := map[string]string{} // of flags
	for _, e := range entries {
		if own := ownEnv.FindStringSubmatch(e.text); own != nil {
			variables["--"+e.flag] = own[1]
		}
	}
	asVariable := func(flag string) string { return cmp.Or(variables[flag], flag) }

	var b strings.Builder
	b.WriteString(`# All environment variables of ratelimit serve, with their defaults. Remove the # of those
# that you change. An empty variable counts as not set. A flag wins over its variable.
`)
	for _, e := range entries {
		own := ownEnv.FindStringSubmatch(e.text)
		switch {
		case e.group == "Bounds": // after the counters
			b.Write(redis)
			fallthrough
		case e.group != "" && e.group != "Flags":
			fmt.Fprintf(&b, "\n## %s\n", e.group)
		case own != nil:
			text := ownEnv.ReplaceAllString(e.text, "")
			plain := helpMention.ReplaceAllStringFunc(helpEnv.ReplaceAllString(text, "$1"), asVariable)
			fmt.Fprintf(&b, "\n# %s.\n", wrap(strings.TrimSuffix(plain, ".")))
			if placeholder.MatchString(e.value) {
				e.value = ""
			}
			fmt.Fprintf(&b, "#%s=%s\n", own[1], strings.Trim(e.value, `"`))
			for _, other := range helpEnv.FindAllStringSubmatch(text, -1) {
				fmt.Fprintf(&b, "#%s=\n", other[1])
			}
		}
	}
	return b.String()
}

// wrap breaks a comment into lines of some 90 characters.
func wrap(text string) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case column == 0:
		case column+len(word) > 88:
			b.WriteString("\n# ")
			column = 0
		default:
			b.WriteString(" ")
		}
		b.WriteString(word)
		column += len(word) + 1
	}
	return b.String()
}

func TestEnvExample(t *testing.T) {
	t.Parallel()
	path := filepath.Join(harness.Root(t), "env.example")
	want := envExample(t)
	if *update {
		write(t, path, want)
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("env.example is not what --help says now (%v): run go test ./test/integration -run EnvExample -update", err)
	}
	var names []string
	var defaults []string
	for _, a := range assigned.FindAllStringSubmatch(want, -1) {
		if slices.Contains(names, a[1]) {
			t.Errorf("%s is there twice", a[1])
		}
		names = append(names, a[1])
		if a[2] != "" && !strings.HasPrefix(a[1], "REDIS_") && !strings.HasSuffix(a[1], "_ADDR") && a[1] != "STATSD_HOST" {
			defaults = append(defaults, a[1]+"="+a[2])
		}
	}
	// Whatever has an effect for those who come from envoyproxy/ratelimit.
	migrating, err := os.ReadFile(filepath.Join(harness.Root(t), "docs", "migrating.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (?:same|mapped) ").FindAllStringSubmatch(string(migrating), -1) {
		if !slices.Contains(names, row[1]) {
			t.Errorf("%s is not there", row[1])
		}
	}
	// The defaults are values that the variables take.
	if len(defaults) < 30 {
		t.Fatalf("only %d defaults: %v", len(defaults), defaults)
	}
	harness.StartService(t, filepath.Join(harness.Root(t), "config", "examples"), defaults...)
}
