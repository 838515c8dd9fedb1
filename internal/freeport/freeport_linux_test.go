package freeport_test

import (
	"net"
	"testing"

	"github.com/distlimiter/ratelimit/internal/freeport"
)

// TestPortsDiffer holds many ports at once, and asks the system for others.
func TestPortsDiffer(t *testing.T) {
	held := map[int]bool{}
	for range 2000 {
		p := freeport.ForTest(t)
		if held[p.Number] {
			t.Fatalf("port %d was given to two", p.Number)
		}
		held[p.Number] = true
	}
	for range 2000 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		if port := l.Addr().(*net.TCPAddr).Port; held[port] {
			t.Fatalf("the system gave held port %d to a listener", port)
		}
	}
}

// TestListenAgain listens, is connected to, ends, and listens anew.
func TestListenAgain(t *testing.T) {
	p := freeport.ForTest(t)
	for range 3 {
		l, err := net.Listen("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		// Who listened closes first, so that the port is left in TIME_WAIT.
		_ = accepted.Close()
		_ = client.Close()
		_ = l.Close()
	}
	if _, err := net.Dial("tcp", p.Addr()); err == nil {
		t.Error("a port that is only held accepts connections")
	}
}
