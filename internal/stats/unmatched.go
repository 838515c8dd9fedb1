package stats

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds on the kept names of domains without rules.
const (
	MaxUnknownDomains = 100
	maxDomainName     = 255 // bytes
)

// OtherDomains stands for domains without rules beyond the bounds.
const OtherDomains = "(other)"

// Domain counts what matches no rule in a domain: the descriptors of a domain with
// rules, the requests of a domain without. It is safe for concurrent use.
type Domain struct {
	name         string
	unmatched    atomic.Uint64
	last, logged atomic.Int64 // Unix µs; logged is when CountUnmatched last asked for a report
}

// CountUnmatched counts n that matched no rule, and reports whether the caller should log it: true
// if it has not been for at least the interval every.
func (d *Domain) CountUnmatched(n int, now time.Time, every time.Duration) (log bool) {
	d.unmatched.Add(uint64(n))
	at := now.UnixMicro()
	d.last.Store(at)
	before := d.logged.Load()
	return (before == 0 || at-before >= every.Microseconds()) && d.logged.CompareAndSwap(before, at)
}

// UnmatchedCount is how many requests or descriptors of a domain have matched no rule since the
// process started.
type UnmatchedCount struct {
	Domain string
	Count  uint64
	Last   time.Time
}

// domains holds the domains with rules, and some of those without.
type domains struct {
	mu      sync.Mutex
	known   map[string]*Domain                 // guarded by mu
	unknown atomic.Pointer[map[string]*Domain] // replaced under mu
	others  Domain
}

// BindDomains returns the counts of the domains that have rules now. Existing counts go
// on.
func (s *Stats) BindDomains(names []string) map[string]*Domain {
	d := &s.domains
	d.mu.Lock()
	defer d.mu.Unlock()
	known := make(map[string]*Domain, len(names))
	for _, name := range names {
		if known[name] = d.known[name]; known[name] == nil {
			known[name] = &Domain{name: name}
		}
	}
	d.known = known
	unknown := maps.Clone(*d.unknown.Load())
	maps.DeleteFunc(unknown, func(name string, _ *Domain) bool { return known[name] != nil })
	d.unknown.Store(&unknown)
	return known
}

// UnknownDomain returns the counts of a domain that has no rules. The name is copied if
// it is kept; names beyond the bounds share one.
func (s *Stats) UnknownDomain(name string) *Domain {
	d := &s.domains
	if have := (*d.unknown.Load())[name]; have != nil {
		return have
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	before := *d.unknown.Load()
	switch have := before[name]; {
	case have != nil:
		return have
	case len(before) >= MaxUnknownDomains || len(name) > maxDomainName || name == OtherDomains:
		return &d.others
	}
	unknown := maps.Clone(before)
	name = strings.Clone(name)
	unknown[name] = &Domain{name: name}
	d.unknown.Store(&unknown)
	return unknown[name]
}

// Unmatched returns the domains without rules that had requests, and the domains with
// rules in which descriptors matched none. Both are in order of their names.
func (s *Stats) Unmatched() (unknown, known []UnmatchedCount) {
	d := &s.domains
	d.mu.Lock()
	defer d.mu.Unlock()
	list := func(domains map[string]*Domain) (out []UnmatchedCount) {
		for _, x := range domains {
			if x.unmatched.Load() > 0 {
				out = append(out, x.read())
			}
		}
		slices.SortFunc(out, func(a, b UnmatchedCount) int { return cmp.Compare(a.Domain, b.Domain) })
		return out
	}
	unknown = list(*d.unknown.Load())
	if d.others.unmatched.Load() > 0 {
		unknown = append(unknown, d.others.read())
	}
	return unknown, list(d.known)
}

func (d *Domain) read() UnmatchedCount {
	return UnmatchedCount{Domain: d.name, Count: d.unmatched.Load(), Last: time.UnixMicro(d.last.Load())}
}
