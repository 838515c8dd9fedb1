//go:build !linux

package freeport

import (
	"errors"
	"net"
)

// hold finds a free port and releases it. Outside of Linux no other socket can listen
// on a port to which a socket is bound. A test fails if its port was taken in between,
// which is rare enough for a run by hand.
func hold() (Port, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return Port{}, err
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return Port{}, errors.Join(errors.New("the listener has no TCP address"), l.Close())
	}
	return Port{Number: addr.Port, release: func() error { return nil }}, l.Close()
}
