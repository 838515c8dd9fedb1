package memory_test

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
)

func slidingLog(t testing.TB, limit uint32) *algo.Limit {
	return newLimit(t, algo.Params{Algorithm: algo.SlidingLog, Limit: limit, Window: time.Hour})
}

const mib = 1 << 20

// TestMaxBytes fills sliding logs, each with one request, far beyond the bound.
func TestMaxBytes(t *testing.T) {
	const most, logs = 64 * mib, 300 // of 512 KiB
	s := newStore(t, memory.Options{MaxKeys: 100_000, MaxBytes: most, SweepCycle: -1})
	full, brief := slidingLog(t, algo.MaxLogLimit), perHour(t, 10)
	const limited = 1000
	for i := range limited {
		hit(t, s, fmt.Sprint("limited ", i), brief, 10)
		hit(t, s, fmt.Sprint("limited ", i), brief, 1)
	}
	before := heapInUse()
	for i := range logs {
		if d := hit(t, s, fmt.Sprint("log ", i), full, algo.MaxLogLimit); !d.Allowed {
			t.Fatalf("log %d: %+v", i, d)
		}
		if d := hit(t, s, fmt.Sprint("log ", i), full, 0); d.Allowed || d.Remaining != 0 {
			t.Fatalf("log %d is not kept: %+v", i, d)
		}
		if b := s.Stats().Bytes; b > most {
			t.Fatalf("%d bytes after %d logs, more than %d", b, i+1, most)
		}
	}
	st := s.Stats()
	if st.Bytes < most/2 || st.MaxBytes != most {
		t.Errorf("%d of %d bytes are used, want more than half of %d", st.Bytes, st.MaxBytes, most)
	}
	if st.Evicted < logs-most/(8*algo.MaxLogLimit) {
		t.Errorf("%d evicted", st.Evicted)
	}
	for i := range limited {
		if d, kept := s.Peek(fmt.Appendf(nil, "limited %d", i), brief); !kept || d.Allowed {
			t.Fatalf("client %d, which is being limited, is forgiven for logs that are only used up", i)
		}
	}
	if grown := heapInUse() - before; grown > most+8*mib {
		t.Errorf("the heap has grown by %d bytes, with at most %d in the store", grown, most)
	}
	runtime.KeepAlive(s)
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestLogsGoBeforeRefused has a few logs that are used up among many clients that are
// being limited.
func TestLogsGoBeforeRefused(t *testing.T) {
	const limited = 10_000
	s := newStore(t, memory.Options{MaxBytes: 3 * mib, SweepCycle: -1})
	full, ten := slidingLog(t, algo.MaxLogLimit), perHour(t, 10)
	for i := range limited {
		hit(t, s, fmt.Sprint("limited ", i), ten, 10)
		hit(t, s, fmt.Sprint("limited ", i), ten, 1)
	}
	for i := range 200 {
		hit(t, s, fmt.Sprint("log ", i), full, algo.MaxLogLimit)
	}
	forgiven := 0
	for i := range limited {
		if _, kept := s.Peek(fmt.Appendf(nil, "limited %d", i), ten); !kept {
			forgiven++
		}
	}
	if forgiven > limited/100 {
		t.Errorf("%d of %d clients that are being limited are forgiven for logs that are only used up", forgiven, limited)
	}
}

// TestLogLargerThanTheBound keeps counting with one that does not fit at all.
func TestLogLargerThanTheBound(t *testing.T) {
	s := newStore(t, memory.Options{MaxBytes: mib / 4, SweepCycle: -1})
	log, ten := slidingLog(t, algo.MaxLogLimit), perHour(t, 10)
	hit(t, s, "other", ten, 1)
	for range 16 {
		hit(t, s, "log", log, algo.MaxLogLimit/16)
	}
	if d := hit(t, s, "log", log, 1); d.Allowed || s.Len() != 1 {
		t.Errorf("%+v with %d counters, want a refusal and one", d, s.Len())
	}
	hit(t, s, "other", ten, 1)
	if st := s.Stats(); st.Bytes > mib/4 || st.Keys != 1 {
		t.Errorf("%d counters of %d bytes after the next one, want it alone", st.Keys, st.Bytes)
	}
}

// TestGrowingLogsStay has logs grow side by side, each with the hits that its client
// makes. The bound is too small for all, and one that goes begins anew; but no log goes
// to make room for itself, or none would ever be refused.
func TestGrowingLogsStay(t *testing.T) {
	const limit, logs = 10_000, 100 // of 80 kB each
	s := newStore(t, memory.Options{MaxBytes: 2 * mib, SweepCycle: -1})
	l := slidingLog(t, limit)
	refused := 0
	for range 2 * limit / 500 {
		for i := range logs {
			before, kept := s.Peek(fmt.Append(nil, i), l)
			d := hit(t, s, fmt.Sprint(i), l, 500)
			if kept && before.Remaining >= 500 && d.Remaining != before.Remaining-500 {
				t.Fatalf("log %d had %d left, and %d after 500 hits", i, before.Remaining, d.Remaining)
			}
			if after, kept := s.Peek(fmt.Append(nil, i), l); !kept || after.Remaining != d.Remaining {
				t.Fatalf("log %d went to make room for itself", i)
			}
			if !d.Allowed {
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("no log has filled")
	}
}

// TestBytesKeepToTheBound charges counters of every algorithm and many lengths.
func TestBytesKeepToTheBound(t *testing.T) {
	limits := make([][]*algo.Limit, len(algo.Algorithms()))
	for a := range limits {
		for _, n := range []uint32{1, 100, 10_000, algo.MaxLogLimit} {
			if algo.Algorithm(a) == algo.Concurrency {
				n = min(n, algo.MaxHeld)
			}
			limits[a] = append(limits[a], newLimit(t, algo.Params{Algorithm: algo.Algorithm(a), Limit: n, Window: time.Minute}))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var now atomic.Int64
		now.Store(start)
		most := rapid.SampledFrom([]int64{mib, 3 * mib, 8 * mib}).Draw(t, "bytes")
		s := memory.New(memory.Options{MaxBytes: most, MaxKeys: rapid.SampledFrom([]int{1000, 100_000}).Draw(t, "keys"), Clock: now.Load, SweepCycle: -1})
		defer s.Close()
		t.Repeat(map[string]func(*rapid.T){
			"charge": func(t *rapid.T) {
				algorithm := rapid.IntRange(0, len(limits)-1).Draw(t, "algorithm")
				l := rapid.SampledFrom(limits[algorithm]).Draw(t, "limit")
				first, width := rapid.IntRange(0, 3000).Draw(t, "first"), rapid.SampledFrom([]int{1, 40, 300}).Draw(t, "width")
				hits := rapid.SampledFrom([]int64{1, 7, 3000, algo.MaxLogLimit}).Draw(t, "hits")
				for i := range rapid.IntRange(1, 200).Draw(t, "calls") {
					hit(t, s, fmt.Sprintf("%d %0*d", algorithm, width, first+i), l, hits)
					if st := s.Stats(); st.Bytes > most {
						t.Fatalf("%d counters take %d bytes, more than %d", st.Keys, st.Bytes, most)
					}
				}
			},
			"reset": func(t *rapid.T) {
				for n := range rapid.IntRange(1, 3000).Draw(t, "counters") {
					reset(s, fmt.Appendf(nil, "2 %01d", n))
				}
			},
			"wait": func(t *rapid.T) { now.Add(rapid.Int64Range(0, 90e6).Draw(t, "µs")) },
		})
	})
}

// TestLoadKeepsToMaxBytes loads a snapshot of a store that had more room.
func TestLoadKeepsToMaxBytes(t *testing.T) {
	const most = 4 * mib
	s := newStore(t, memory.Options{SweepCycle: -1})
	log, ten := slidingLog(t, 10_000), perHour(t, 10)
	for i := range 200 { // 16 MB
		hit(t, s, fmt.Sprint("log ", i), log, 5000)
	}
	for i := range 1000 {
		hit(t, s, fmt.Sprint("refused ", i), ten, 10)
		hit(t, s, fmt.Sprint("refused ", i), ten, 1)
	}
	var file bytes.Buffer
	if err := s.Save(&file); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, memory.Options{MaxBytes: most, SweepCycle: -1})
	n, err := s.Load(&file)
	st := s.Stats()
	if err != nil || n != st.Keys || st.Bytes > most || st.Bytes < most/2 || st.Evicted == 0 {
		t.Errorf("%d loaded, %+v, error %v; want most of %d bytes used", n, st, err, most)
	}
	for i := range 1000 {
		if d, kept := s.Peek(fmt.Appendf(nil, "refused %d", i), ten); !kept || d.Allowed {
			t.Fatalf("client %d, which is being limited, is forgiven", i)
		}
	}
}

// TestNoBoundOnBytes is the zero value.
func TestNoBoundOnBytes(t *testing.T) {
	if st := newStore(t, memory.Options{}).Stats(); st.MaxBytes < math.MaxInt64-64 {
		t.Errorf("bound of %d bytes", st.MaxBytes)
	}
}
