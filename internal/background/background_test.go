package background_test

import (
	"errors"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/background"
)

// TestYield has two others talk over the network while a task has the only processor.
// It holds that each time that the task gives way, one of them has its turn.
func TestYield(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const messages = 100
	client, server := connection(t)
	answered := make(chan error, 1)
	go func() { answered <- errors.Join(talk(client, messages, true), client.Close()) }()
	go func() { _ = talk(server, messages, false) }() // the client tells
	task := background.New()
	defer task.Close()
	for yields := 1; ; yields++ {
		task.GiveWay()
		select {
		case err := <-answered:
			if err != nil {
				t.Fatal(err)
			}
			// A look at the network for each message, and some to begin with. The runtime
			// by itself looks every ten milliseconds, which is thousands of turns.
			if yields > 10*messages {
				t.Fatalf("it took %d turns for %d messages each way", yields, messages)
			}
			return
		default:
		}
	}
}

// talk sends so many messages and awaits an answer to each, or the other way round.
func talk(c net.Conn, messages int, first bool) error {
	var b [1]byte
	for i := range 2 * messages {
		do := c.Read
		if i%2 == 0 == first {
			do = c.Write
		}
		if _, err := do(b[:]); err != nil {
			return err
		}
	}
	return nil
}

func connection(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// TestClose holds that a task leaves no file and no goroutine.
func TestClose(t *testing.T) {
	files, goroutines := open(t), runtime.NumGoroutine()
	for range 100 {
		task := background.New()
		for range 3 {
			for began := time.Now(); time.Since(began) < time.Millisecond; {
				task.Yield()
			}
		}
		task.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); open(t) > files || runtime.NumGoroutine() > goroutines; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d files and %d goroutines, before %d and %d", open(t), runtime.NumGoroutine(), files, goroutines)
		}
	}
}

func open(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func BenchmarkStep(b *testing.B) {
	task := background.New()
	defer task.Close()
	for b.Loop() {
		task.Step()
	}
}

func BenchmarkYield(b *testing.B) {
	task := background.New()
	defer task.Close()
	for b.Loop() {
		task.Yield()
	}
}

// BenchmarkGiveWay is what it takes to give way, when there is nobody to give way to.
func BenchmarkGiveWay(b *testing.B) {
	task := background.New()
	defer task.Close()
	task.GiveWay()
	for b.Loop() {
		task.GiveWay()
	}
}
