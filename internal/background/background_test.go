package background_test

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/background"
)

// TestYield has two others talk through pipes, which the runtime waits for as it does
// for the network, while a task has the only processor. It holds that each time that
// the task gives way, one of them has its turn.
func TestYield(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const messages = 100
	toServer, fromClient := pipe(t)
	toClient, fromServer := pipe(t)
	answered := make(chan error, 1)
	go func() { answered <- talk(fromClient.Write, toClient.Read, messages) }()
	go func() { _ = talk(toServer.Read, fromServer.Write, messages) }() // the client tells
	task := background.New()
	defer task.Close()
	for turns := 1; ; turns++ {
		task.GiveWay()
		select {
		case err := <-answered:
			if err != nil {
				t.Fatal(err)
			}
			// A look at the pipes for each message, and some to begin with. The runtime
			// by itself looks every ten milliseconds, which is thousands of turns.
			if turns > 10*messages {
				t.Fatalf("it took %d turns for %d messages each way", turns, messages)
			}
			return
		default:
		}
	}
}

// talk does one thing and then the other, that many times.
func talk(first, second func([]byte) (int, error), times int) error {
	var b [1]byte
	for range times {
		if _, err := first(b[:]); err != nil {
			return err
		}
		if _, err := second(b[:]); err != nil {
			return err
		}
	}
	return nil
}

func pipe(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close(); writer.Close() })
	return reader, writer
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
