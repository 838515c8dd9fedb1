//go:build linux

// Package container tests the image that the Dockerfile makes, without an engine:
// the binary is built by the Dockerfile's own command and runs as its user in a
// root that is empty but for what the Dockerfile copies, and that cannot be
// written. Around it stands whatever a compose file, a kubelet or Envoy Gateway
// would give it.
//
// The tests run in a network namespace of their own, so that everything has the
// ports that it has in production, and in a mount namespace. For both they need
// root.
package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// builtImage tells the process in the namespaces where the image is.
const builtImage = "RATELIMIT_TEST_IMAGE"

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// run builds the image where there is a network, for modules that are missing, and
// runs the tests in namespaces.
func run(m *testing.M) (int, error) {
	if os.Getenv(builtImage) != "" {
		if err := settleIn(); err != nil {
			return 1, fmt.Errorf("the namespaces can't be used: %w", err)
		}
		return m.Run(), nil
	}
	if os.Getuid() != 0 {
		return 1, errors.New("these tests put the service into a root file system of its own: run them as root")
	}
	dir, err := os.MkdirTemp("", "ratelimit-image-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := buildImage(dir); err != nil {
		return 1, err
	}
	inside := exec.Command("/proc/self/exe", os.Args[1:]...)
	inside.Env = append(os.Environ(), builtImage+"="+dir)
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
