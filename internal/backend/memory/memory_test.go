package memory_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/backendtest"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
)

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(t testing.TB) backendtest.Fixture {
		var now atomic.Int64
		s := newStore(t, memory.Options{Clock: now.Load, SweepCycle: 50 * time.Millisecond})
		return backendtest.Fixture{Backend: s, SetClock: now.Store}
	})
}

// start is when tests with a clock of their own begin.
const start = 1_700_000_000e6

func newStore(t testing.TB, o memory.Options) *memory.Store {
	s := memory.New(o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newLimit(t testing.TB, p algo.Params) *algo.Limit {
	t.Helper()
	l, err := algo.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func perHour(t testing.TB, n uint32) *algo.Limit {
	return newLimit(t, algo.Params{Algorithm: algo.TokenBucket, Limit: n, Window: time.Hour})
}

// hit charges one key.
func hit(t interface {
	Helper()
	Fatal(...any)
}, s *memory.Store, key string, l *algo.Limit, hits int64) algo.Decision {
	t.Helper()
	var out [1]algo.Decision
	req := backend.Request{Checks: []backend.Check{{Key: []byte(key), Limit: l, Hits: hits}}}
	if err := s.Decide(context.Background(), &req, out[:]); err != nil {
		t.Fatal(err)
	}
	return out[0]
}

func TestMaxKeys(t *testing.T) {
	for _, most := range []int{1, 2, 1000, 20_000} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			s := newStore(t, memory.Options{MaxKeys: most, SweepCycle: -1})
			l := perHour(t, 10)
			for i := range 2*most + 10 {
				if d := hit(t, s, fmt.Sprint("key ", i), l, 1); !d.Allowed || d.Remaining != 9 {
					t.Fatalf("key %d: %+v", i, d)
				}
				if i%1000 == 0 && s.Len() > most {
					t.Fatalf("%d keys, more than %d", s.Len(), most)
				}
			}
			st := s.Stats()
			if st.Keys > most || st.Keys < most*9/10 || st.MaxKeys > most {
				t.Errorf("%d keys of %d, want nearly %d", st.Keys, st.MaxKeys, most)
			}
			if int(st.Evicted) != 2*most+10-st.Keys {
				t.Errorf("%d evicted and %d left of %d", st.Evicted, st.Keys, 2*most+10)
			}
		})
	}
}

// TestFloodForgivesNobody has a client that is limited flood the store with new
// keys, which is what somebody would do to be forgotten.
func TestFloodForgivesNobody(t *testing.T) {
	const most, limited = 4000, 400
	var now atomic.Int64
	now.Store(start)
	s := newStore(t, memory.Options{MaxKeys: most, Clock: now.Load, SweepCycle: -1})
	ten, one := perHour(t, 10), perHour(t, 1)
	for i := range limited {
		hit(t, s, fmt.Sprint("refused ", i), ten, 10)
		hit(t, s, fmt.Sprint("refused ", i), ten, 1)
		hit(t, s, fmt.Sprint("exhausted ", i), ten, 10)
		hit(t, s, fmt.Sprint("half ", i), ten, 5)
	}
	for i := range 10 * most {
		hit(t, s, fmt.Sprint("new ", i), ten, 1)
	}
	kept := func(kind string) (n int) {
		for i := range limited {
			if _, ok := s.Peek(fmt.Appendf(nil, "%s %d", kind, i), ten); ok {
				n++
			}
		}
		return n
	}
	for kind, least := range map[string]int{"refused": limited, "exhausted": limited, "half": limited} {
		if n := kept(kind); n < least {
			t.Errorf("after a flood of keys that hardly used anything, %d of %d %s keys are kept, want %d", n, limited, kind, least)
		}
	}
	// Keys of another length are not singled out.
	for i := range 100 {
		hit(t, s, fmt.Sprintf("half used and quite long %d", i), ten, 5)
	}
	for i := range most {
		hit(t, s, fmt.Sprint("new again ", i), ten, 1)
	}
	for i := range 100 {
		if _, ok := s.Peek(fmt.Appendf(nil, "half used and quite long %d", i), ten); !ok {
			t.Fatalf("a half used key of a new length is forgotten before others that hardly used anything")
		}
	}
	// Keys that use up their limit with one hit outlast all but the refused.
	for i := range 10 * most {
		hit(t, s, fmt.Sprint("single ", i), one, 1)
	}
	if n := kept("half"); n > limited/10 {
		t.Errorf("after a flood of exhausted keys, %d of %d half used ones are kept", n, limited)
	}
	if n := kept("refused"); n < limited {
		t.Errorf("after a flood of exhausted keys, %d of %d refused ones are kept", n, limited)
	}
	// When all are refused, the store still takes in new ones.
	for i := range 3 * most {
		key := fmt.Sprint("again ", i)
		hit(t, s, key, one, 1)
		if d := hit(t, s, key, one, 1); d.Allowed {
			t.Fatalf("%s passed twice in a row", key)
		}
	}
}

func TestEvictionPrefersExpired(t *testing.T) {
	const most = 1000
	var now atomic.Int64
	now.Store(start)
	s := newStore(t, memory.Options{MaxKeys: most, Clock: now.Load, SweepCycle: -1})
	short := newLimit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: 1, Window: time.Second})
	long := perHour(t, 100)
	full := s.Stats().MaxKeys
	for i := range full * 4 / 10 { // no shard is full yet
		hit(t, s, fmt.Sprint("short ", i), short, 2) // refused, but for a second
		hit(t, s, fmt.Sprint("long ", i), long, 1)
	}
	now.Add(2e6)
	for i := range full * 4 / 10 {
		hit(t, s, fmt.Sprint("new ", i), long, 1)
	}
	for i := range full * 4 / 10 {
		if _, ok := s.Peek(fmt.Appendf(nil, "long %d", i), long); !ok {
			t.Fatalf("long %d was forgotten before those that had expired", i)
		}
	}
	if st := s.Stats(); st.Evicted > 0 {
		t.Errorf("%d evicted, with %d expired", st.Evicted, st.Expired)
	}
}

// TestAddingSweeps has every key expire before the next thousand come, and no
// background sweep: what is kept must not pile up.
func TestAddingSweeps(t *testing.T) {
	var now atomic.Int64
	now.Store(start)
	s := newStore(t, memory.Options{Clock: now.Load, SweepCycle: -1})
	l := newLimit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: 5, Window: time.Second})
	most := 0
	for i := range 200_000 {
		hit(t, s, fmt.Sprint("key ", i), l, 1)
		now.Add(1000)
		if i%1000 == 0 {
			most = max(most, s.Len())
		}
	}
	if most > 4000 {
		t.Errorf("up to %d keys were kept, of which at most 1000 were live", most)
	}
}

// TestIdleKeysExpire leaves a store alone, in time that the test makes pass.
func TestIdleKeysExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Options{})
		defer s.Close()
		minute := newLimit(t, algo.Params{Algorithm: algo.SlidingWindow, Limit: 5, Window: time.Minute})
		log := newLimit(t, algo.Params{Algorithm: algo.SlidingLog, Limit: 1000, Window: time.Minute})
		day := newLimit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: 5, Window: 24 * time.Hour})
		for i := range 20_000 {
			hit(t, s, fmt.Sprint("minute ", i), minute, 1)
		}
		for i := range 1000 {
			hit(t, s, fmt.Sprint("log ", i), log, 100)
		}
		hit(t, s, "day", day, 1)
		full := s.Stats()
		if full.Keys != 21_001 {
			t.Fatalf("%d keys, want 21001", full.Keys)
		}
		time.Sleep(3*time.Minute + 2*time.Second) // two windows, and a cycle of the sweep after that
		synctest.Wait()
		st := s.Stats()
		if st.Keys != 1 || st.Expired != 21_000 || st.Evicted != 0 {
			t.Errorf("%+v: want only the key of the day", st)
		}
		if st.Bytes > 4096 {
			t.Errorf("1 key takes %d bytes, after %d keys took %d", st.Bytes, full.Keys, full.Bytes)
		}
		if _, ok := s.Peek([]byte("day"), day); !ok {
			t.Error("the key of the day is lost")
		}
	})
}

// TestClock has the default clock follow the time that passes.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Options{})
		defer s.Close()
		l := newLimit(t, algo.Params{Algorithm: algo.FixedWindow, Limit: 1, Window: time.Hour})
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour + time.Minute)))
		if d := hit(t, s, "key", l, 1); d.ResetAfter != 59*time.Minute {
			t.Errorf("a minute past the hour, the window ends in %v", d.ResetAfter)
		}
		time.Sleep(59 * time.Minute)
		if d := hit(t, s, "key", l, 1); !d.Allowed {
			t.Errorf("at the hour: %+v", d)
		}
	})
}

func TestPeek(t *testing.T) {
	var now atomic.Int64
	now.Store(start)
	s := newStore(t, memory.Options{Clock: now.Load, SweepCycle: -1})
	l := newLimit(t, algo.Params{Algorithm: algo.SlidingLog, Limit: 10, Window: time.Second})
	key := []byte("key")
	if d, kept := s.Peek(key, l); kept || !d.Allowed || d.Remaining != 10 {
		t.Errorf("never used: %+v, kept %t", d, kept)
	}
	hit(t, s, "key", l, 9)
	for range 3 { // it charges nothing
		if d, kept := s.Peek(key, l); !kept || !d.Allowed || d.Remaining != 1 || d.ResetAfter != time.Second {
			t.Errorf("used: %+v, kept %t", d, kept)
		}
	}
	now.Add(1e6)
	if d, kept := s.Peek(key, l); kept || d.Remaining != 10 {
		t.Errorf("expired: %+v, kept %t", d, kept)
	}
	if s.Len() != 1 {
		t.Errorf("a look has forgotten the key")
	}
}

// reset forgets a key, and reports whether it was used.
func reset(s *memory.Store, key []byte) bool {
	used, _ := s.Reset(context.Background(), backend.Check{Key: key}) // it never fails
	return used
}

func TestReset(t *testing.T) {
	var now atomic.Int64
	now.Store(start)
	s := newStore(t, memory.Options{Clock: now.Load, SweepCycle: -1})
	for i, name := range algo.Algorithms() {
		l := newLimit(t, algo.Params{Algorithm: algo.Algorithm(i), Limit: 10, Window: time.Second})
		if reset(s, []byte(name)) {
			t.Errorf("%s: reset before it was used", name)
		}
		hit(t, s, name, l, 1)
		if !reset(s, []byte(name)) {
			t.Errorf("%s: not reset", name)
		}
		if reset(s, []byte(name)) || s.Len() != 0 {
			t.Errorf("%s: there after a reset", name)
		}
		hit(t, s, name, l, 1)
		now.Add(100e6)
		if reset(s, []byte(name)) || s.Len() != 0 {
			t.Errorf("%s: an expired key was reset, or stayed", name)
		}
	}
}

func TestAll(t *testing.T) {
	var now atomic.Int64
	now.Store(start)
	s := newStore(t, memory.Options{Clock: now.Load, SweepCycle: -1})
	for range s.All() {
		t.Fatal("a key in an empty store")
	}
	l := perHour(t, 4)
	short := newLimit(t, algo.Params{Algorithm: algo.LeakyBucket, Limit: 1, Window: time.Second})
	want := map[string]float64{}
	for i := range 5000 {
		key := fmt.Sprint(strings.Repeat("k", i%50), i)
		hit(t, s, key, l, int64(i%6))
		if i%6 > 0 {
			want[key] = []float64{0, .25, .5, .75, 1, 0}[i%6] // 5 are refused, and cost nothing
		}
		hit(t, s, key+" expires", short, 1)
	}
	hit(t, s, "refused", l, 4)
	hit(t, s, "refused", l, 1)
	want["refused"] = 2
	for key, used := range want {
		if used == 0 {
			delete(want, key)
		}
	}
	now.Add(2e6)
	for k := range s.All() {
		used, ok := want[string(k.Key)]
		if !ok || math.Abs(k.Used-used) > .01 {
			t.Fatalf("%q used %v, want %v (%t)", k.Key, k.Used, used, ok)
		}
		if k.Expiry <= now.Load() || k.Expiry > now.Load()+3600e6 {
			t.Fatalf("%q expires at %d, now %d", k.Key, k.Expiry, now.Load())
		}
		delete(want, string(k.Key))
	}
	if len(want) > 0 {
		t.Errorf("%d keys were left out", len(want))
	}
	turns := 0
	for range s.All() {
		turns++
		break
	}
	if turns != 1 {
		t.Errorf("%d turns of a loop that ends after one", turns)
	}
}

func TestLongKeys(t *testing.T) {
	s := newStore(t, memory.Options{SweepCycle: -1})
	l := perHour(t, 10)
	for _, n := range []int{0, 1, 7, 8, 9, 1 << 12, 1 << 20, 1<<24 - 1} {
		key := strings.Repeat("k", n)
		hit(t, s, key, l, 1)
		if d := hit(t, s, key, l, 1); d.Remaining != 8 {
			t.Errorf("key of %d bytes: %+v", n, d)
		}
		if !reset(s, []byte(key)) {
			t.Errorf("key of %d bytes: not kept", n)
		}
	}
	req := backend.Request{Checks: []backend.Check{{Key: bytes.Repeat([]byte{'k'}, 1<<24), Limit: l, Hits: 1}}}
	err := s.Decide(context.Background(), &req, make([]algo.Decision, 1))
	if err == nil || !strings.Contains(err.Error(), "check 0: a key of 16777216 bytes is too long") {
		t.Errorf("error %v", err)
	}
}

// TestStateOfAnotherLength uses a key under algorithms that it is not for, whose
// states are of other lengths.
func TestStateOfAnotherLength(t *testing.T) {
	for _, a := range []algo.Algorithm{algo.FixedWindow, algo.SlidingWindow, algo.SlidingLog, algo.Hybrid} {
		for _, b := range []algo.Algorithm{algo.TokenBucket, algo.SlidingLog} {
			if a == b {
				continue
			}
			s := newStore(t, memory.Options{SweepCycle: -1})
			hit(t, s, "key", newLimit(t, algo.Params{Algorithm: a, Limit: 10, Window: time.Hour}), 10)
			if d := hit(t, s, "key", newLimit(t, algo.Params{Algorithm: b, Limit: 10, Window: time.Hour}), 1); d.Remaining != 9 {
				t.Errorf("%v after %v: %+v, want a fresh one", b, a, d)
			}
			if !reset(s, []byte("key")) || s.Len() != 0 {
				t.Errorf("%v after %v: %d left after reset", b, a, s.Len())
			}
		}
	}
}

// TestConcurrentUse does everything at once, for the race detector. The keys of
// one kind are charged alone, so that it can tell that none was lost.
func TestConcurrentUse(t *testing.T) {
	s := newStore(t, memory.Options{SweepCycle: 60 * time.Millisecond})
	hour := perHour(t, 1000)
	brief := newLimit(t, algo.Params{Algorithm: algo.SlidingLog, Limit: 100, Window: time.Millisecond})
	const callers, rounds, keys = 4, 300, 50
	began := time.Now()
	var done sync.WaitGroup
	for caller := range callers {
		done.Go(func() {
			for i := range rounds {
				req := backend.Request{AllOrNothing: i%2 == 0}
				for k := range 5 {
					req.Checks = append(req.Checks,
						backend.Check{Key: fmt.Appendf(nil, "hour %d", (i*7+k)%keys), Limit: hour, Hits: 1, Descriptor: k},
						backend.Check{Key: fmt.Appendf(nil, "brief %d %d", caller, i*5+k), Limit: brief, Hits: 20, Descriptor: k + 5})
				}
				if err := s.Decide(context.Background(), &req, make([]algo.Decision, len(req.Checks))); err != nil {
					t.Error(err)
					return
				}
				switch i % 50 {
				case 10:
					for range s.All() {
					}
				case 20:
					reset(s, fmt.Appendf(nil, "brief %d %d", caller, i))
				case 30:
					if err := s.Save(new(bytes.Buffer)); err != nil {
						t.Error(err)
					}
				case 40:
					s.Peek([]byte("hour 1"), hour)
				}
			}
		})
	}
	done.Wait()
	total := int64(0)
	for k := range keys {
		d, _ := s.Peek(fmt.Appendf(nil, "hour %d", k), hour)
		total += 1000 - d.Remaining
	}
	// Some tokens come back while the test runs: one in 3.6 s for each key.
	back := keys * (1 + int64(time.Since(began)/(3600*time.Millisecond)))
	if want := int64(callers * rounds * 5); total > want || total < want-back {
		t.Errorf("%d hits were charged, want %d, of which at most %d came back", total, want, back)
	}
}
