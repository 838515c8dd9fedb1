package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// wire is a TCP connection to a server that the test can cut.
type wire struct {
	addr string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: l.Addr().String(), conns: map[net.Conn]bool{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.carry(conn, to) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.set(true)
		running.Wait()
	})
	return w
}

// carry copies both ways until either side ends.
func (w *wire) carry(from net.Conn, to string) {
	defer from.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	w.mu.Lock()
	if w.cut {
		w.mu.Unlock()
		return
	}
	w.conns[from], w.conns[server] = true, true
	w.mu.Unlock()
	go func() {
		_, _ = io.Copy(server, from) // it ends when either side does
		server.Close()
	}()
	_, _ = io.Copy(from, server)
	w.mu.Lock()
	delete(w.conns, from)
	delete(w.conns, server)
	w.mu.Unlock()
}

// set cuts the wire or mends it.
func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	if cut {
		for conn := range w.conns {
			conn.Close()
		}
	}
}

// applyRules sends rules to a replica, and returns the status of the answer.
func applyRules(t *testing.T, s *harness.Service, rules string) int {
	t.Helper()
	answer, err := http.Post("http://"+s.Admin+"/admin/rules", "application/yaml", strings.NewReader(rules))
	if err != nil {
		t.Error(err)
		return 0
	}
	defer answer.Body.Close()
	return answer.StatusCode
}

func perUser(limit int) string {
	return fmt.Sprintf("domain: edge\ndescriptors: [{key: user, rate_limit: {unit: year, requests_per_unit: %d}}]\n", limit)
}

// TestAdminRulesReachEveryReplica changes rules by way of any of three processes
// that share a Redis, one of which loses it for a while.
func TestAdminRulesReachEveryReplica(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, redistest.Config{})
	const replicas = 3
	var wires [replicas]*wire
	var services [replicas]*harness.Service
	for i := range services {
		wires[i] = newWire(t, redis.Addr)
		services[i] = startService(t, perUser(100), "--backend", "redis", "--redis-url", wires[i].addr)
	}
	has := func(s *harness.Service, text string) bool {
		return strings.Contains(s.Get(t, s.Admin, "/rlconfig"), text)
	}
	limit := func(n int) string { return fmt.Sprintf("edge.user: unit=YEAR requests_per_unit=%d,", n) }
	await := func(i, n int) {
		t.Helper()
		since := time.Now()
		harness.Eventually(t, fmt.Sprintf("replica %d has a limit of %d", i, n), func() bool { return has(services[i], limit(n)) })
		t.Logf("replica %d has a limit of %d after %v", i, n, time.Since(since).Round(time.Millisecond))
	}
	apply := func(i int, rules string) {
		// Redis has a second to answer, which a busy machine may exceed.
		harness.Eventually(t, fmt.Sprintf("replica %d takes rules", i), func() bool {
			status := applyRules(t, services[i], rules)
			if status != http.StatusOK && status != http.StatusServiceUnavailable {
				t.Errorf("replica %d answered %d", i, status)
			}
			return status == http.StatusOK
		})
	}

	apply(0, perUser(5))
	if !has(services[0], limit(5)) {
		t.Error("the replica that has answered does not go by it")
	}
	await(1, 5)
	await(2, 5)

	wires[2].set(true)
	apply(1, perUser(6))
	await(0, 6)
	harness.Eventually(t, "the replica without Redis refuses to change rules", func() bool {
		return applyRules(t, services[2], perUser(1)) == http.StatusServiceUnavailable
	})
	if !has(services[2], limit(5)) {
		t.Error("the replica without Redis has forgotten its rules")
	}
	wires[2].set(false)
	await(2, 6)

	// A replica that dies and comes back has them from its first answer.
	services[1].Kill(t)
	services[1].Restart(t)
	if !has(services[1], limit(6)) {
		t.Errorf("a new replica has\n%s", services[1].Get(t, services[1].Admin, "/rlconfig"))
	}

	// All at once: no change gets lost.
	var all sync.WaitGroup
	for i := range services {
		all.Go(func() {
			for n := range 4 {
				apply(i, fmt.Sprintf("domain: many\ndescriptors: [{key: k%d_%d, rate_limit: {unlimited: true}}]\n", i, n))
			}
		})
	}
	all.Wait()
	for i, s := range services {
		harness.Eventually(t, fmt.Sprintf("replica %d has all rules", i), func() bool {
			return strings.Count(s.Get(t, s.Admin, "/rlconfig"), "many.k") == replicas*4
		})
	}

	// A Redis that has lost everything is given it back.
	redis.Restart()
	harness.Eventually(t, "Redis has the rules again", func() bool {
		return redis.Text("EXISTS", "distlimiter:admin-rules") == "1"
	})
	for i, s := range services {
		if !has(s, limit(6)) {
			t.Errorf("replica %d has lost rules", i)
		}
	}
}
