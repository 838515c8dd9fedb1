package stats

import (
	"cmp"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Bounds on the data kept about each rule's hottest counters.
const (
	hotSlots    = 32          // in each of two sketches
	hotKeyBytes = 512         // of a counter's key
	hotWindow   = time.Minute // after which the older sketch is forgotten
	hotReported = 10
	// hotSamples is about how many requests a second are sampled, of all rules together:
	// few enough to cost next to nothing, enough to show which counters are hot.
	hotSamples = 1000
)

// Sampler decides which requests to sample. Its zero value is ready for use, by one
// goroutine at a time. Several samplers share one rate.
type Sampler struct{ skip, period uint32 }

// Sample returns the weight of the present request: how many requests it stands for.
// The caller counts it with CountKey. The weight is 0 if the request is not sampled.
func (s *Stats) Sample(x *Sampler, now time.Time) int64 {
	if x.skip > 0 && x.period <= s.pace.Period() {
		x.skip--
		return 0
	}
	weight := int64(1)
	if x.skip == 0 { // otherwise the period has become shorter meanwhile
		weight = max(weight, int64(x.period))
	}
	x.period = s.pace.Take(now)
	// On average one of every period. The gaps are random so that they do not fall in
	// step with a pattern of the requests.
	x.skip = rand.Uint32N(2*x.period - 1)
	return weight
}

// HotCounter is one of a rule's hottest counters.
type HotCounter struct {
	// Key is the counter's key. If it is Abridged, only its beginning is known.
	Key      string
	Abridged bool
	// Calls is an estimate. Error is how far off it may be: calls of other counters
	// that had the slot before, and twice the standard error of sampling.
	Calls, Error int64
}

// Hottest lists a rule's hottest counters.
type Hottest struct {
	// Since is when its counting began.
	Since time.Time
	// Sampled is the sampling period: at present one request of that many is sampled.
	Sampled int
	// Counters are in order, the hottest first.
	Counters []HotCounter
}

// hotKeys holds the two sketches of a rule. The older one is dropped from time to time, so
// that counters that were hot yesterday do not hide those that are hot now.
type hotKeys struct {
	mu                sync.Mutex
	begun             time.Time // of current
	current, previous sketch
	previousBegun     time.Time
}

// sketch counts the most frequent of any number of keys in a bounded number of slots, by
// the space-saving algorithm (Metwally, Agrawal, El Abbadi 2005). A key without a slot
// takes over the slot with the least count. Its own count may then be too high by that
// least count.
type sketch []slot

type slot struct {
	hash            uint64
	key             string
	abridged        bool
	count, inflated int64
	variance        int64 // of count, from sampling
}

var hotSeed = maphash.MakeSeed()

// CountKey counts weight calls for the counter with the key.
func (r *Rule) CountKey(key []byte, weight int64, now time.Time) {
	hash := maphash.Bytes(hotSeed, key)
	h := &r.hotKeys
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn(now)
	h.current.add(hash, key, weight)
}

// turn begins a new sketch when the current one is older than its window.
func (h *hotKeys) turn(now time.Time) {
	switch age := now.Sub(h.begun); {
	case age < hotWindow:
		return
	case age < 2*hotWindow && !h.begun.IsZero():
		h.previous, h.previousBegun = h.current, h.begun
	default:
		h.previous = nil
	}
	h.current, h.begun = nil, now
}

func (s *sketch) add(hash uint64, key []byte, weight int64) {
	least := 0
	for i := range *s {
		at := &(*s)[i]
		if at.hash == hash {
			at.count += weight
			at.variance += weight * (weight - 1)
			return
		}
		if at.count < (*s)[least].count {
			least = i
		}
	}
	added := slot{hash: hash, key: string(key[:min(len(key), hotKeyBytes)]), abridged: len(key) > hotKeyBytes}
	if len(*s) < hotSlots {
		*s = append(*s, added)
		least = len(*s) - 1
	} else {
		added.inflated = (*s)[least].count
	}
	added.count, added.variance = added.inflated+weight, weight*(weight-1)
	(*s)[least] = added
}

// most is the most calls that a key without a slot may have had.
func (s sketch) most() int64 {
	if len(s) < hotSlots {
		return 0
	}
	return slices.MinFunc(s, func(a, b slot) int { return cmp.Compare(a.count, b.count) }).count
}

// Hottest returns the hottest counters of a rule over the last one to two minutes.
func (s *Stats) Hottest(rule Name, now time.Time) Hottest {
	s.mu.RLock()
	r := s.rules[rule]
	s.mu.RUnlock()
	if r == nil {
		return Hottest{Since: now, Sampled: 1}
	}
	h := &r.hotKeys
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.begun.IsZero() {
		h.begun = now
	}
	h.turn(now)
	out := Hottest{Since: h.begun, Sampled: int(s.pace.Period())}
	if h.previous != nil {
		out.Since = h.previousBegun
	}
	type sum struct {
		slot
		inCurrent, inPrevious bool
	}
	sums := map[uint64]sum{}
	for _, c := range h.current {
		sums[c.hash] = sum{c, true, false}
	}
	for _, p := range h.previous {
		s := sums[p.hash]
		p.count += s.count
		p.inflated += s.inflated
		p.variance += s.variance
		sums[p.hash] = sum{p, s.inCurrent, true}
	}
	for _, s := range sums {
		if !s.inCurrent {
			s.inflated += h.current.most()
		}
		if !s.inPrevious {
			s.inflated += h.previous.most()
		}
		out.Counters = append(out.Counters, HotCounter{Key: s.key, Abridged: s.abridged, Calls: s.count,
			Error: s.inflated + int64(math.Ceil(2*math.Sqrt(float64(s.variance))))})
	}
	slices.SortFunc(out.Counters, func(a, b HotCounter) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Key, b.Key))
	})
	out.Counters = out.Counters[:min(len(out.Counters), hotReported)]
	return out
}
