package client_test

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestFirstMinuteOfThePage takes the steps of docs/client-go.md in an empty directory.
func TestFirstMinuteOfThePage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	page, err := os.ReadFile("../docs/client-go.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(begin string) string {
		m := regexp.MustCompile("(?ms)^```" + begin + "(.*?)^```$").FindStringSubmatch(string(page))
		if m == nil {
			t.Fatalf("the page has no block that begins with %q", begin)
		}
		return m[1]
	}
	s := startService(rules)
	t.Cleanup(s.stop)
	site := closed(t)
	program := "package main" + block("go\npackage main")
	for from, to := range map[string]string{"localhost:8081": s.addr, "localhost:8000": site} {
		if !strings.Contains(program, from) {
			t.Errorf("the program has no %s", from)
		}
		program = strings.ReplaceAll(program, from, to)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	module, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	steps := strings.Replace(block("sh\ngo mod init"), "../ratelimit", module, 1)
	steps, run, ok := strings.Cut("go mod init"+steps, "\ngo run .\n")
	if !ok || run != "" {
		t.Fatal("the last step is not go run")
	}
	build := exec.CommandContext(t.Context(), "sh", "-ec", steps+"\ngo build -o first .")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first := exec.CommandContext(t.Context(), filepath.Join(dir, "first"))
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = first.Process.Kill()
		_ = first.Wait()
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", site); err == nil {
			c.Close()
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	for n := range 11 {
		r := get(t, http.MethodGet, "http://"+site, "alice")
		if want := map[bool]int{true: http.StatusOK, false: http.StatusTooManyRequests}[n < 10]; r.status != want || n < 10 && r.body != "hello\n" || n == 10 && r.header.Get("Retry-After") == "" {
			t.Fatalf("request %d: %d %q %v", n, r.status, r.body, r.header)
		}
	}
}
