package integration

import (
	"sync"
	"time"
)

// turns measures how long the machine lets this process wait for its turn, time and
// again. What is late meanwhile proves nothing of the service.
type turns struct {
	mu    sync.Mutex
	waits []wait
}

type wait struct {
	end  time.Time
	long time.Duration
}

// measure does so until done.
func (m *turns) measure(done <-chan struct{}) {
	const pace = 5 * time.Millisecond
	for last := time.Now(); ; last = time.Now() {
		select {
		case <-done:
			return
		case <-time.After(pace):
		}
		if long := time.Since(last) - pace; long > time.Millisecond { // which timers may be late
			m.mu.Lock()
			m.waits = append(m.waits, wait{time.Now(), long})
			m.mu.Unlock()
		}
	}
}

// longest returns the longest wait.
func (m *turns) longest() (most time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.waits {
		most = max(most, w.long)
	}
	return most
}

// lost returns how long this process waited in all of the time between.
func (m *turns) lost(from, to time.Time) (sum time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.waits {
		begin, end := w.end.Add(-w.long), w.end
		if begin.Before(from) {
			begin = from
		}
		if end.After(to) {
			end = to
		}
		sum += max(0, end.Sub(begin))
	}
	return sum
}
