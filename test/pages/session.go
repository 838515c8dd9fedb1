//go:build linux

package pages

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// patience bounds each command: it may have to compile the service.
const patience = 5 * time.Minute

// session is a shell in which the commands of a page run, one after the other.
type session struct {
	dir    string // of the tree, where it begins
	files  string // of commands and what they print
	stdin  io.Writer
	status chan string
	count  int
}

// newSession starts a shell in a copy of the tree. It ends with the test, and with it all
// that it has started.
func newSession(t *testing.T, path string) *session {
	t.Helper()
	s := &session{dir: tree(t), files: t.TempDir(), status: make(chan string)}
	statuses, report, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	shell := exec.Command("bash", "--norc")
	shell.Dir = s.dir
	shell.Env = append(os.Environ(), "PATH="+path, "HOME="+t.TempDir(), "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"), "GOFLAGS=")
	shell.ExtraFiles = []*os.File{report} // 3
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if s.stdin, err = shell.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	report.Close()
	go func() {
		defer close(s.status)
		for lines := bufio.NewScanner(statuses); lines.Scan(); {
			s.status <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-shell.Process.Pid, syscall.SIGKILL)
		_ = shell.Wait()
		statuses.Close()
		for range s.status { // until the reader has ended
		}
	})
	return s
}

// run runs a command and returns its exit code and all that it has printed.
func (s *session) run(t *testing.T, command string) (code int, output string) {
	t.Helper()
	s.count++
	file := filepath.Join(s.files, strconv.Itoa(s.count))
	if err := os.WriteFile(file, []byte(command), 0o600); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(s.stdin, "{ eval \"$(cat %[1]s)\"; } >%[1]s.out 2>&1 </dev/null 3>&-; echo $? >&3\n", file)
	select {
	case status, running := <-s.status:
		if !running {
			t.Fatalf("the shell has ended at: %s", command)
		}
		code, _ = strconv.Atoi(status)
	case <-time.After(patience):
		t.Fatalf("not within %v: %s\n%s", patience, command, s.printed(t))
	}
	return code, s.printed(t)
}

// start runs a command beside those that follow, and waits until a port is open.
func (s *session) start(t *testing.T, command string, port int) {
	t.Helper()
	s.run(t, "{\n"+strings.TrimRight(command, " &\n")+"\n} &") // which a comment may end
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("port %d is not open: %s\n%s", port, command, s.printed(t))
		}
		time.Sleep(20 * time.Millisecond) // another process opens it, and sends no event
	}
}

// printed returns what the last command has printed so far.
func (s *session) printed(t *testing.T) string {
	t.Helper()
	out, err := os.ReadFile(filepath.Join(s.files, strconv.Itoa(s.count)+".out"))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// tree copies the files that git knows, as somebody has them who has just cloned, but for
// Envoy's deadlines, because this machine may be busy.
func tree(t *testing.T) string {
	t.Helper()
	root, dir := harness.Root(t), t.TempDir()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	names, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		from, to := filepath.Join(root, name), filepath.Join(dir, name)
		info, err := os.Lstat(from)
		if err != nil || !info.Mode().IsRegular() { // removed, or a link
			continue
		}
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "envoy/") {
			data = []byte(harness.Patient(string(data)))
		}
		if err := os.WriteFile(to, data, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatalf("go env %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}
