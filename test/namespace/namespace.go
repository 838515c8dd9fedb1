//go:build linux

// Package namespace runs tests in a network namespace and a mount namespace of their own, so
// that everything has the ports that it has in production, whatever else runs on the
// machine. That needs root.
package namespace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// prepared tells the process in the namespaces the directory of prepare.
const prepared = "RATELIMIT_TEST_PREPARED"

// Dir returns the directory that prepare has filled.
func Dir() string { return os.Getenv(prepared) }

// Main fills a temporary directory by prepare, where there still is a network, then runs the
// tests of the package in namespaces, and returns their exit code. A package calls it from
// TestMain.
func Main(m *testing.M, prepare func(dir string) error) int {
	code, err := run(m, prepare)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

func run(m *testing.M, prepare func(dir string) error) (int, error) {
	if Dir() != "" {
		if err := settleIn(); err != nil {
			return 1, fmt.Errorf("the namespaces can't be used: %w", err)
		}
		return m.Run(), nil
	}
	if os.Getuid() != 0 {
		return 1, errors.New("these tests run in namespaces of their own: run them as root")
	}
	dir, err := os.MkdirTemp("", "ratelimit-prepared-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
		return 1, err
	}
	inside := exec.Command("/proc/self/exe", os.Args[1:]...)
	inside.Env = append(os.Environ(), prepared+"="+dir)
	inside.Stdout, inside.Stderr = os.Stdout, os.Stderr
	inside.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = inside.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("namespaces: %w", err)
	}
	return 0, nil
}

// settleIn keeps mounts from showing outside, and brings up loopback.
func settleIn() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback)
}
