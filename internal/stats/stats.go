// Package stats owns what the service counts: hits and decisions of each rule,
// errors, unknown domains, and how long answers take. It hands them out as
// numbers and as Prometheus metrics; deciding and answering are left to others.
//
// Rules are named by domain and path, so that their counts survive a reload and
// never multiply with the values that clients send, unless a rule asks for that
// (detailed_metric), and then within a bound.
package stats

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/pace"
)

// Name is what a rule's counts are known by.
type Name struct {
	Domain, Path string
	// Limit names a candidate: a limit of the rule in shadow mode, which is counted
	// on its own beside those that are enforced. Empty: the rule.
	Limit string
}

// Counts are the counts of one rule since the process started. Hits weigh a call
// by its hits_addend, decisions count calls.
type Counts struct {
	// WithinLimit are hits that were admitted.
	WithinLimit uint64
	// DeniedHits are the hits of calls that were refused, by this rule or, where a
	// request is charged as a whole, by another.
	DeniedHits uint64
	// OverLimit are hits beyond the limit. When a refused call is charged, its
	// first hits may still have been within.
	OverLimit uint64
	// NearLimit are hits that were counted above the near-limit ratio.
	NearLimit uint64
	// ShadowMode are hits beyond the limit that shadow mode let through.
	ShadowMode uint64
	// OverLimitWithLocalCache are hits refused out of the local over-limit memory.
	OverLimitWithLocalCache uint64
	// Allowed, Denied, ShadowDenied and Errors are decisions.
	Allowed, Denied, ShadowDenied, Errors uint64
	// LastDenied is when a call was last refused; zero if never.
	LastDenied time.Time
}

// TotalHits are all hits of calls on the rule.
func (c Counts) TotalHits() uint64 { return plus(c.WithinLimit, c.DeniedHits) }

// Rule counts for one rule. All methods are safe for concurrent use.
type Rule struct {
	Name Name

	within, deniedHits, over, near, shadow, localCache atomic.Uint64
	allowed, denied, shadowDenied, errors              atomic.Uint64
	lastDenied                                         atomic.Int64 // Unix µs

	// What dashboards for envoyproxy/ratelimit know the rule by.
	key1, key2 string

	of      *Rule // what this counts a value or an override of; nil: it is a rule itself
	hotKeys hotKeys

	holds atomic.Pointer[holds] // nil until there is any

	bound uint64 // when the configuration last named it; 0: never. Guarded by Stats.mu

	// Guarded by Stats.sampling.
	noted   Calls    // at the last tick
	history *history // nil before the first call; of the whole only
	born    uint64   // ticks when it was bound
	former  Counts   // of parts that are forgotten
}

// Usage is how one decision moved a rule's counter, in hits.
type Usage struct {
	Hits int64 // of the call; ≥ 0
	// Before and After are how much of the limit was used.
	Before, After int64
	// Near is the use above which hits count as near the limit, Limit the use
	// above which they are over it.
	Near, Limit int64
}

// Allow counts an admitted call.
func (r *Rule) Allow(u Usage) {
	r.allowed.Add(1)
	if u.Hits == 0 {
		return
	}
	add(&r.within, u.Hits)
	if u.After > u.Near {
		add(&r.near, u.After-max(u.Near, u.Before))
	}
}

// AllowWithoutCharge counts a call that the rule admitted, but whose request was
// refused as a whole, so that its hits were not charged.
func (r *Rule) AllowWithoutCharge(hits int64) {
	r.allowed.Add(1)
	add(&r.deniedHits, hits)
}

// Deny counts a refused call, with shadow one that shadow mode lets through, and
// returns how many of its hits are beyond the limit.
func (r *Rule) Deny(u Usage, now time.Time, shadow bool) (over int64) {
	over = u.Hits
	if u.Before < u.Limit && u.After > u.Limit { // charged all the same: the first hits were within
		over = u.After - u.Limit
		add(&r.near, u.Limit-max(u.Near, u.Before))
	}
	add(&r.deniedHits, u.Hits)
	add(&r.over, over)
	if shadow {
		add(&r.shadow, over)
		r.shadowDenied.Add(1)
		return over
	}
	r.denied.Add(1)
	r.lastDenied.Store(now.UnixMicro())
	return over
}

// LetThrough counts hits of an admitted call that were beyond a candidate's limit.
func (r *Rule) LetThrough(hits int64) { add(&r.shadow, hits) }

// DenyLocally counts a call refused out of the local over-limit memory; it comes
// on top of Deny.
func (r *Rule) DenyLocally(hits int64) { add(&r.localCache, hits) }

// add adds hits (≥ 0) to a count, which stays at the largest number rather than
// begin again: one call may bring 2^63-1.
func add(count *atomic.Uint64, hits int64) {
	if count.Add(uint64(hits)) < uint64(hits) {
		count.Store(math.MaxUint64)
	}
}

// plus is a + b, or the largest number.
func plus(a, b uint64) uint64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxUint64
}

// Fail counts a call that the store did not decide.
func (r *Rule) Fail() { r.errors.Add(1) }

// Counts reads the counts. They are read one after the other and may be a call
// apart.
func (r *Rule) Counts() Counts {
	c := Counts{
		WithinLimit: r.within.Load(), DeniedHits: r.deniedHits.Load(), OverLimit: r.over.Load(), NearLimit: r.near.Load(),
		ShadowMode: r.shadow.Load(), OverLimitWithLocalCache: r.localCache.Load(),
		Allowed: r.allowed.Load(), Denied: r.denied.Load(), ShadowDenied: r.shadowDenied.Load(), Errors: r.errors.Load(),
	}
	if at := r.lastDenied.Load(); at != 0 {
		c.LastDenied = time.UnixMicro(at)
	}
	return c
}

// Stats holds all counts of the service. It is safe for concurrent use.
type Stats struct {
	// GlobalShadowMode counts answers that service-wide shadow mode turned into OK.
	GlobalShadowMode atomic.Uint64
	// DomainNotFound counts requests whose domain has no rules.
	DomainNotFound atomic.Uint64
	// BackendErrors counts requests that the store failed to decide, in part or whole.
	BackendErrors atomic.Uint64
	// ServiceErrors counts requests refused as malformed or before rules were loaded.
	ServiceErrors atomic.Uint64

	latency *latency
	domains domains

	mu       sync.RWMutex
	rules    map[Name]*Rule
	bindings uint64 // so far
	limit    int    // on rules that are not bound: values of detailed metrics
	extra    int

	pace *pace.Pace // of looking for what is hot

	sampling sync.Mutex // before mu
	ticks    uint64
	ticked   time.Time

	// Folded counts calls of detailed metrics that found no place of their own.
	Folded atomic.Uint64
}

// Bounds on the series that detailed_metric may add.
const (
	DefaultMaxDetailed = 10000
	maxDetailedBytes   = 256 // of the values in the name of one
)

// New returns empty counts. maxDetailed bounds the series that detailed_metric
// adds; 0 means DefaultMaxDetailed.
func New(maxDetailed int) *Stats {
	s := &Stats{rules: map[Name]*Rule{}, limit: cmp.Or(maxDetailed, DefaultMaxDetailed), latency: newLatency(), pace: pace.New(hotSamples)}
	s.domains.unknown.Store(&map[string]*Domain{})
	s.domains.others.name = OtherDomains
	return s
}

// bindAtOnce is how many names are bound, or forgotten, before requests that look
// for values of detailed metrics get their turn.
const bindAtOnce = 512

// Bind returns the counters of the named rules, in order: those that exist
// already go on, others start at zero, and counters of rules that are not named
// are forgotten. Levels returns the first two levels of the path of the i-th of them;
// without it they end at the path's dots.
func (s *Stats) Bind(names []Name, levels func(i int) (first, second string)) []*Rule {
	s.sampling.Lock()
	defer s.sampling.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	task := background.New()
	defer task.Close()
	done := 0
	pause := func() {
		if done++; done%bindAtOnce == 0 {
			s.mu.Unlock()
			task.Yield()
			s.mu.Lock()
		}
	}
	s.bindings++
	rules := make([]*Rule, len(names))
	for i, n := range names {
		r := s.rules[n]
		switch {
		case r == nil:
			r = &Rule{Name: n, born: s.ticks}
			if levels != nil {
				r.setLevels(levels(i))
			} else {
				first, rest, _ := strings.Cut(n.Path, ".")
				second, _, _ := strings.Cut(rest, ".")
				r.setLevels(first, second)
			}
			s.rules[n] = r
		case r.bound == 0:
			s.extra--
		}
		r.of, r.bound = nil, s.bindings
		rules[i] = r
		pause()
	}
	// Others may add values, and only that, while the loop pauses.
	for n, r := range s.rules {
		if r.bound != s.bindings {
			if r.bound == 0 {
				s.extra--
			}
			delete(s.rules, n)
			if whole := r.whole(); whole != r {
				whole.former = sum(whole.former, r.Counts())
			}
		}
		pause()
	}
	return rules
}

// Detailed returns the counter of one value of a rule with detailed_metric. New
// values share fallback once the bound is reached. So do long ones, and those whose path is
// another rule's: a client that chooses its value must not count there. Path is
// copied if kept. Levels returns the first two levels of it.
func (s *Stats) Detailed(domain string, path []byte, fallback *Rule, levels func() (first, second string)) *Rule {
	s.mu.RLock()
	r := s.rules[Name{Domain: domain, Path: string(path)}]
	s.mu.RUnlock()
	if r != nil && (r == fallback || r.of == fallback) {
		return r
	}
	if len(path) > len(fallback.Name.Path)+maxDetailedBytes {
		s.Folded.Add(1)
		return fallback
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := Name{Domain: strings.Clone(domain), Path: string(path)}
	r = s.rules[n]
	if r != nil && (r == fallback || r.of == fallback) {
		return r
	}
	if r != nil || s.extra >= s.limit {
		s.Folded.Add(1)
		return fallback
	}
	r = &Rule{Name: n, of: fallback}
	r.setLevels(levels())
	s.rules[n] = r
	s.extra++
	return r
}

// levelDots are what would be taken for the end of a level, or of a name.
var levelDots = strings.NewReplacer(".", "_", ":", "_", "|", "_")

func (r *Rule) setLevels(first, second string) {
	r.key1, r.key2 = levelDots.Replace(first), levelDots.Replace(second)
}

// Rules returns the counters of all rules, ordered by domain and path.
func (s *Stats) Rules() []*Rule { return s.sorted(func(n Name) bool { return n.Limit == "" }) }

// Candidates returns the counters of limits in shadow mode beside others, ordered
// by domain, path and limit.
func (s *Stats) Candidates() []*Rule { return s.sorted(func(n Name) bool { return n.Limit != "" }) }

func (s *Stats) sorted(want func(Name) bool) []*Rule {
	s.mu.RLock()
	rules := make([]*Rule, 0, len(s.rules))
	for n, r := range s.rules {
		if want(n) {
			rules = append(rules, r)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(rules, func(a, b *Rule) int {
		return cmp.Or(strings.Compare(a.Name.Domain, b.Name.Domain), strings.Compare(a.Name.Path, b.Name.Path),
			strings.Compare(a.Name.Limit, b.Name.Limit))
	})
	return rules
}

// Answered counts one answer and how long it took.
func (s *Stats) Answered(d time.Duration) { s.latency.Observe(d.Seconds()) }

// Requests returns how many requests were answered, with errors too.
func (s *Stats) Requests() uint64 { return s.latency.count() }
