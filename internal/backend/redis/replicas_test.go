package redis_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/settings"
	"github.com/distlimiter/ratelimit/internal/testprogram"
)

// replicaVariable makes this test program a replica of the service: a process of its own
// with a backend of its own.
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

// task is what a replica does: for each limit in turn, it calls for one key, from
// several callers, a number of times or for some time.
type task struct {
	Env     env // settings of the backend
	Params  []algo.Params
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
	from, err := settings.ReadRedis(do.Env.get)
	if err != nil {
		return err
	}
	b, err := redis.New(from.Options)
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
	for i, p := range do.Params {
		if err := do.one(b, i, p); err != nil {
			return err
		}
		fmt.Printf("held %d %d\n", i, metric(b, "ratelimit_redis_lease_overshoot_hits"))
	}
	return nil
}

// one does the task for one limit.
func (do task) one(b *redis.Backend, i int, p algo.Params) error {
	l, err := algo.New(p)
	if err != nil {
		return err
	}
	var calls atomic.Int64
	var done sync.WaitGroup
	var failed atomic.Pointer[error]
	end := time.Now().Add(do.For)
	for range do.Callers {
		done.Go(func() {
			out := make([]algo.Decision, 1)
			req := backend.Request{Checks: []backend.Check{{Key: fmt.Append(nil, "hot ", i), Limit: l, Hits: 1, Lease: do.Lease}}}
			for calls.Add(1) <= do.Calls || time.Now().Before(end) {
				began := time.Now()
				if err := b.Decide(context.Background(), &req, out); err != nil {
					failed.Store(&err)
				} else if out[0].Allowed {
					now := time.Now()
					fmt.Printf("admit %d %d %d\n", i, now.UnixMicro(), now.Sub(began).Microseconds())
				} else if do.For > 0 {
					time.Sleep(time.Millisecond) // rather than take a processor for each caller
				}
			}
		})
	}
	done.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// metric returns the value of a metric without labels.
func metric(c prometheus.Collector, name string) (value int64) {
	all := make(chan prometheus.Metric, 100)
	c.Collect(all)
	close(all)
	for m := range all {
		var d dto.Metric
		if strings.Contains(m.Desc().String(), `"`+name+`"`) && m.Write(&d) == nil {
			value = int64(d.GetGauge().GetValue() + d.GetCounter().GetValue())
		}
	}
	return value
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
		testprogram.EndWithParent(cmd)
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

// outcome is what replicas did together for one limit.
type outcome struct {
	admitted []admission
	held     int64 // of one counter at once, so far, all replicas together
}

// wait waits for the replicas, and returns the outcome for each of n limits.
func (r *replicas) wait(n int) []outcome {
	r.t.Helper()
	all := make([]outcome, n)
	var mu sync.Mutex
	var done sync.WaitGroup
	for i, out := range r.out {
		done.Go(func() { // a replica that nobody listens to stops
			for out.Scan() {
				mu.Lock()
				hear(all, out.Text())
				mu.Unlock()
			}
			if err := r.processes[i].Wait(); err != nil && !r.killed[i].Load() {
				r.t.Errorf("replica %d: %v", i, err)
			}
		})
	}
	done.Wait()
	for _, o := range all {
		slices.SortFunc(o.admitted, func(a, b admission) int { return a.at.Compare(b.at) })
	}
	return all
}

// hear takes note of what a replica says, unless it was killed as it spoke.
func hear(all []outcome, text string) {
	var of int
	var at, took, held int64
	if n, _ := fmt.Sscanf(text, "admit %d %d %d", &of, &at, &took); n == 3 {
		all[of].admitted = append(all[of].admitted, admission{time.UnixMicro(at), time.Duration(took) * time.Microsecond})
	} else if n, _ := fmt.Sscanf(text, "held %d %d", &of, &held); n == 2 {
		all[of].held += held
	}
}

// kill ends a replica at once.
func (r *replicas) kill(i int) {
	r.killed[i].Store(true)
	_ = r.processes[i].Process.Kill()
}

// most returns the most hits that certainly were admitted within one window. A hit
// was admitted at some time while its call took: it counts if even the earliest such
// time is in the window.
func (o outcome) most(window time.Duration) (most int) {
	var begins, ends []time.Time // of calls that took less than the window; admitted is in the order of ends
	for _, a := range o.admitted {
		if a.took < window {
			begins, ends = append(begins, a.at.Add(-a.took)), append(ends, a.at)
		}
	}
	slices.SortFunc(begins, time.Time.Compare)
	before := 0 // calls that may have been admitted before the window that ends with this one
	for i, end := range ends {
		for !begins[before].After(end.Add(-window)) {
			before++
		}
		most = max(most, i+1-before)
	}
	return most
}

// TestTheBusiestWindowHoldsWhatWasCertainlyInIt: a call that took longer than the
// window tells nothing of its own hit, and takes nothing from what the others tell.
func TestTheBusiestWindowHoldsWhatWasCertainlyInIt(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	start := time.UnixMicro(1_700_000_000_000_000)
	admitted := func(at, took time.Duration) admission { return admission{start.Add(at), took} }
	for _, test := range []struct {
		name string
		hits []admission
		want int
	}{
		{"none", nil, 0},
		{"one that took longer than the window", []admission{admitted(0, 600*ms)}, 0},
		{"all took longer", []admission{admitted(0, 600*ms), admitted(ms, 600*ms), admitted(2*ms, 600*ms)}, 0},
		{"one slow one among others", []admission{admitted(0, ms), admitted(10*ms, 600*ms), admitted(20*ms, ms), admitted(30*ms, ms)}, 3},
		{"the last one was slow", []admission{admitted(0, ms), admitted(10*ms, ms), admitted(20*ms, 600*ms)}, 2},
		{"the window has an end", []admission{admitted(0, ms), admitted(498*ms, ms), admitted(499*ms, ms)}, 2},
	} {
		if got := (outcome{admitted: test.hits}).most(500 * ms); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// killOne kills one of the replicas in the midst of its task.
func (r *replicas) killOne() {
	i, lines := rand.IntN(len(r.out)), rand.IntN(2000)
	r.t.Logf("replica %d is killed after it has written %d lines", i, lines)
	for range lines {
		r.out[i].Scan()
	}
	r.kill(i)
}

// TestReplicas has three processes hit one key as fast as they can. Together
// they admit exactly the limit, and no more when one of them is killed.
func TestReplicas(t *testing.T) {
	t.Parallel()
	const limit = 1000
	var params []algo.Params
	for a := range algo.Algorithms() {
		p := algo.Params{Algorithm: algo.Algorithm(a), Limit: limit, Window: algo.MaxWindow, DeniedHits: algo.Drop}
		if p.Algorithm == algo.LeakyBucket {
			p.Burst = limit
		}
		params = append(params, p)
	}
	server := redistest.Start(t, redistest.Config{})
	for mode, settings := range map[string]env{
		"plain":                     {"REDIS_COMBINING": "false"},
		"combining":                 {},
		"combining and remembering": {"LOCAL_CACHE_SIZE_IN_BYTES": "1000000"},
		"one is killed":             {"LOCAL_CACHE_SIZE_IN_BYTES": "1000000"},
		"plain, and one is killed":  {"REDIS_COMBINING": "false"},
	} {
		t.Run(mode, func(t *testing.T) {
			server.Do("FLUSHALL")
			do := task{Env: env{"REDIS_URL": server.Addr, "REDIS_TIMEOUT": "10s"}, Params: params, Callers: 16, Calls: 700}
			maps.Copy(do.Env, settings)
			r := startReplicas(t, 3, do)
			r.start()
			kill := strings.Contains(mode, "killed")
			if kill {
				r.killOne()
			}
			for i, got := range r.wait(len(params)) {
				// What one that is killed could not tell is admitted too.
				if n := len(got.admitted); n > limit || n < limit && !kill {
					t.Errorf("%s: %d admitted, want the limit of %d", params[i].Algorithm, n, limit)
				}
			}
		})
	}
}

// TestReplicasRefill: where the limit refills meanwhile, what is admitted is the
// capacity and what the time has brought.
func TestReplicasRefill(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	params := []algo.Params{
		{Algorithm: algo.TokenBucket, Limit: 700, Window: time.Second, Burst: 100},
		{Algorithm: algo.LeakyBucket, Limit: 900, Window: time.Second, Burst: 50},
	}
	r := startReplicas(t, 3, task{
		Env: env{"REDIS_URL": server.Addr, "REDIS_TIMEOUT": "10s"}, Params: params, Callers: 4, Calls: 3000,
	})
	began := serverTime(t, server)
	r.start()
	all := r.wait(len(params))
	took := serverTime(t, server) - began
	for i, p := range params {
		n, most := int64(len(all[i].admitted)), int64(p.Burst)+int64(p.Limit)*took/1e6+1
		if n > most || n < int64(p.Burst) {
			t.Errorf("%s: %d admitted in %d µs, want at least %d and at most %d", p.Algorithm, n, took, p.Burst, most)
		}
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

// TestLeases has three replicas spend leases of one key, and for each algorithm
// counts what was admitted in any window. It is no more than without leases and
// what was held, which is within the published bound, and which they report.
func TestLeases(t *testing.T) {
	t.Parallel()
	const (
		limit  = 2000
		window = 500 * time.Millisecond
		share  = 0.3
	)
	tests := []struct {
		params algo.Params
		most   int // without leases, in a window
	}{
		{algo.Params{Algorithm: algo.FixedWindow, Window: algo.MaxWindow}, limit},
		{algo.Params{Calendar: algo.Calendar{Every: algo.EveryYear, Zone: "Europe/Berlin"}}, limit},
		{algo.Params{Algorithm: algo.SlidingWindow}, 2*limit - 1},
		{algo.Params{Algorithm: algo.SlidingWindow, Strict: true}, limit},
		{algo.Params{Algorithm: algo.SlidingLog}, limit},
		{algo.Params{Algorithm: algo.TokenBucket, Burst: 500}, limit + 500},
		{algo.Params{Algorithm: algo.LeakyBucket, Burst: 400}, limit + 400},
		{algo.Params{Algorithm: algo.Hybrid, Strict: true}, limit},
	}
	server := redistest.Start(t, redistest.Config{})
	do := task{Env: env{"REDIS_URL": server.Addr, "REDIS_TIMEOUT": "10s", "REPLICAS": "3"}, Lease: share, Callers: 2, For: 2 * window}
	for i := range tests {
		p := &tests[i].params
		p.Limit = limit
		if p.Length() == 0 {
			p.Window = window
		}
		do.Params = append(do.Params, *p)
	}
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("kill=%t", kill), func(t *testing.T) {
			server.Do("FLUSHALL")
			r := startReplicas(t, 3, do)
			r.start()
			if kill {
				r.killOne()
			}
			for i, got := range r.wait(len(tests)) {
				p, most := tests[i].params, tests[i].most
				n, bound := got.most(p.Length()), int(share*limit)
				if p.Algorithm == algo.FixedWindow {
					bound = 0
				} else if p.Burst > 0 {
					bound = int(share * float64(p.Burst))
				}
				t.Logf("%s: %d admitted in all, %d within %v, %d held", p.Algorithm, len(got.admitted), n, p.Window, got.held)
				if n > most+bound {
					t.Errorf("want at most %d, and %d for leases", most, bound)
				}
				if over := int64(n - most); !kill && over > got.held {
					t.Errorf("%d more than without leases, and the replicas report that they held %d", over, got.held)
				}
				if got.held > share*limit || !kill && got.held == 0 {
					t.Errorf("%d held at once, want some of, and at most, %g of %d", got.held, share, limit)
				}
			}
		})
	}
}

// TestAReplicaThatStopsGivesItsLeasesBack asks until it holds something, and closes.
func TestAReplicaThatStopsGivesItsLeasesBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Config{})
	for i, name := range algo.Algorithms() {
		if algo.Algorithm(i).AlwaysHolds() {
			continue // has no leases
		}
		t.Run(fmt.Sprint(name), func(t *testing.T) {
			t.Parallel()
			const most = 60_000
			p := algo.Params{Algorithm: algo.Algorithm(i), Limit: most, Window: algo.MaxWindow}
			if p.Algorithm == algo.LeakyBucket {
				p.Burst = most // one by one there is nothing to lease
			}
			l := limit(t, p)
			o := redis.Options{Addrs: []string{server.Addr}, Timeout: unhurried, DialTimeout: unhurried}
			out := make([]algo.Decision, 1)
			ask := func(b *redis.Backend, hits int64) {
				t.Helper()
				checks := []backend.Check{{Key: fmt.Append(nil, name), Limit: l, Hits: hits, Lease: 0.5}}
				if err := b.Decide(t.Context(), &backend.Request{Checks: checks}, out); err != nil {
					t.Fatal(err)
				}
			}
			stopping := open(t, o)
			asked := int64(0)
			for ; metric(stopping, "ratelimit_redis_lease_held_hits") == 0; asked++ {
				ask(stopping, 1)
			}
			stopping.Close()
			ask(open(t, o), 0)
			if want := most - asked; out[0].Remaining != want {
				t.Errorf("%d remain after %d hits, want %d", out[0].Remaining, asked, want)
			}
		})
	}
}
