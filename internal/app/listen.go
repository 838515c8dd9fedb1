package app

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/distlimiter/ratelimit/internal/named"
)

// listen opens a listener for the field of that name. Its error contains the remedy.
// It removes a socket that a dead process left behind.
func listen(names named.Fields, network, of, addr string) (net.Listener, error) {
	name, set := names.Of(of), names.Either(of)
	if network == "unix" {
		if err := removeDeadSocket(addr); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, addr, err)
		}
	}
	l, err := net.Listen(network, addr)
	switch {
	case err == nil:
		return ownSocket(l)
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use: stop what listens there, or choose another with %s", name, addr, set)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: no permission to listen on %s: choose a port from 1024 on with %s", name, addr, set)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: this machine has no address %s: use 127.0.0.1, or 0.0.0.0 for all, with %s", name, addr, set)
	case network == "unix":
		return nil, fmt.Errorf("%s: cannot listen on %q: %w: write a path in a directory that this process may write to", name, addr, err)
	default:
		return nil, fmt.Errorf("%s: cannot listen on %q: %w: write host:port", name, addr, err)
	}
}

// removeDeadSocket removes a socket on which no process listens, and nothing else.
func removeDeadSocket(path string) error {
	before, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if before.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("it is not a socket (%s), and is left as it is: choose another path", before.Mode())
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		return errors.Join(errors.New("another process listens there: stop it, or choose another path"), conn.Close())
	case errors.Is(err, syscall.ECONNREFUSED):
		return removeIfSame(path, before)
	}
	return nil // listening there fails, with the reason
}

// removeIfSame removes a socket unless another file has replaced it.
func removeIfSame(path string, before fs.FileInfo) error {
	now, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !os.SameFile(before, now):
		return nil
	}
	return os.Remove(path)
}

// socketListener removes its own socket when it is closed. The listener of package net
// would also remove a socket that another process has put in its place.
type socketListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
}

// ownSocket wraps a listener on a socket in a socketListener, and returns others
// unchanged.
func ownSocket(l net.Listener) (net.Listener, error) {
	unix, ok := l.(*net.UnixListener)
	if !ok || strings.HasPrefix(l.Addr().String(), "@") { // an abstract socket is no file
		return l, nil
	}
	unix.SetUnlinkOnClose(false)
	path := l.Addr().String()
	info, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &socketListener{UnixListener: unix, path: path, info: info}, nil
}

// Close implements net.Listener.
func (l *socketListener) Close() (err error) {
	l.once.Do(func() { err = removeIfSame(l.path, l.info) })
	return errors.Join(l.UnixListener.Close(), err)
}
