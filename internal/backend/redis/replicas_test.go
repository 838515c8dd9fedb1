package redis_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// replicaVariable has this test program be a replica of the service instead: a
// process of its own with a backend of its own.
const replicaVariable = "REDIS_TEST_REPLICA"

func TestMain(m *testing.M) {
	if task := os.Getenv(replicaVariable); task != "" {
		if err := replicate(task); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// task is what a replica does: call for one key, from several callers, so many
// times or for so long.
type task struct {
	Env     env // settings of the backend
	Params  algo.Params
	Lease   float64
	Callers int
	Calls   int64
	For     time.Duration
}

// admission is one hit that a replica admitted: when, and how long that took.
type admission struct {
	at   time.Time
	took time.Duration
}

// replicate connects, says that it is ready, does the task when told to, tells of
// each hit that it admits, and in the end of how many hits it has held at most.
func replicate(text string) error {
	var do task
	if err := json.Unmarshal([]byte(text), &do); err != nil {
		return err
	}
	l, err := algo.New(do.Params)
	if err != nil {
		return err
	}
	settings, err := redis.FromEnvironment(do.Env.get)
	if err != nil {
		return err
	}
	b, err := redis.New(settings.Redis)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Ready(timeout(unhurried)); err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	var calls atomic.Int64
	var done sync.WaitGroup
	var failed atomic.Pointer[error]
	end := time.Now().Add(do.For)
	for range do.Callers {
		done.Go(func() {
			out := make([]algo.Decision, 1)
			req := backend.Request{Checks: []backend.Check{{Key: []byte("hot"), Limit: l, Hits: 1, Lease: do.Lease}}}
			for calls.Add(1) <= do.Calls || time.Now().Before(end) {
				began := time.Now()
				if err := b.Decide(context.Background(), &req, out); err != nil {
					failed.Store(&err)
				} else if out[0].Allowed {
					now := time.Now()
					fmt.Printf("admit %d %d\n", now.UnixMicro(), now.Sub(began).Microseconds())
				}
			}
		})
	}
	done.Wait()
	fmt.Printf("held %d\n", int64(testutil.ToFloat64(only{b, "ratelimit_redis_lease_overshoot_hits"})))
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// only is the one metric of that name.
type only struct {
	prometheus.Collector
	name string
}

func (o only) Collect(ch chan<- prometheus.Metric) {
	all := make(chan prometheus.Metric, 100)
	o.Collector.Collect(all)
	close(all)
	for m := range all {
		if strings.Contains(m.Desc().String(), `"`+o.name+`"`) {
			ch <- m
		}
	}
}

// replicas are processes that all begin at once.
type replicas struct {
	t         *testing.T
	processes []*exec.Cmd
	begin     []*os.File
	out       []*bufio.Scanner
	killed    []atomic.Bool
}

func startReplicas(t *testing.T, n int, do task) *replicas {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(do)
	if err != nil {
		t.Fatal(err)
	}
	r := &replicas{t: t, killed: make([]atomic.Bool, n)}
	for range n {
		cmd := exec.Command(self) // this program
		cmd.Env = append(os.Environ(), replicaVariable+"="+string(text))
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		in, begin, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = in
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = in.Close()
		r.processes, r.begin, r.out = append(r.processes, cmd), append(r.begin, begin), append(r.out, bufio.NewScanner(out))
	}
	for _, out := range r.out {
		if !out.Scan() || out.Text() != "ready" {
			t.Fatalf("a replica says %q", out.Text())
		}
	}
	return r
}

func (r *replicas) start() {
	for _, begin := range r.begin {
		_, _ = fmt.Fprintln(begin, "begin")
		_ = begin.Close()
	}
}

// outcome is what replicas did together.
type outcome struct {
	admitted []admission
	held     int64 // at once, all together
}

// wait waits for the replicas.
func (r *replicas) wait() (all outcome) {
	r.t.Helper()
	for i, out := range r.out {
		for out.Scan() {
			var at, took, held int64
			if n, _ := fmt.Sscanf(out.Text(), "admit %d %d", &at, &took); n == 2 {
				all.admitted = append(all.admitted, admission{time.UnixMicro(at), time.Duration(took) * time.Microsecond})
			} else if n, _ := fmt.Sscanf(out.Text(), "held %d", &held); n == 1 {
				all.held += held
			} // else one was killed as it spoke
		}
		if err := r.processes[i].Wait(); err != nil && !r.killed[i].Load() {
			r.t.Errorf("replica %d: %v", i, err)
		}
	}
	slices.SortFunc(all.admitted, func(a, b admission) int { return a.at.Compare(b.at) })
	return all
}

// kill ends a replica at once.
func (r *replicas) kill(i int) {
	r.killed[i].Store(true)
	_ = r.processes[i].Process.Kill()
}

// most returns the most hits that were admitted within the window. A hit is seen
// up to the time that its call took after it was charged, so that the window is
// taken to be as much shorter.
func (o outcome) most(window time.Duration) (n int) {
	var slowest time.Duration
	for _, a := range o.admitted {
		slowest = max(slowest, a.took)
	}
	first := 0
	for i, a := range o.admitted {
		for a.at.Sub(o.admitted[first].at) >= window-slowest {
			first++
		}
		n = max(n, i-first+1)
	}
	return n
}

// TestReplicas has three processes hit one key as fast as they can. Together
// they admit exactly the limit.
func TestReplicas(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	for _, combining := range []bool{true, false} {
		for i, name := range algo.Algorithms() {
			p := algo.Params{Algorithm: algo.Algorithm(i), Limit: 1000, Window: algo.MaxWindow}
			if p.Algorithm == algo.LeakyBucket {
				p.Burst = 1000
			}
			t.Run(fmt.Sprintf("%s/combining=%t", name, combining), func(t *testing.T) {
				server.Do("FLUSHALL")
				r := startReplicas(t, 3, task{
					Env:    env{"REDIS_URL": server.Addr, "REDIS_COMBINING": strconv.FormatBool(combining), "REDIS_TIMEOUT": "10s"},
					Params: p, Callers: 16, Calls: 700,
				})
				r.start()
				if n := len(r.wait().admitted); n != 1000 {
					t.Errorf("%d admitted, want the limit of 1000", n)
				}
			})
		}
	}
}

// TestReplicasRefill: where the limit refills meanwhile, what is admitted is the
// capacity and what the time has brought.
func TestReplicasRefill(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	for _, p := range []algo.Params{
		{Algorithm: algo.TokenBucket, Limit: 700, Window: time.Second, Burst: 100},
		{Algorithm: algo.LeakyBucket, Limit: 900, Window: time.Second, Burst: 50},
	} {
		t.Run(p.Algorithm.String(), func(t *testing.T) {
			server.Do("FLUSHALL")
			r := startReplicas(t, 3, task{
				Env:    env{"REDIS_URL": server.Addr, "REDIS_TIMEOUT": "10s"},
				Params: p, Callers: 4, Calls: 3000,
			})
			began := serverTime(t, server)
			r.start()
			n := int64(len(r.wait().admitted))
			took := serverTime(t, server) - began
			most := int64(p.Burst) + int64(p.Limit)*took/1e6 + 1
			if n > most || n < int64(p.Burst) {
				t.Errorf("%d admitted in %d µs, want at least %d and at most %d", n, took, p.Burst, most)
			}
		})
	}
}

// serverTime returns the server's time in µs.
func serverTime(t *testing.T, s *redistest.Server) int64 {
	t.Helper()
	m := s.Do("TIME")
	parts, err := m.AsIntSlice()
	if err != nil {
		t.Fatal(err)
	}
	return parts[0]*1e6 + parts[1]
}

const (
	leaseShare  = 0.3
	leaseLimit  = 2000
	leaseWindow = time.Second
)

// TestLeases has three replicas spend leases of one key, and for each algorithm
// counts what was admitted in any window. It is no more than without leases and
// what was held, which is the published bound, and which the replicas report.
func TestLeases(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	for name, test := range map[string]struct {
		params algo.Params
		most   int // without leases, in a window
	}{
		"fixed_window":   {algo.Params{Algorithm: algo.FixedWindow, Window: algo.MaxWindow}, leaseLimit},
		"sliding_window": {algo.Params{Algorithm: algo.SlidingWindow}, 2*leaseLimit - 1},
		"strict":         {algo.Params{Algorithm: algo.SlidingWindow, Strict: true}, leaseLimit},
		"sliding_log":    {algo.Params{Algorithm: algo.SlidingLog}, leaseLimit},
		"token_bucket":   {algo.Params{Algorithm: algo.TokenBucket, Burst: 500}, leaseLimit + 500},
		"leaky_bucket":   {algo.Params{Algorithm: algo.LeakyBucket, Burst: 400}, leaseLimit + 400},
		"hybrid":         {algo.Params{Algorithm: algo.Hybrid, Strict: true}, leaseLimit},
	} {
		for _, kill := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/kill=%t", name, kill), func(t *testing.T) {
				p := test.params
				p.Limit = leaseLimit
				if p.Window == 0 {
					p.Window = leaseWindow
				}
				testLease(t, server, p, test.most, kill)
			})
		}
	}
}

func testLease(t *testing.T, server *redistest.Server, p algo.Params, most int, kill bool) {
	server.Do("FLUSHALL")
	r := startReplicas(t, 3, task{
		Env:    env{"REDIS_URL": server.Addr, "REDIS_TIMEOUT": "10s", "REPLICAS": "3"},
		Params: p, Lease: leaseShare, Callers: 2, For: 1500 * time.Millisecond,
	})
	r.start()
	if kill {
		first := r.out[0]
		for n := 0; n < 50 && first.Scan(); n++ { // it is in the midst of it
		}
		r.kill(0)
	}
	got := r.wait()
	n := got.most(p.Window)
	capacity := p.Limit
	if p.Burst != 0 {
		capacity = p.Burst
	}
	bound := int(leaseShare * float64(capacity))
	if p.Algorithm == algo.FixedWindow {
		bound = 0
	}
	if n > most+bound {
		t.Errorf("%d admitted within %v, want at most %d, and %d for leases", n, p.Window, most, bound)
	}
	if !kill && n > most+int(got.held) {
		t.Errorf("%d admitted within %v, %d more than without leases, and the replicas report that they held %d", n, p.Window, n-most, got.held)
	}
	if got.held > int64(leaseShare*float64(capacity)) {
		t.Errorf("%d held at once, want at most %g of %d", got.held, leaseShare, capacity)
	}
	if !kill && got.held == 0 {
		t.Error("there were no leases")
	}
	t.Logf("%d admitted in all, %d within %v, %d held", len(got.admitted), n, p.Window, got.held)
}
