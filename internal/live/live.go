// Package live hands decisions to watchers as they happen. It keeps nothing: a decision
// goes to the watchers of that moment and is forgotten. Each watcher gets at most about
// a hundred decisions a second. If there are more, each of them stands for several. A
// watcher that reads too slowly loses decisions and learns how many. Without watchers,
// a request costs one atomic load. Deciding, and showing decisions, are left to others.
package live

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/pace"
	"github.com/distlimiter/ratelimit/internal/spell"
)

// Verdict is the outcome for one descriptor of a request.
type Verdict uint8

// The verdicts.
const (
	OK        Verdict = iota // within its limits, or unlimited
	Over                     // over a limit
	Shadow                   // over a limit in shadow mode
	Unmatched                // no rule applies
	Error                    // no decision was made
)

var verdictNames = [...]string{"ok", "over", "shadow", "unmatched", "error"}

// String returns the verdict's name: "ok", "over", "shadow", "unmatched" or "error".
func (v Verdict) String() string { return verdictNames[v] }

// MarshalText implements encoding.TextMarshaler.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Verdicts is a set of verdicts.
type Verdicts uint8

// AllVerdicts is the set of all verdicts.
const AllVerdicts = Verdicts(1<<len(verdictNames) - 1)

// Has reports whether v is in the set.
func (s Verdicts) Has(v Verdict) bool { return s>>v&1 != 0 }

// UnmarshalText implements encoding.TextUnmarshaler: names, separated by commas. An
// empty text stands for all verdicts.
func (s *Verdicts) UnmarshalText(text []byte) error {
	*s = 0
	if len(text) == 0 {
		*s = AllVerdicts
		return nil
	}
	for name := range strings.SplitSeq(string(text), ",") {
		v := slices.Index(verdictNames[:], name)
		if v < 0 {
			return fmt.Errorf("unknown verdict %q: %s", name, spell.Suggest(name, verdictNames[:]))
		}
		*s |= 1 << v
	}
	return nil
}

// Decision describes what was decided about one descriptor of a request.
type Decision struct {
	Time    time.Time          `json:"time"`
	Verdict Verdict            `json:"verdict"`
	Domain  string             `json:"domain"`
	Entries []descriptor.Entry `json:"entries"`
	// Abridged reports that entries were left out or cut because they are too long.
	Abridged bool `json:"abridged,omitempty"`
	// Rule is the path of the rule that applies, Name the name of the limit that
	// decided, and Limit that limit as text. Each is empty if there is none.
	Rule  string `json:"rule,omitempty"`
	Name  string `json:"name,omitempty"`
	Limit string `json:"limit,omitempty"`
	// Brought reports that the limit is an override of the request.
	Brought bool `json:"brought,omitempty"`
	// Hits are those that the request asked for; negative hits give back.
	Hits int64 `json:"hits"`
	// Left is what remains of the limit; nil if no limit decided.
	Left *int64 `json:"left,omitempty"`
	// ResetSeconds is the time until the counter is unused again. RetrySeconds is the
	// time until a request that is over the limit would pass; 0 if it never would.
	ResetSeconds float64 `json:"reset_seconds,omitempty"`
	RetrySeconds float64 `json:"retry_seconds,omitempty"`
	// Error is why no decision was made.
	Error string `json:"error,omitempty"`
}

// maxText bounds the bytes of a decision's domain, and those of its entries.
const maxText = 1 << 10

// SetRequest copies the domain and the entries, up to maxText bytes of each. They may
// belong to a buffer.
func (d *Decision) SetRequest(domain string, entries []descriptor.Entry) {
	room := maxText
	take := func(s string) string {
		if len(s) > room {
			s, d.Abridged = s[:room], true
		}
		room -= len(s)
		return strings.Clone(s)
	}
	d.Domain = take(domain)
	room = maxText
	d.Entries = make([]descriptor.Entry, 0, len(entries))
	for _, e := range entries {
		if room == 0 {
			d.Abridged = true
			return
		}
		d.Entries = append(d.Entries, descriptor.Entry{Key: take(e.Key), Value: take(e.Value)})
	}
}

// Filter selects decisions to show.
type Filter struct {
	Domain   string   // empty: of any domain
	Rule     string   // path of a rule, or name of a limit; empty: of any
	Verdicts Verdicts // 0: any
}

// Subject is the part of a decision that filters look at.
type Subject struct {
	Domain, Rule, Limit string
	Verdict             Verdict
}

func (f *Filter) wants(s *Subject) bool {
	return f.Verdicts.Has(s.Verdict) &&
		(f.Domain == "" || f.Domain == s.Domain) &&
		(f.Rule == "" || f.Rule == s.Rule || f.Rule == s.Limit)
}

// Bounds on watching.
const (
	MaxWatchers = 16
	// PerSecond is about how many decisions a watcher gets in a second.
	PerSecond = 100
	buffered  = 256 // decisions for a watcher that reads slowly
)

// Errors of Watch.
var (
	ErrTooMany = fmt.Errorf("%d are watching already, which is the maximum", MaxWatchers)
	ErrClosed  = errors.New("the service is stopping")
)

// Feed hands decisions to watchers. The zero value is ready for use. So is nil, which
// has no watchers. It is safe for concurrent use.
type Feed struct {
	watchers atomic.Pointer[Watchers] // nil: none

	mu     sync.Mutex
	closed bool
}

// Watchers are the watchers of one moment.
type Watchers []*Watcher

// Watchers returns the present watchers; nil if there are none.
func (f *Feed) Watchers() Watchers {
	if f == nil {
		return nil
	}
	if w := f.watchers.Load(); w != nil {
		return *w
	}
	return nil
}

// Offer hands a decision to the watchers whose filters match. It calls describe at most
// once, and only if a watcher takes the decision.
func (w Watchers) Offer(s *Subject, describe func() Decision) {
	var d *Decision
	for _, watcher := range w {
		if !watcher.filter.wants(s) {
			continue
		}
		period, taken := watcher.pace.Draw()
		if !taken {
			continue
		}
		if d == nil {
			described := describe()
			d = &described
		}
		watcher.pace.Take(d.Time)
		select {
		case watcher.events <- Event{d, period}:
		default:
			watcher.lost.Add(1)
		}
	}
}

// Event is a decision as a watcher gets it. Watchers share it, and must not change it.
type Event struct {
	*Decision
	// Sampled is how many decisions this one stands for.
	Sampled uint32 `json:"sampled"`
}

// Watcher receives the decisions that its filter selects.
type Watcher struct {
	feed   *Feed
	filter Filter
	pace   *pace.Pace
	events chan Event
	lost   atomic.Uint64
	done   chan struct{} // closed when the feed is
}

// Watch adds a watcher of the decisions that the filter selects, until Close. The error
// is ErrTooMany or ErrClosed.
func (f *Feed) Watch(filter Filter) (*Watcher, error) {
	if filter.Verdicts == 0 {
		filter.Verdicts = AllVerdicts
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.Watchers()
	switch {
	case f.closed:
		return nil, ErrClosed
	case len(now) >= MaxWatchers:
		return nil, ErrTooMany
	}
	w := &Watcher{feed: f, filter: filter, pace: pace.New(PerSecond), events: make(chan Event, buffered), done: make(chan struct{})}
	next := append(slices.Clone(now), w)
	f.watchers.Store(&next)
	return w, nil
}

// Events returns the channel on which decisions arrive.
func (w *Watcher) Events() <-chan Event { return w.events }

// Lost returns how many decisions were lost since the last call because the watcher
// read too slowly.
func (w *Watcher) Lost() uint64 {
	if w.lost.Load() == 0 {
		return 0
	}
	return w.lost.Swap(0)
}

// Done returns a channel that is closed when the feed is.
func (w *Watcher) Done() <-chan struct{} { return w.done }

// Close ends this watcher.
func (w *Watcher) Close() {
	f := w.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(f.Watchers()), func(x *Watcher) bool { return x == w })
	if len(rest) == 0 {
		f.watchers.Store(nil)
		return
	}
	f.watchers.Store(&rest)
}

// Close ends all watchers for good.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.closed = true
	for _, w := range f.Watchers() {
		close(w.done)
	}
	f.watchers.Store(nil)
}
