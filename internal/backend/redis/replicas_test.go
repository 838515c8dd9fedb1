package redis_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
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

// task is what a replica does: so many calls for one key, from several callers.
type task struct {
	Env     map[string]string // settings of the backend
	Params  algo.Params
	Callers int
	Calls   int64
}

// replicate connects, says that it is ready, does the task when told to, and
// tells how many hits it has admitted.
func replicate(text string) error {
	var do task
	if err := json.Unmarshal([]byte(text), &do); err != nil {
		return err
	}
	l, err := algo.New(do.Params)
	if err != nil {
		return err
	}
	settings, err := redis.FromEnvironment(env(do.Env).get)
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
	var calls, admitted, failed atomic.Int64
	var done sync.WaitGroup
	for range do.Callers {
		done.Go(func() {
			for n := calls.Add(1); n <= do.Calls; n = calls.Add(1) {
				d, err := hit(b, "hot", l, 1)
				switch {
				case err != nil:
					failed.Add(1)
				case d.Allowed:
					admitted.Add(1)
				}
			}
		})
	}
	done.Wait()
	fmt.Println(admitted.Load())
	if n := failed.Load(); n > 0 {
		return fmt.Errorf("%d calls failed", n)
	}
	return nil
}

// replicas are processes that all begin at once.
type replicas struct {
	t         *testing.T
	processes []*exec.Cmd
	begin     []*os.File
	out       []*bufio.Scanner
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
	r := &replicas{t: t}
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

// admitted waits for the replicas and returns what they admitted together.
func (r *replicas) admitted() (sum int64) {
	r.t.Helper()
	for i, out := range r.out {
		for out.Scan() {
			n, err := strconv.ParseInt(out.Text(), 10, 64)
			if err != nil {
				r.t.Fatal(err)
			}
			sum += n
		}
		if err := r.processes[i].Wait(); err != nil {
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL { // it is one on unix
				r.t.Errorf("replica %d: %v", i, err)
			}
		}
	}
	return sum
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
				if n := r.admitted(); n != 1000 {
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
			n := r.admitted()
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
