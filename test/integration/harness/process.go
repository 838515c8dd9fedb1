package harness

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/testprogram"
)

// inherited are the variables of the developer's environment that programs get. All others,
// such as a REDIS_URL in the shell, stay outside of the tests.
var inherited = []string{
	"PATH", "HOME", "TMPDIR",
	"GODEBUG", "GOMAXPROCS", "GORACE", "GOTRACEBACK", "GOCOVERDIR", // for Go's runtime
	"GRPC_FRONT", // lean for all services that no test gives a front; see docs/dev/lean-front.md
}

// Environment returns the environment of a program that a test starts: what it inherits of
// the developer's, and variables, as NAME=value. The last value of a name wins.
func Environment(variables ...string) []string {
	all := []string{"GORACE=atexit_sleep_ms=10"} // the race detector's second at every exit adds up
	for _, name := range inherited {
		if value, set := os.LookupEnv(name); set {
			all = append(all, name+"="+value)
		}
	}
	return append(all, variables...)
}

// Process is a running program. It ends with the test at the latest, and its
// output is shown when the test fails.
type Process struct {
	name    string
	cmd     *exec.Cmd
	output  output
	exited  chan struct{} // closed after err is set
	err     error
	stopped bool
}

// Start runs a program.
func Start(t testing.TB, name, path string, args ...string) *Process {
	t.Helper()
	return StartCommand(t, name, exec.Command(path, args...))
}

// StartCommand runs a command, in [Environment] if it has none of its own. It is for
// commands that need more than a path and arguments.
func StartCommand(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{name: name, cmd: cmd, exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if p.cmd.Env == nil {
		p.cmd.Env = Environment()
	}
	testprogram.EndWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.Stop(t)
		if t.Failed() {
			t.Logf("output of %v:\n%s", cmd, &p.output)
		}
	})
	return p
}

// Output returns what the program has printed so far.
func (p *Process) Output() string { return p.output.String() }

// Printed reports whether the program has printed the text so far.
func (p *Process) Printed(text string) bool { return strings.Contains(p.output.String(), text) }

// Count returns how many times the program has printed the text so far.
func (p *Process) Count(text string) int { return strings.Count(p.output.String(), text) }

// Signal sends the program a signal.
func (p *Process) Signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s was not running any more: %v", p.name, err)
	}
}

// AwaitEnd waits until the program has ended by itself, and returns its error; nil for
// success. After that, Stop does nothing.
func (p *Process) AwaitEnd(t testing.TB) error {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(timeout):
		t.Fatalf("%s does not end", p.name)
	}
	p.stopped = true
	return p.err
}

// Stop ends the program by SIGTERM. The test fails if the program exits with an error, as
// after a data race, or does not exit. A second Stop does nothing.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if p.stopped {
		return
	}
	p.stopped = true
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("%s was not running any more: %v", p.name, err)
	}
	select {
	case <-p.exited:
	case <-time.After(timeout):
		t.Errorf("%s does not end on SIGTERM", p.name)
		_ = p.cmd.Process.Signal(os.Kill)
		<-p.exited
	}
	if p.err != nil {
		t.Errorf("%s ended with %v", p.name, p.err)
	}
}

// Kill ends the program at once, as a crash would.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.stopped = true
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatalf("%s was not running any more: %v", p.name, err)
	}
	<-p.exited
}

// running fails the test when the program has ended by itself.
func (p *Process) running(t testing.TB) {
	t.Helper()
	select {
	case <-p.exited:
		t.Fatalf("%s ended: %v", p.name, p.err)
	default:
	}
}

// output collects what a program prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
