package redis_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/settings"
)

const failoverLimit = 200

// TestSentinelFailover kills the master under load. Calls fail for a while, and
// then go to the new master without a restart. Counters that the replica had
// copied go on.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t, "pw")
	sentinels := filepath.Join(t.TempDir(), "password")
	write(t, sentinels, "pw")
	from, err := settings.ReadRedis(env{
		"REDIS_TYPE": "SENTINEL", "REDIS_URL": redistest.MasterName + "," + strings.Join(s.Addrs(), ","),
		"REDIS_AUTH": "pw", "REDIS_SENTINEL_PASSWORD_FILE": sentinels, "REDIS_TIMEOUT": "500ms", "REDIS_BREAK_FOR": "100ms",
	}.get)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, from.Options)
	l := limit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: failoverLimit, Window: 24 * time.Hour, DeniedHits: algo.Drop})
	traffic := (&load{t: t, store: b, limit: l, callers: 8, pause: time.Millisecond, key: func(int64) string { return "hot" }}).start()
	redistest.Eventually(t, "the limit is reached", func() bool { return traffic.refused.Load() > 0 })

	old := s.Master()
	for _, replica := range s.Servers[1:] {
		redistest.Eventually(t, "the replicas have it all", func() bool { return replica.Text("DBSIZE") == "1" })
	}
	old.Kill()
	redistest.Eventually(t, "there is another master", func() bool { return s.Master() != old })
	redistest.Eventually(t, "it is asked", func() bool {
		_, err := hit(b, "other", l, 1)
		return err == nil
	})
	traffic.end()
	if n := traffic.admitted["hot"]; n < failoverLimit || n > failoverLimit+8 {
		t.Errorf("%d admitted, want the limit of %d and at most what was under way", n, failoverLimit)
	}
	if traffic.failed() == 0 {
		t.Error("no call failed while there was no master")
	}
}

// clusterOf returns a backend that reaches the cluster by all of its nodes.
func clusterOf(t *testing.T, c *redistest.Cluster, timeout string) *redis.Backend {
	from, err := settings.ReadRedis(env{
		"REDIS_TYPE": "CLUSTER", "REDIS_URL": strings.Join(c.Addrs(), ","), "REDIS_TIMEOUT": timeout, "REDIS_BREAK_FOR": "100ms",
	}.get)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, from.Options)
}

// TestCluster decides requests of several descriptors. It moves slots to another master
// while they are used, which changes no decision, and kills a master.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	t.Run("requests", func(t *testing.T) { testClusterRequests(t, clusterOf(t, c, "10s"), c) })
	t.Run("migration", func(t *testing.T) { testMigration(t, clusterOf(t, c, "10s"), c) })
	t.Run("failover", func(t *testing.T) { testClusterFailover(t, clusterOf(t, c, "500ms"), c) })
}

func testClusterRequests(t *testing.T, b *redis.Backend, c *redistest.Cluster) {
	ctx := context.Background()
	few := limit(t, algo.Params{Algorithm: algo.TokenBucket, Limit: 2, Window: 24 * time.Hour})
	many := limit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: 100, Window: 24 * time.Hour, DeniedHits: algo.Drop})
	out := make([]algo.Decision, 20)

	var each backend.Request
	for i := range out {
		each.Checks = append(each.Checks, backend.Check{Key: fmt.Appendf(nil, "each %d", i), Limit: few, Hits: 1, Descriptor: i})
	}
	for _, allowed := range []bool{true, true, false} {
		if err := b.Decide(ctx, &each, out); err != nil {
			t.Fatal(err)
		}
		for i, d := range out {
			if d.Allowed != allowed {
				t.Errorf("check %d: %+v, want allowed=%t", i, d, allowed)
			}
		}
	}
	for i, m := range c.Masters {
		if m.Text("DBSIZE") == "0" {
			t.Errorf("master %d has none of %d keys", i, len(out))
		}
	}

	// The two limits of one descriptor, and all counters of a domain, share a
	// shard and are decided as one. The limit of 2 holds the other back.
	shard := []byte("4:edge|")
	together := backend.Request{AllOrNothing: true}
	for i, l := range []*algo.Limit{few, many} {
		key := fmt.Appendf(nil, "%s4:path=2:/x|%d", shard, i)
		together.Checks = append(together.Checks, backend.Check{Key: key, Shard: len(shard), Limit: l, Hits: 1, Descriptor: i})
	}
	for range 5 {
		if err := b.Decide(ctx, &together, out[:2]); err != nil {
			t.Fatal(err)
		}
	}
	if out[0].Allowed || !out[1].Allowed || out[1].Remaining != 98 {
		t.Errorf("got %+v, want the second limit charged twice", out[:2])
	}

	apart := backend.Request{AllOrNothing: true, Checks: []backend.Check{
		{Key: []byte("a"), Limit: few, Hits: 1}, {Key: []byte("b"), Limit: few, Hits: 1, Descriptor: 1},
	}}
	if err := b.Decide(ctx, &apart, out[:2]); !errors.Is(err, redis.ErrSpread) {
		t.Errorf("got %v, want ErrSpread: what is not in one slot cannot be decided together", err)
	}
}

func testMigration(t *testing.T, b *redis.Backend, c *redistest.Cluster) {
	l := limit(t, algo.Params{Algorithm: algo.SlidingWindow, Limit: failoverLimit, Window: 24 * time.Hour, DeniedHits: algo.Drop})
	key := func(n int64) string { return "moving " + strconv.FormatInt(n%4, 10) }
	traffic := (&load{t: t, store: b, limit: l, callers: 8, pause: 100 * time.Microsecond, key: key}).start()
	pairs := make(chan error, 1)
	stop := make(chan struct{})
	go func() { pairs <- decidePairs(b, l, stop) }()
	redistest.Eventually(t, "there are keys", func() bool { return traffic.calls.Load() > 100 })

	moved := moveAll(c)
	redistest.Eventually(t, "all limits are reached", func() bool { return traffic.refused.Load() > 4*failoverLimit })
	traffic.end()
	close(stop)
	if err := <-pairs; err != nil {
		t.Error(err)
	}
	if moved < 4 {
		t.Errorf("%d slots were moved, want those of 4 keys", moved)
	}
	if n := traffic.failed(); n > 0 {
		t.Errorf("%d calls failed", n)
	}
	for key, n := range traffic.admitted {
		if n != failoverLimit {
			t.Errorf("%s: %d admitted, want %d", key, n, failoverLimit)
		}
	}
}

// decidePairs decides two limits of one descriptor until stopped. Their two keys are in
// one slot, and for a while on different servers.
func decidePairs(b *redis.Backend, l *algo.Limit, stop chan struct{}) error {
	out := make([]algo.Decision, 2)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		shard := fmt.Sprintf("pair %d|", n%8)
		req := backend.Request{Checks: []backend.Check{
			{Key: []byte(shard + "a"), Shard: len(shard), Limit: l, Hits: 1},
			{Key: []byte(shard + "b"), Shard: len(shard), Limit: l, Hits: 1},
		}}
		if err := b.Decide(context.Background(), &req, out); err != nil {
			return err
		}
		// A key moves with its time to live, not with its expiry. The expiry is part of
		// the counter, which may be late by the time of the move.
		drift := (out[0].ResetAfter - out[1].ResetAfter).Abs()
		if out[0].Allowed != out[1].Allowed || out[0].Remaining != out[1].Remaining || drift > 10*time.Second {
			return fmt.Errorf("two equal counters that are charged together differ: %+v", out)
		}
	}
}

// moveAll moves each slot that holds keys to another master, and returns how many.
func moveAll(c *redistest.Cluster) (moved int) {
	for from, master := range c.Masters {
		for slot := range c.Used(master) {
			c.Move(slot, master, c.Masters[(from+1)%len(c.Masters)])
			moved++
		}
	}
	return moved
}

func testClusterFailover(t *testing.T, b *redis.Backend, c *redistest.Cluster) {
	l := limit(t, algo.Params{Algorithm: algo.LeakyBucket, Limit: 1, Window: 24 * time.Hour, Burst: failoverLimit})
	key := func(n int64) string { return "failing over " + strconv.FormatInt(n%16, 10) }
	traffic := (&load{t: t, store: b, limit: l, callers: 16, pause: time.Millisecond, key: key}).start()
	redistest.Eventually(t, "there are keys", func() bool { return traffic.calls.Load() > 1000 })

	c.Masters[0].Kill()
	redistest.Eventually(t, "the others see that it is gone", func() bool { return !c.Healthy() })
	redistest.Eventually(t, "its replica has taken over", c.Healthy)
	redistest.Eventually(t, "every key is answered for again", func() bool {
		for n := range int64(16) {
			if _, err := hit(b, key(n), l, 0); err != nil {
				return false
			}
		}
		return true
	})
	traffic.end()
	for key, n := range traffic.admitted {
		// What was written in the last moments may not have reached the replica.
		if n > failoverLimit+50 {
			t.Errorf("%s: %d admitted, want about %d", key, n, failoverLimit)
		}
	}
}
