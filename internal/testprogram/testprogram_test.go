package testprogram_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/distlimiter/ratelimit/internal/testprogram"
)

// outcome is a testing.TB that records how the test ended.
type outcome struct {
	testing.TB
	ended string
}

func (*outcome) Helper() {}

func (o *outcome) Skipf(format string, args ...any) {
	o.ended = "skipped: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (o *outcome) Fatalf(format string, args ...any) {
	o.ended = "failed: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// ask returns the path of a program, or how the test that needs it ended.
func ask(t *testing.T, name string) (path, ended string) {
	o := &outcome{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		path = testprogram.Path(o, name)
	}()
	<-done
	return path, o.ended
}

// nothingInstalled hides the programs of this machine.
func nothingInstalled(t *testing.T) {
	t.Helper()
	t.Setenv("PATH", t.TempDir())
	t.Chdir(t.TempDir())
}

func TestAMissingProgramSkipsWithItsRemedy(t *testing.T) {
	nothingInstalled(t)
	t.Setenv(testprogram.Required, "")
	const want = "skipped: needs redis-server: make tools, or apt-get install redis-server, or brew install redis"
	if _, ended := ask(t, "redis-server"); ended != want {
		t.Errorf("the test %s\nwant     %s", ended, want)
	}
	if _, ended := ask(t, "envoy"); ended != "skipped: needs envoy: make tools" {
		t.Errorf("the test %s", ended)
	}
}

func TestAMissingProgramFailsWhereAllAreRequired(t *testing.T) {
	nothingInstalled(t)
	t.Setenv(testprogram.Required, "1")
	if _, ended := ask(t, "envoy"); ended != "failed: needs envoy: make tools" {
		t.Errorf("the test %s", ended)
	}
}

func TestAPinnedProgramIsTakenBeforeOneOnThePath(t *testing.T) {
	root := t.TempDir()
	t.Setenv(testprogram.Required, "1") // with -short too
	onPath, pinned := filepath.Join(root, "bin", "envoy"), filepath.Join(root, ".cache", "bin", "envoy")
	t.Setenv("PATH", filepath.Dir(onPath))
	below := filepath.Join(root, "internal", "x")
	if err := os.MkdirAll(below, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(below)
	for _, want := range []string{onPath, pinned} {
		if err := os.MkdirAll(filepath.Dir(want), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(want, []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if path, ended := ask(t, "envoy"); path != want || ended != "" {
			t.Errorf("found %q, want %q; the test %s", path, want, ended)
		}
	}
}
