// Package proc runs the programs under test, each on a given core, and measures the
// processor time and memory of each. It runs on Linux only.
package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a running program.
type Process struct {
	cmd  *exec.Cmd
	name string
	logs *logs

	stdout *bufio.Scanner
	pipe   *os.File
	ended  chan struct{}
}

// Start runs a program on one core, or any if core is negative; env is added to
// this process's environment.
// What it writes to stderr is in the errors of the methods.
func Start(core int, env []string, name string, args ...string) (*Process, error) {
	cmd := exec.Command(name, args...) //nolint:gosec // running what it is told to is its purpose
	p := &Process{cmd: cmd, name: filepath.Base(name), logs: new(logs), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = p.logs
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout = in
	p.pipe, p.stdout = out, bufio.NewScanner(out)
	// A child gets the affinity of the thread that makes it.
	err = onCore(core, p.cmd.Start)
	in.Close()
	if err != nil {
		out.Close()
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in the logs
		close(p.ended)
	}()
	return p, nil
}

// onCore runs f on a thread that is bound to the core; to none if it is negative.
func onCore(core int, f func() error) error {
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		runtime.UnlockOSThread()
		return os.NewSyscallError("sched_getaffinity", err)
	}
	for i := range len(one) * 64 {
		if core < 0 || i == core {
			one.Set(i)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("core %d: %w", core, os.NewSyscallError("sched_setaffinity", err))
	}
	err := f()
	if back := unix.SchedSetaffinity(0, &before); back != nil {
		// The thread stays locked, and so ends with its goroutine.
		return errors.Join(err, os.NewSyscallError("sched_setaffinity", back))
	}
	runtime.UnlockOSThread()
	return err
}

// Pin binds this process, all its threads, to the core.
func Pin(core int) error {
	var one unix.CPUSet
	one.Set(core)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		// A thread may have ended meanwhile.
		if err := unix.SchedSetaffinity(id, &one); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("core %d: %w", core, os.NewSyscallError("sched_setaffinity", err))
		}
	}
	return nil
}

// Line returns the rest of the first line that the program writes to stdout with
// this prefix, without spaces around it. It waits for it.
func (p *Process) Line(prefix string) (string, error) {
	for p.stdout.Scan() {
		if rest, ok := strings.CutPrefix(p.stdout.Text(), prefix); ok {
			return strings.TrimSpace(rest), nil
		}
	}
	return "", p.Failure(fmt.Sprintf("never wrote a line %q", prefix))
}

// Failure returns an error that says what went wrong with the program, and includes the end
// of its stderr.
func (p *Process) Failure(what string) error {
	return fmt.Errorf("%s (process %d) %s: %s", p.name, p.cmd.Process.Pid, what, p.logs)
}

// CPU returns the processor time that the program has used, in user and kernel
// mode, to the nanosecond.
func (p *Process) CPU() (time.Duration, error) {
	// As clock_getcpuclockid(3) makes them: the complement of the process and, in
	// the low bits, that what the scheduler accounts is meant.
	const schedulerClock = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|schedulerClock), &t); err != nil {
		return 0, p.Failure("has no clock, " + err.Error())
	}
	return time.Duration(t.Nano()), nil
}

// RSS returns the program's resident memory in bytes.
func (p *Process) RSS() (int64, error) { return p.memory("VmRSS:") }

// PeakRSS returns the most resident memory that the program has had, in bytes.
func (p *Process) PeakRSS() (int64, error) { return p.memory("VmHWM:") }

func (p *Process) memory(field string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, p.Failure("has no resident memory")
}

// Signal sends the program a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the program at once and waits until it has ended.
func (p *Process) Kill() error {
	defer p.pipe.Close()
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
	return nil
}

// Stop asks the program to end and waits until it has; after 10 seconds it is killed.
func (p *Process) Stop() error {
	defer p.pipe.Close()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return p.Failure("did not end when asked to")
	}
	return nil
}

// logs keeps the end of what a program writes to stderr.
type logs struct {
	mu  sync.Mutex
	end []byte
}

const maxLogs = 4 << 10

var _ io.Writer = (*logs)(nil)

// Write implements [io.Writer].
func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = append(l.end, b...)
	if n := len(l.end); n > maxLogs {
		l.end = append(l.end[:0], l.end[n-maxLogs:]...)
	}
	return len(b), nil
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.end) == 0 {
		return "nothing on stderr"
	}
	return string(bytes.TrimSpace(l.end))
}
