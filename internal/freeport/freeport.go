// Package freeport finds TCP ports for the programs that tests and benchmarks start.
// These programs cannot report a port that the system has chosen for them.
//
// A port that was free a moment ago may be taken before its user listens: by another
// test, by a test of another process, or by an outgoing connection. So this package
// holds the port with a socket that is bound to it and does not listen. The system
// never hands such a port to a program that asks for any port, but a program that asks
// for this one may listen on it, and may do so again after a restart. Only Linux allows
// that; elsewhere the port was merely free.
package freeport

import (
	"fmt"
	"net"
	"strconv"
	"testing"
)

// Port is a TCP port of 127.0.0.1 that is held until it is closed.
type Port struct {
	Number  int
	release func() error
}

// Hold returns a port that no other process uses, and holds it.
func Hold() (Port, error) {
	p, err := hold()
	if err != nil {
		return Port{}, fmt.Errorf("no port of 127.0.0.1 can be held: %w", err)
	}
	return p, nil
}

// Addr returns the address at which to listen, as 127.0.0.1:40001.
func (p Port) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Number)) }

// Close gives the port back.
func (p Port) Close() error { return p.release() }

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
