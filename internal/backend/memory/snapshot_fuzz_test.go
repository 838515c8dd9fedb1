package memory

import (
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// FuzzRecords loads into a store all input that parses as the records of a snapshot,
// without checksums, and then uses the store.
func FuzzRecords(f *testing.F) {
	now := int64(1_700_000_000e6)
	newStore := func() *Store {
		return New(Options{MaxKeys: 100, Clock: func() int64 { return now }, SweepCycle: -1})
	}
	var limits []*algo.Limit
	for i := range algo.Algorithms() {
		l, err := algo.New(algo.Params{Algorithm: algo.Algorithm(i), Limit: 20, Window: time.Hour})
		if err != nil {
			f.Fatal(err)
		}
		limits = append(limits, l)
		var out snapshotWriter
		s := newStore()
		s.shards[0].decide(1, &backend.Check{Key: []byte("key"), Limit: l, Hits: 1}, now)
		s.walk(func(shard *shard, r record) bool {
			if err := out.add(r, shard.copyState(nil, r)); err != nil {
				f.Fatal(err)
			}
			return true
		})
		f.Add(out.block[blockHeader:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newStore()
		for len(b) > 0 {
			k, rest, ok := parseRecord(b)
			if !ok {
				break
			}
			s.restore(k)
			for _, l := range limits {
				longest := 2 * time.Hour
				if l.Params().Algorithm.Takes(algo.TakesBurst) {
					longest = 2 * algo.MaxFill // the state may record the rate of any rule
				}
				for _, hits := range []int64{0, 1, 30, -1} {
					c := &backend.Check{Key: k.key, Limit: l, Hits: hits}
					hash := s.hash(k.key)
					if d := s.shard(hash).decide(hash, c, now); d.RetryAfter < 0 || d.RetryAfter > longest && d.RetryAfter != algo.Never {
						t.Fatalf("%v, %d hits: %+v", l.Params().Algorithm, hits, d)
					}
				}
			}
			b = rest
		}
		if n := s.Len(); n > 100 {
			t.Fatalf("%d keys", n)
		}
	})
}
