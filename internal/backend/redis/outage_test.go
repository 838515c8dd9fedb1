package redis_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/logtest"
)

const (
	goes = "Redis does not answer: calls are suspended until it does"
	back = "Redis answers again"
)

// busyMachine is the tolerated delay on a machine that runs other programs, too.
const busyMachine = 150 * time.Millisecond

// stalls measures how long the machine keeps this process waiting. Late answers during a
// stall prove nothing. The function that it returns ends the measurement, and returns the
// longest stall.
func stalls() func() time.Duration {
	const pace = 5 * time.Millisecond
	stop, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		var most time.Duration
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-stop:
				longest <- most
				return
			case <-time.After(pace):
				most = max(most, time.Since(last)-pace)
			}
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-longest
	}
}

// steady is traffic of 500 requests a second for 40 keys.
func steady(t *testing.T, b *redis.Backend) *load {
	l := limit(t, algo.Params{Algorithm: algo.TokenBucket, Limit: 1_000_000, Window: time.Hour})
	return (&load{
		t: t, store: b, limit: l, callers: 20, pause: 40 * time.Millisecond,
		key: func(n int64) string { return strconv.FormatInt(n%40, 10) },
	}).start()
}

// more waits until that many more calls are answered.
func (l *load) more(n int64) {
	l.t.Helper()
	until := l.answered.Load() + n
	redistest.Eventually(l.t, "calls are answered", func() bool { return l.answered.Load() >= until })
}

// outage runs steady traffic during a fault that lasts for a while. No answer takes longer
// than its bound, and soon after the end all are answered.
func outage(t *testing.T, lasts time.Duration, strike, heal func(s *redistest.Server)) {
	// Not in parallel, because the test is about time.
	const bound = 50 * time.Millisecond
	log, lines := logtest.New(zapcore.InfoLevel)
	s := redistest.Start(t, redistest.Config{})
	b := open(t, redis.Options{Addrs: []string{s.Addr}, Timeout: bound, Log: log})
	traffic := steady(t, b)
	traffic.more(200)
	stalled := stalls()

	strike(s)
	struck := time.Now()
	redistest.Eventually(t, "calls are suspended", func() bool { return traffic.suspended.Load() > 0 })
	time.Sleep(time.Until(struck.Add(lasts)))
	heal(s)
	healed := time.Now()
	traffic.more(500)
	lines.Await(t, 1, back)
	traffic.end()
	stall := stalled()

	var longest, normal time.Duration
	for _, sample := range traffic.samples {
		longest = max(longest, sample.took)
		if sample.err != nil {
			normal = max(normal, sample.at.Add(sample.took).Sub(healed))
		}
	}
	t.Logf("longest answer %v, last failure %v after the end, %d of %d failed; the machine stalled for %v at most", longest, normal, traffic.failed(), len(traffic.samples), stall)
	if longest > bound+busyMachine+2*stall {
		t.Errorf("an answer took %v, want at most the bound of %v", longest, bound)
	}
	if normal > 200*time.Millisecond+busyMachine+2*stall { // Redis waits for its turns, too
		t.Errorf("calls failed for %v after Redis was back, want at most 0.2 s", normal)
	}
	if gone, again := lines.FilterMessage(goes).All(), lines.FilterMessage(back).All(); len(gone) != 1 || len(again) != 1 || lines.Len() != 2 {
		if stall > busyMachine {
			return
		}
		t.Errorf("the log has %v, want a line when Redis goes and one when it is back", lines.All())
	} else {
		counts := again[0].ContextMap()
		failed, suspended := counts["failed_requests"].(int64), counts["suspended_requests"].(int64)
		if failed == 0 || suspended == 0 || failed+suspended > int64(traffic.failed()) || failed+suspended < int64(traffic.failed()-5*traffic.callers) {
			t.Errorf("the line counts %v, and %d failed", counts, traffic.failed())
		}
	}
}

func TestRedisFrozen(t *testing.T) {
	outage(t, 8*time.Second, (*redistest.Server).Freeze, (*redistest.Server).Thaw)
}

func TestRedisFrozenShortly(t *testing.T) {
	outage(t, 700*time.Millisecond, (*redistest.Server).Freeze, (*redistest.Server).Thaw)
}

func TestRedisKilled(t *testing.T) {
	outage(t, 2*time.Second, (*redistest.Server).Kill, (*redistest.Server).Restart)
}

// TestRefusedLogins: steady traffic loses its connections and finds the password changed.
// That counts as an outage of Redis: few connections are tried, and one line says why.
func TestRefusedLogins(t *testing.T) {
	t.Parallel()
	core, lines := observer.New(zapcore.InfoLevel)
	s := redistest.Start(t, redistest.Config{})
	s.Do("PING") // this connection stays
	b := open(t, redis.Options{Addrs: []string{s.Addr}, Log: zap.New(core)})
	traffic := steady(t, b)
	traffic.more(200)
	s.Do("CONFIG", "SET", "requirepass", "new")
	before := s.Info("total_connections_received")
	s.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	began := time.Now()
	redistest.Eventually(t, "many calls are suspended", func() bool { return traffic.suspended.Load() > 1000 })
	tried, took := count(t, s.Info("total_connections_received"))-count(t, before), time.Since(began)
	if most := 10 + int(took/(50*time.Millisecond)); tried > most {
		t.Errorf("%d connections in %v, want at most %d", tried, took, most)
	}
	if b.Healthy() {
		t.Error("it is healthy while logins are refused")
	}
	s.Do("CONFIG", "SET", "requirepass", "")
	traffic.more(200)
	traffic.end()
	gone := lines.FilterMessage(goes).All()
	if len(gone) != 1 || !strings.Contains(gone[0].ContextMap()["error"].(string), "NOAUTH") {
		t.Errorf("the log has %v, want one line with NOAUTH", lines.All())
	}
}

func count(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestHealthWithoutTraffic makes no calls while Redis goes away and comes back.
func TestHealthWithoutTraffic(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Config{})
	s.Do("PING")
	b := open(t, redis.Options{Addrs: []string{s.Addr}})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b)
	becomes := func(healthy bool, when string) {
		t.Helper()
		redistest.Eventually(t, "health is "+strconv.FormatBool(healthy)+" when "+when, func() bool { return b.Healthy() == healthy })
		want := "0"
		if healthy {
			want = "1"
		}
		text := "# HELP ratelimit_redis_connected 1 while Redis answers; 0 before the first connection, and while all calls are suspended.\n" +
			"# TYPE ratelimit_redis_connected gauge\nratelimit_redis_connected " + want + "\n"
		if err := testutil.GatherAndCompare(registry, strings.NewReader(text), "ratelimit_redis_connected"); err != nil {
			t.Errorf("when %s: %v", when, err)
		}
	}
	becomes(true, "it is connected")
	s.Freeze()
	becomes(false, "Redis is frozen")
	s.Thaw()
	becomes(true, "it goes on")
	s.Do("CONFIG", "SET", "requirepass", "new")
	s.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	becomes(false, "it asks for a password")
	s.Do("CONFIG", "SET", "requirepass", "")
	becomes(true, "it does not any more")
	s.Kill()
	becomes(false, "it is killed")
	s.Restart()
	becomes(true, "it is started again")
}

// ask makes a request with a deadline, or without one for 0, and returns its duration.
func ask(t *testing.T, b *redis.Backend, key string, within time.Duration) (time.Duration, error) {
	t.Helper()
	l := limit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: 10, Window: 24 * time.Hour})
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	began := time.Now()
	if within > 0 {
		ctx, cancel = context.WithDeadline(ctx, began.Add(within))
	}
	defer cancel()
	req := backend.Request{Checks: []backend.Check{{Key: []byte(key), Limit: l, Hits: 1}}}
	err := b.Decide(ctx, &req, make([]algo.Decision, 1))
	return time.Since(began), err
}

// TestAnswersAreInTimeForTheirCallers asks a frozen Redis for one key with several
// deadlines at once. Each caller is answered shortly before its own.
func TestAnswersAreInTimeForTheirCallers(t *testing.T) {
	for name, test := range map[string]struct {
		timeout time.Duration
		within  map[time.Duration]time.Duration // by deadline: the bound
	}{
		"no timeout": {0, map[time.Duration]time.Duration{
			0:                       250 * time.Millisecond,
			10 * time.Millisecond:   8 * time.Millisecond,
			30 * time.Millisecond:   27 * time.Millisecond,
			300 * time.Millisecond:  270 * time.Millisecond,
			1000 * time.Millisecond: 900 * time.Millisecond,
		}},
		"a timeout": {100 * time.Millisecond, map[time.Duration]time.Duration{
			0:                     100 * time.Millisecond,
			30 * time.Millisecond: 27 * time.Millisecond,
			time.Second:           100 * time.Millisecond,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := redistest.Start(t, redistest.Config{})
			b := open(t, redis.Options{Addrs: []string{s.Addr}, Timeout: test.timeout, BreakAfter: 1000})
			s.Freeze()
			defer s.Thaw()
			stalled := stalls()
			var mu sync.Mutex
			took := map[time.Duration]time.Duration{}
			var all sync.WaitGroup
			for within := range test.within {
				all.Go(func() {
					after, err := ask(t, b, "hot", within)
					if !errors.Is(err, redis.ErrUnavailable) {
						t.Errorf("with a deadline in %v: %v, want ErrUnavailable", within, err)
					}
					mu.Lock()
					took[within] = after
					mu.Unlock()
				})
			}
			all.Wait()
			stall := stalled()
			for within, bound := range test.within {
				if took[within] < bound-time.Millisecond || took[within] > bound+busyMachine+stall {
					t.Errorf("with a deadline in %v the answer took %v, want %v; the machine stalled for %v at most", within, took[within], bound, stall)
				}
			}
		})
	}
}

// TestNoTimeToAsk: a caller leaves before an answer could arrive.
func TestNoTimeToAsk(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Config{})
	b := open(t, redis.Options{Addrs: []string{s.Addr}})
	if _, err := ask(t, b, "late", 2*time.Millisecond); !errors.Is(err, redis.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if _, err := ask(t, b, "early", time.Minute); err != nil {
		t.Fatal(err)
	}
	if n := s.Text("DBSIZE"); n != "1" {
		t.Errorf("%s counters, want one: that of the request in time", n)
	}
}

// TestAChargeThatNobodyWaitsFor: a caller was answered without Redis. Its hit, if it was
// sent, is charged when Redis goes on.
func TestAChargeThatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Config{})
	b := open(t, redis.Options{Addrs: []string{s.Addr}})
	if _, err := ask(t, b, "another", 0); err != nil { // Redis knows the script now
		t.Fatal(err)
	}
	s.Freeze()
	if _, err := ask(t, b, "a", 50*time.Millisecond); !errors.Is(err, redis.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	s.Thaw()
	redistest.Eventually(t, "the hit is charged", func() bool { return s.Text("DBSIZE") == "2" })
	l := limit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: 10, Window: 24 * time.Hour})
	if d, err := hit(b, "a", l, 0); err != nil || d.Remaining != 9 {
		t.Errorf("%+v, %v, want 9 left", d, err)
	}
}
