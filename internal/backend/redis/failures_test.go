package redis_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
)

// tableVariable names a file for the figures of TestFailures, as docs/ has them.
const tableVariable = "REDIS_FAILURES_TABLE"

// failure is one kind of failure of Redis under load.
type failure struct {
	name string
	// start starts Redis, and returns the options to reach it, a function that makes it
	// fail, and one that ends the failure; nil if it ends by itself.
	start func(t *testing.T) (o redis.Options, strike, heal func())
	// suspends is set if calls must be suspended, because Redis does not answer.
	suspends bool
	// forgets is set if all counters are lost, so that each limit is admitted again.
	// loses is how much of each may be admitted again, because a replica had not
	// received it yet.
	forgets bool
	loses   int64
	// refuses is set if Redis answers calls that charge with errors of its own.
	refuses bool
	perKey  uint32 // limit; default 500
}

// one starts a single server.
func one(strike, heal func(s *redistest.Server)) func(t *testing.T) (redis.Options, func(), func()) {
	return func(t *testing.T) (redis.Options, func(), func()) {
		s := redistest.Start(t, redistest.Config{})
		o := redis.Options{Addrs: []string{s.Addr}}
		if heal == nil {
			return o, func() { strike(s) }, nil
		}
		return o, func() { strike(s) }, func() { heal(s) }
	}
}

var failures = []failure{
	{
		name: "SIGKILL, then started again, empty", suspends: true, forgets: true,
		start: one((*redistest.Server).Kill, (*redistest.Server).Restart),
	},
	{
		name: "SIGSTOP, then SIGCONT", suspends: true,
		start: one((*redistest.Server).Freeze, (*redistest.Server).Thaw),
	},
	{
		name: "CLIENT PAUSE 1500 ALL", suspends: true,
		start: one(func(s *redistest.Server) { s.Do("CLIENT", "PAUSE", "1500", "ALL") }, nil),
	},
	{
		name: "restarted at once, empty", forgets: true,
		start: one((*redistest.Server).Restart, nil),
	},
	{
		name:  "SCRIPT FLUSH (NOSCRIPT)",
		start: one(func(s *redistest.Server) { s.Do("SCRIPT", "FLUSH") }, nil),
	},
	{
		name:  "all connections closed by the server",
		start: one(func(s *redistest.Server) { s.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") }, nil),
	},
	{
		name: "maxmemory reached, noeviction (OOM)", refuses: true, perKey: 100_000,
		start: one(func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "1") },
			func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "0") }),
	},
	{
		name: "made a replica (READONLY), then a master", suspends: true, perKey: 100_000,
		start: one(func(s *redistest.Server) { s.Do("REPLICAOF", "127.0.0.1", "1") },
			func(s *redistest.Server) { s.Do("REPLICAOF", "NO", "ONE") }),
	},
	{
		name: "Sentinel: the master is killed", suspends: true, loses: 100,
		start: func(t *testing.T) (redis.Options, func(), func()) {
			s := redistest.StartSentinels(t, "")
			master := s.Master()
			return redis.Options{Mode: redis.Sentinel, MasterName: redistest.MasterName, Addrs: s.Addrs()}, master.Kill, func() {
				redistest.Eventually(t, "there is another master", func() bool { return s.Master() != master })
			}
		},
	},
	{
		name: "Cluster: a master of three is killed", suspends: true, loses: 100,
		start: func(t *testing.T) (redis.Options, func(), func()) {
			c := redistest.StartCluster(t)
			return redis.Options{Mode: redis.Cluster, Addrs: c.Addrs()}, c.Masters[0].Kill, func() {
				redistest.Eventually(t, "its replica has taken over", c.Healthy)
			}
		},
	},
	{
		name: "Cluster: all slots in use move to another master",
		start: func(t *testing.T) (redis.Options, func(), func()) {
			c := redistest.StartCluster(t)
			return redis.Options{Mode: redis.Cluster, Addrs: c.Addrs()}, func() { moveAll(c) }, nil
		},
	},
}

// figures are the measurements of a failure.
type figures struct {
	name                  string
	calls, failed         int
	before, closing, open time.Duration // p99
	recovery              time.Duration // until the last failure after the end
	admitted, most        int64
}

// TestFailures runs each failure under a steady load. No call takes for ever or fails in
// an unknown way. Calls are suspended when Redis does not answer. The service recovers by
// itself. No more is admitted than the limit, or twice the limit if Redis has lost its
// counters.
func TestFailures(t *testing.T) {
	t.Parallel()
	var table []figures
	for _, f := range failures {
		t.Run(f.name, func(t *testing.T) { table = append(table, fail(t, f)) })
	}
	if path := os.Getenv(tableVariable); path != "" {
		if err := os.WriteFile(path, []byte(render(table)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func fail(t *testing.T, f failure) figures {
	const keys = 24
	perKey := int64(cmp.Or(f.perKey, 500))
	o, strike, heal := f.start(t)
	o.BreakFor = 300 * time.Millisecond
	b := open(t, o)
	l := limit(t, algo.Params{Algorithm: algo.TokenBucket, Limit: uint32(perKey), Window: 30 * 24 * time.Hour})
	traffic := (&load{
		t: t, store: b, limit: l, callers: 32, pause: 2 * time.Millisecond, refusals: f.refuses,
		key: func(n int64) string { return "key " + strconv.FormatInt(n%keys, 10) },
	}).start()
	calls := func(n int64) {
		until := traffic.calls.Load() + n
		redistest.Eventually(t, "more calls are made", func() bool { return traffic.calls.Load() > until })
	}

	calls(5000)
	struck := time.Now()
	strike()
	if f.suspends {
		redistest.Eventually(t, "calls are suspended", func() bool { return traffic.suspended.Load() > 0 })
	}
	calls(5000)
	healed := time.Now()
	if heal != nil {
		heal()
	}
	answered := traffic.answered.Load()
	redistest.Eventually(t, "calls are answered again", func() bool { return traffic.answered.Load() > answered+500 })
	calls(3000)
	traffic.end()

	r := figures{name: f.name, calls: len(traffic.samples), failed: traffic.failed()}
	most := perKey + f.loses
	if f.forgets {
		most = 2 * perKey
	}
	r.most = keys * most
	for _, n := range traffic.admitted {
		r.admitted += n
		if n > most {
			t.Errorf("%d admitted of a key, want at most %d", n, most)
		}
	}
	if (f.suspends || f.refuses) && r.failed == 0 {
		t.Error("no call failed")
	}
	r.before = quantile(traffic.between(time.Time{}, struck), 0.99)
	after := traffic.between(struck, healed.Add(time.Hour))
	first := slices.IndexFunc(after, func(s sample) bool { return errors.Is(s.err, redis.ErrSuspended) })
	if first < 0 {
		first = len(after)
	}
	r.closing = quantile(after[:first], 0.99)
	r.open = quantile(slices.DeleteFunc(slices.Clone(after[first:]), func(s sample) bool { return !errors.Is(s.err, redis.ErrSuspended) }), 0.99)
	for _, s := range after {
		if s.err != nil && s.at.After(healed) {
			r.recovery = s.at.Add(s.took).Sub(healed)
		}
	}
	t.Logf("%+v", r)
	return r
}

// render writes the table as docs/ has it.
func render(table []figures) string {
	var b strings.Builder
	b.WriteString("| what happens | calls | failed | p99 before | p99 until calls are suspended | p99 while they are | last failure after the end | admitted, of at most |\n")
	b.WriteString("| --- | --: | --: | --: | --: | --: | --: | --: |\n")
	ms := func(d time.Duration) string {
		return cmp.Or(strings.TrimSuffix(fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)), "0.00 ms"), "–")
	}
	for _, r := range table {
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %s | %s | %s | %d, %d |\n", r.name, r.calls, r.failed,
			ms(r.before), ms(r.closing), ms(r.open), ms(r.recovery), r.admitted, r.most)
	}
	return b.String()
}
