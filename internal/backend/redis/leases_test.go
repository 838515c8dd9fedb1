package redis

import (
	"fmt"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis/lease"
)

// TestWhatALeaseGivesBackIsNotRefused: an earlier refusal is no longer remembered.
func TestWhatALeaseGivesBackIsNotRefused(t *testing.T) {
	t.Parallel()
	const most = 1_000_000
	b := openFor(t, Options{LocalCacheBytes: 1 << 20})
	b.stop() // nothing is given back by itself
	b.stopped.Wait()
	limit, err := algo.New(algo.Params{Algorithm: algo.TokenBucket, Limit: most, Window: 300 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	decide := func(hits int64, share float64) algo.Decision {
		out := make([]algo.Decision, 1)
		c := backend.Check{Key: []byte("hot"), Limit: limit, Hits: hits, Lease: share}
		if err := b.Decide(t.Context(), &backend.Request{Checks: []backend.Check{c}}, out); err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	held := int64(0)
	for ; held == 0; held, _ = b.leases.Held(time.Now()) {
		decide(1, 0.5)
	}
	if d := decide(decide(0, 0).Remaining, 0); !d.Allowed || d.Remaining != 0 {
		t.Fatalf("%+v, want all taken that is not held", d)
	}
	if d := decide(1, 0); d.Allowed {
		t.Fatalf("%+v while all is taken", d)
	}
	b.returnOverdue(time.Now().Add(lease.Lifetime))
	if d := decide(1, 0); !d.Allowed || d.Remaining != held-1 {
		t.Errorf("%+v after %d hits went back, want %d left", d, held, held-1)
	}
}

// TestWhatGoesBackTooLateIsVoid: when its counter may have begun anew, Redis takes
// nothing back.
func TestWhatGoesBackTooLateIsVoid(t *testing.T) {
	t.Parallel()
	const now = 1_700_000_000_000_000
	b := openFor(t, Options{Clock: func() int64 { return now }})
	limit, err := algo.New(algo.Params{Limit: 10, Window: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for before, want := range map[int64]int64{now - 1: 2, now: 2, now + 1: 7, 0: 7} {
		key := fmt.Appendf(nil, "until %d", before)
		var left int64
		for _, hits := range []int64{8, -5, 0} {
			o := newOp([]backend.Check{{Key: key, Limit: limit, Hits: hits}}, false, make([]algo.Decision, 1), time.Now(), time.Now().Add(b.opts.Timeout))
			if hits < 0 {
				o.before = before
			}
			if b.call([]*op{o}, o.deadline); o.err != nil {
				t.Fatal(o.err)
			}
			left = o.out[0].Remaining
		}
		if left != want {
			t.Errorf("%d left of what went back at %d until %d, want %d", left, now, before, want)
		}
	}
}
