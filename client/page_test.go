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
)

// inherited is a file beside the page's program, which then serves on a socket of the
// test: it takes connections before the program accepts them, so nobody has to wait.
const inherited = `package main

import (
	"net"
	"os"
)

func inherited() net.Listener {
	l, err := net.FileListener(os.NewFile(3, "inherited"))
	if err != nil {
		panic(err)
	}
	return l
}
`

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
	program := "package main" + block("go\npackage main")
	for from, to := range map[string]string{
		"localhost:8081":                        s.addr,
		`http.ListenAndServe("localhost:8000",`: "http.Serve(inherited(),",
	} {
		if !strings.Contains(program, from) {
			t.Errorf("the program has no %s", from)
		}
		program = strings.ReplaceAll(program, from, to)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": program, "inherited.go": inherited} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
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
	site, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := site.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	site.Close()
	first := exec.CommandContext(t.Context(), filepath.Join(dir, "first"))
	first.ExtraFiles = []*os.File{socket}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	socket.Close() // the program's own is left
	t.Cleanup(func() {
		_ = first.Process.Kill()
		_ = first.Wait()
	})
	for n := range 11 {
		r := get(t, http.MethodGet, "http://"+site.Addr().String(), "alice")
		if want := map[bool]int{true: http.StatusOK, false: http.StatusTooManyRequests}[n < 10]; r.status != want || n < 10 && r.body != "hello\n" || n == 10 && r.header.Get("Retry-After") == "" {
			t.Fatalf("request %d: %d %q %v", n, r.status, r.body, r.header)
		}
	}
}
