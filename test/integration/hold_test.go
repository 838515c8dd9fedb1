package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/test/integration/harness"
)

// slowBackEnd is an upstream of Envoy whose requests wait until the test lets them go
// on. It knows how many are in flight.
type slowBackEnd struct {
	t              *testing.T
	port           int
	arrived        chan struct{}
	goOn           chan func(http.ResponseWriter)
	inFlight, most atomic.Int64
}

func startBackEnd(t *testing.T) *slowBackEnd {
	b := &slowBackEnd{t: t, arrived: make(chan struct{}, 10_000), goOn: make(chan func(http.ResponseWriter))}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := b.inFlight.Add(1)
		defer b.inFlight.Add(-1)
		for most := b.most.Load(); n > most && !b.most.CompareAndSwap(most, n); most = b.most.Load() {
		}
		_, _ = io.Copy(io.Discard, r.Body) // else it would not notice that the client leaves
		b.arrived <- struct{}{}
		select {
		case answer := <-b.goOn:
			answer(w)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b.port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	return b
}

// await waits until that many more requests have arrived.
func (b *slowBackEnd) await(n int) {
	b.t.Helper()
	for range n {
		select {
		case <-b.arrived:
		case <-time.After(2 * time.Minute):
			b.t.Fatal("requests do not arrive")
		}
	}
}

func hello(w http.ResponseWriter) { _, _ = io.WriteString(w, "hello") }

// inFrontOf starts an Envoy with a file of envoy/ in front of the back end rather than
// of what the file has for demonstration. Requests time out after that long, if not "".
func inFrontOf(t *testing.T, b *slowBackEnd, file, timeout string, service *harness.Service, edits ...func(string) string) *harness.Envoy {
	t.Helper()
	config, err := os.ReadFile(harness.Config(t, file))
	if err != nil {
		t.Fatal(err)
	}
	text := string(config)
	for _, edit := range edits {
		text = edit(text)
	}
	const demo, upstream = "port_value: 10080", "port_value: 8082"
	last := strings.LastIndex(text, demo) // that of the cluster
	if strings.Count(text, demo) != 2 {
		t.Fatalf("%s has changed: it has no demonstration on port 10080", file)
	}
	text = text[:last] + upstream + text[last+len(demo):]
	if timeout != "" {
		text = strings.Replace(text, "route: {cluster: upstream}", "route: {cluster: upstream, timeout: "+timeout+"}", 1)
	}
	return harness.StartEnvoyConfig(t, text, service, harness.ServiceAt(t, b.port))
}

// held returns how many requests of the user hold.
func held(t *testing.T, s *harness.Service, domain, user string) int {
	t.Helper()
	var answer struct{ Counters []struct{ Held int } }
	if err := json.Unmarshal([]byte(s.Get(t, s.Admin, "/admin/counters?domain="+domain+"&descriptor=user%3D"+user)), &answer); err != nil || len(answer.Counters) != 1 {
		t.Fatalf("%+v, %v", answer, err)
	}
	return answer.Counters[0].Held
}

func mustHold(t *testing.T, s *harness.Service, want int) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("alice holds %d", want), func() bool { return held(t, s, "concurrency", "alice") == want })
}

const refusedSettlements = `ratelimit_holds_total{domain="concurrency",result="unheld",rule="limits.in_flight"}`

// TestTenAtATimeAndNeverEleven has 50 clients ask through two Envoys and two replicas. They
// all send one x-request-id, and one of their own choice for what tells requests apart.
func TestTenAtATimeAndNeverEleven(t *testing.T) {
	t.Parallel()
	settings := patiently("REDIS_URL=" + redistest.Start(t, redistest.Config{}).Addr)
	rules, back := example(t, "concurrency.yaml"), startBackEnd(t)
	replicas := []*harness.Service{startService(t, rules, settings...), startService(t, rules, settings...)}
	envoys := []*harness.Envoy{inFrontOf(t, back, "concurrency.yaml", "", replicas[0]), inFrontOf(t, back, "concurrency.yaml", "", replicas[1])}
	ask := func(i int) int {
		answer, err := envoys[i%2].Do(http.MethodGet, 10000, "/", "x-user", "alice", "x-request-id", "8e2b5ddc-cf5c-4c0c-b5a8-ab1a2f3b9d6e", "x-hold-id", "mine")
		if err != nil {
			t.Error(err)
		}
		return answer.Status
	}
	for round := range 3 {
		statuses := make(chan int, 50)
		for i := range 50 {
			go func() { statuses <- ask(i) }()
		}
		for range 40 { // the answers of those that pass wait
			if status := <-statuses; status != http.StatusTooManyRequests {
				t.Fatalf("round %d: status %d, want 429 for 40 of 50", round, status)
			}
		}
		back.await(10)
		// Envoy settles the 40 as well. They free no slot.
		harness.Eventually(t, "the refused requests are settled", func() bool {
			return replicas[0].Metric(t, refusedSettlements)+replicas[1].Metric(t, refusedSettlements) == float64(40*(round+1)+round)
		})
		if status := ask(0); status != http.StatusTooManyRequests {
			t.Fatalf("round %d: an eleventh: status %d", round, status)
		}
		if n := held(t, replicas[1], "concurrency", "alice"); n != 10 || back.inFlight.Load() != 10 {
			t.Fatalf("round %d: %d hold, %d are in flight", round, n, back.inFlight.Load())
		}
		for range 10 {
			back.goOn <- hello
		}
		for range 10 {
			if status := <-statuses; status != http.StatusOK {
				t.Fatalf("round %d: status %d of one that passed", round, status)
			}
		}
		mustHold(t, replicas[0], 0)
		harness.Eventually(t, "the eleventh is settled", func() bool {
			return replicas[0].Metric(t, refusedSettlements)+replicas[1].Metric(t, refusedSettlements) == float64(41*(round+1))
		})
	}

	// All of them again and again, with answers that come at once.
	done := make(chan struct{})
	go func() {
		for {
			select {
			case back.goOn <- hello:
			case <-done:
				return
			}
		}
	}()
	var passed atomic.Int64
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() {
			for range 20 {
				if ask(i) == http.StatusOK {
					passed.Add(1)
				}
			}
		})
	}
	clients.Wait()
	close(done)
	if most := back.most.Load(); most != 10 {
		t.Errorf("%d were in flight at once, want 10 and never 11", most)
	}
	if passed.Load() < 20 {
		t.Errorf("%d of 1000 passed", passed.Load())
	}
	mustHold(t, replicas[1], 0)
}

// TestHoweverARequestEndsItsSlotComesBack.
func TestHoweverARequestEndsItsSlotComesBack(t *testing.T) {
	t.Parallel()
	service, back := startService(t, example(t, "concurrency.yaml"), "--backend", "memory"), startBackEnd(t)
	for name, end := range map[string]struct {
		timeout string
		status  int // 0: the client has left
		end     func(cancel func())
	}{
		"answered": {"", http.StatusOK, func(func()) { back.goOn <- hello }},
		"an error": {"", http.StatusInternalServerError, func(func()) {
			back.goOn <- func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }
		}},
		"the client has left":  {"", 0, func(cancel func()) { cancel() }},
		"it timed out":         {"1s", http.StatusGatewayTimeout, func(func()) {}},
		"the upstream is gone": {"", http.StatusServiceUnavailable, func(func()) { back.goOn <- func(http.ResponseWriter) { panic(http.ErrAbortHandler) } }},
	} {
		t.Run(name, func(t *testing.T) {
			envoy := inFrontOf(t, back, "concurrency.yaml", end.timeout, service)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, envoy.URL(10000, "/"), http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("x-user", "alice")
			status := make(chan int, 1)
			go func() {
				answer, err := http.DefaultTransport.RoundTrip(request)
				if err != nil {
					status <- 0
					return
				}
				_, _ = io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				status <- answer.StatusCode
			}()
			back.await(1)
			if end.timeout == "" {
				mustHold(t, service, 1)
			}
			end.end(cancel)
			if got := <-status; got != end.status {
				t.Errorf("status %d, want %d", got, end.status)
			}
			mustHold(t, service, 0)
			harness.Eventually(t, "the back end has seen the end", func() bool { return back.inFlight.Load() == 0 }) // or it takes the next answer
		})
	}
}

// TestAWebsocketHoldsUntilItIsClosed.
func TestAWebsocketHoldsUntilItIsClosed(t *testing.T) {
	t.Parallel()
	service, back := startService(t, example(t, "concurrency.yaml"), "--backend", "memory"), startBackEnd(t)
	envoy := inFrontOf(t, back, "concurrency.yaml", "", service)
	address := strings.TrimSuffix(strings.TrimPrefix(envoy.URL(10000, "/"), "http://"), "/")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nx-user: alice\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", address)
	back.await(1)
	back.goOn <- func(w http.ResponseWriter) {
		upstream, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer upstream.Close()
		fmt.Fprint(upstream, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(io.Discard, upstream) // until it is closed
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v", answer)
	}
	mustHold(t, service, 1)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	mustHold(t, service, 0)
}

// TestSlotsOfAnEnvoyThatDiesExpire.
func TestSlotsOfAnEnvoyThatDiesExpire(t *testing.T) {
	t.Parallel()
	rules := strings.Replace(example(t, "concurrency.yaml"), "expires: 60s", "expires: 10s", 1)
	service, back := startService(t, rules, "--backend", "memory"), startBackEnd(t)
	envoy := inFrontOf(t, back, "concurrency.yaml", "", service)
	asked := make(chan error, 1)
	go func() {
		_, err := envoy.Do(http.MethodGet, 10000, "/", "x-user", "alice")
		asked <- err
	}()
	back.await(1)
	if n := held(t, service, "concurrency", "alice"); n != 1 {
		t.Errorf("%d hold while one is in flight", n)
	}
	envoy.Kill(t)
	if err := <-asked; err == nil {
		t.Error("it was answered")
	}
	mustHold(t, service, 0)
}

// TestReservationsBoundTheOvershoot asks with 50 requests at once, each of which costs
// 4,000 of 100,000 tokens, with a reservation of 5,000 and without any.
func TestReservationsBoundTheOvershoot(t *testing.T) {
	t.Parallel()
	const budget, cost, reserve, clients = 100_000, 4_000, 5_000, 50
	answer := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"usage":{"total_tokens":%d}}`, cost)
	}
	used := func(t *testing.T, file, domain, rules string) (passed int, left func() uint32) {
		service, back := startService(t, rules, "--backend", "memory"), startBackEnd(t)
		envoy := inFrontOf(t, back, file, "", service)
		statuses := make(chan int, clients)
		for range clients {
			go func() {
				request, err := http.NewRequest(http.MethodPost, envoy.URL(10000, "/v1/chat/completions"), strings.NewReader(fmt.Sprintf(`{"max_tokens":%d}`, reserve)))
				if err != nil {
					statuses <- 0
					return
				}
				request.Header.Set("x-user", "alice")
				request.Header.Set("content-type", "application/json")
				response, err := http.DefaultTransport.RoundTrip(request)
				if err != nil {
					statuses <- 0
					return
				}
				response.Body.Close()
				statuses <- response.StatusCode
			}()
		}
		for range clients {
			select {
			case <-back.arrived: // all are in flight before any has its answer
				passed++
			case status := <-statuses:
				if status != http.StatusTooManyRequests {
					t.Fatalf("status %d", status)
				}
			}
		}
		for range passed {
			back.goOn <- answer
		}
		return passed, func() uint32 {
			return service.Ask(t, harness.Request(domain, 0, "user", "alice", "request_id", "look")).GetStatuses()[0].GetLimitRemaining()
		}
	}
	t.Run("with", func(t *testing.T) {
		passed, left := used(t, "llm-budget.yaml", "llm_budget", example(t, "llm-budget.yaml"))
		if passed != budget/reserve {
			t.Errorf("%d requests passed, want %d", passed, budget/reserve)
		}
		harness.Eventually(t, "all are charged", func() bool { return left() == budget-budget/reserve*cost })
	})
	t.Run("without", func(t *testing.T) {
		rules := regexp.MustCompile(`requests_per_unit: \d+`).ReplaceAllString(example(t, "llm.yaml"), fmt.Sprintf("requests_per_unit: %d", budget))
		passed, _ := used(t, "tokens.yaml", "llm", rules)
		if passed != clients {
			t.Errorf("%d requests passed, want all %d: that is what reservations are for", passed, clients)
		}
	})
}
