// Package freeport finds TCP ports for the programs that tests and benchmarks
// start, which can't say themselves at which port they listen if that is chosen
// by the system.
//
// A port that was only seen to be free may be taken before its user listens: by
// another test, by a test of another process, or by an outgoing connection. So a
// port is held here, by a socket that is bound to it and does not listen. The
// system gives such a port to nobody who asks for any, while who asks for this one
// may listen on it, also again after a restart. Only Linux allows that; elsewhere the
// port is merely one that was free.
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

// Hold returns a port that nobody else has.
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
