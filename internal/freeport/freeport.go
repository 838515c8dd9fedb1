// Package freeport finds TCP ports for the programs that tests and benchmarks
// start, which can't say themselves at which port they listen if that is chosen
// by the system.
//
// A port that was only seen to be free may be taken before its user listens: by
// another test, by a test of another process, or by an outgoing connection. So a
// port is held here, by a socket that is bound to it and does not listen. The
// system gives such a port to nobody who asks for any, while who asks for this one
// may listen on it, also again after a restart.
package freeport

import (
	"fmt"
	"net"
	"strconv"
	"syscall"
	"testing"
)

// Port is a TCP port of 127.0.0.1 that is held until it is closed.
type Port struct {
	Number int
	socket int
}

// Hold returns a port that nobody else has. Who listens on it must set
// SO_REUSEADDR, as Go, Redis and Envoy do.
func Hold() (Port, error) {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return Port{}, fmt.Errorf("no socket to hold a port with: %w", err)
	}
	number, err := bind(socket)
	if err != nil {
		_ = syscall.Close(socket)
		return Port{}, fmt.Errorf("no port of 127.0.0.1 can be held: %w", err)
	}
	return Port{Number: number, socket: socket}, nil
}

func bind(socket int) (int, error) {
	// Both who holds and who listens must allow the other.
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		return 0, err
	}
	addr, ok := name.(*syscall.SockaddrInet4)
	if !ok {
		return 0, fmt.Errorf("%v is no IPv4 address", name)
	}
	return addr.Port, nil
}

// Addr returns the address at which to listen, as 127.0.0.1:40001.
func (p Port) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Number)) }

// Close gives the port back.
func (p Port) Close() error { return syscall.Close(p.socket) }

// ForTest returns a port that is held until the test ends.
func ForTest(t testing.TB) Port {
	t.Helper()
	p, err := Hold()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}
