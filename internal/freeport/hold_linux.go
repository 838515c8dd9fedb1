package freeport

import (
	"fmt"
	"syscall"
)

// hold binds a socket to a port that the system chooses, and keeps it. The program that
// listens on the port must set SO_REUSEADDR, as Go, Redis and Envoy do.
func hold() (Port, error) {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return Port{}, err
	}
	number, err := bind(socket)
	if err != nil {
		_ = syscall.Close(socket)
		return Port{}, err
	}
	return Port{Number: number, release: func() error { return syscall.Close(socket) }}, nil
}

func bind(socket int) (int, error) {
	// Both the holder and the listener must allow the other.
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
