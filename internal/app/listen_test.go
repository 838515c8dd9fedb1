package app

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSocketIsForItsOwner holds that only those whom the umask lets write, which
// connecting to a socket is, reach gRPC there.
func TestSocketIsForItsOwner(t *testing.T) {
	before := syscall.Umask(0o022)
	defer syscall.Umask(before)
	path := filepath.Join(t.TempDir(), "grpc.sock")
	l, err := listen(nil, "unix", "GRPC.Socket", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o022 != 0 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
}

// leftSocket leaves a socket at which nobody listens.
func leftSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSocketReplacesOnlyADeadSocket puts other things where the socket is to be.
func TestSocketReplacesOnlyADeadSocket(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	leftSocket(t, dead)
	for name, plant := range map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("precious"), 0o644) },
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink(dead, path) },
		"dangling":  func(path string) error { return os.Symlink("nowhere", path) },
	} {
		path := filepath.Join(dir, name)
		if err := plant(path); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := listen(nil, "unix", "GRPC.Socket", path); err == nil || !strings.Contains(err.Error(), "GRPC.Socket: "+path+": it is not a socket") {
			t.Errorf("%s: error %v", name, err)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: %v is now %v, error %v", name, before, after, err)
		}
	}
	l, err := listen(nil, "unix", "GRPC.Socket", dead)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen(nil, "unix", "GRPC.Socket", dead); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("a socket in use: error %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dead); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// TestClosingLeavesAnothersSocket has something take the socket's place before the
// service stops.
func TestClosingLeavesAnothersSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "grpc.sock")
	l, err := listen(nil, "unix", "GRPC.Socket", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	next, err := listen(nil, "unix", "GRPC.Socket", path)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other's socket is gone: %v", err)
	}
}

// TestAbstractSocket has no file.
func TestAbstractSocket(t *testing.T) {
	l, err := listen(nil, "unix", "GRPC.Socket", "@ratelimit-"+filepath.Base(t.TempDir())+t.Name())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
