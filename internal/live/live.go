// Package live owns showing decisions as they happen to those who watch. Nothing is
// kept: a decision goes to whoever watches at that moment and is forgotten. Each
// watcher sees about a hundred decisions a second at most, of which each then stands
// for several, and one that reads too slowly loses some and is told how many. While
// nobody watches, a request costs one atomic load. How to decide and how to show it
// is left to others.
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

// Verdict is what became of one descriptor of a request.
type Verdict uint8

// The verdicts.
const (
	OK        Verdict = iota // within its limits, or unlimited
	Over                     // over a limit
	Shadow                   // over a limit in shadow mode
	Unmatched                // no rule applies
	Error                    // there was no decision
)

var verdictNames = [...]string{"ok", "over", "shadow", "unmatched", "error"}

// String returns the verdict's name: "ok", "over", "shadow", "unmatched" or "error".
func (v Verdict) String() string { return verdictNames[v] }

// MarshalText implements encoding.TextMarshaler.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Verdicts is a set of verdicts.
type Verdicts uint8

// AllVerdicts has each verdict.
const AllVerdicts = Verdicts(1<<len(verdictNames) - 1)

// Has reports whether v is in the set.
func (s Verdicts) Has(v Verdict) bool { return s>>v&1 != 0 }

// UnmarshalText implements encoding.TextUnmarshaler: names with commas between them.
// No name at all stands for all verdicts.
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

// Decision is what became of one descriptor of a request.
type Decision struct {
	Time    time.Time          `json:"time"`
	Verdict Verdict            `json:"verdict"`
	Domain  string             `json:"domain"`
	Entries []descriptor.Entry `json:"entries"`
	// Abridged reports that entries, or ends of them, were left out for their length.
	Abridged bool `json:"abridged,omitempty"`
	// Rule is the path of the rule that applies, Name the name of the limit that
	// decided, and Limit that limit as a text. They are empty for what has none.
	Rule  string `json:"rule,omitempty"`
	Name  string `json:"name,omitempty"`
	Limit string `json:"limit,omitempty"`
	// Brought reports that the request brought the limit along.
	Brought bool `json:"brought,omitempty"`
	// Hits are what the request asked for; negative ones give back.
	Hits int64 `json:"hits"`
	// Left is what is left of the limit; nil where none decided.
	Left *int64 `json:"left,omitempty"`
	// ResetSeconds is after how long the counter is unused again, RetrySeconds
	// after how long what is over the limit would pass; 0 if never.
	ResetSeconds float64 `json:"reset_seconds,omitempty"`
	RetrySeconds float64 `json:"retry_seconds,omitempty"`
	// Error is why there was no decision.
	Error string `json:"error,omitempty"`
}

// maxText bounds what is kept of a decision's domain and of its entries, in bytes.
const maxText = 1 << 10

// SetRequest copies domain and entries, which may belong to a buffer, as far as there
// is room for them.
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

// Filter says which decisions to show.
type Filter struct {
	Domain   string   // empty: of any domain
	Rule     string   // path of a rule, or name of a limit; empty: of any
	Verdicts Verdicts // 0: any
}

// Subject is what filters ask of a decision.
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
	// PerSecond is about how many decisions a watcher sees in a second.
	PerSecond = 100
	buffered  = 256 // of a watcher that reads slowly
)

// Errors of Watch.
var (
	ErrTooMany = fmt.Errorf("%d watch already, which is the most", MaxWatchers)
	ErrClosed  = errors.New("the service is stopping")
)

// Feed hands decisions to those who watch. The zero value is ready for use, and so
// is nil, which nobody can watch. It is safe for concurrent use.
type Feed struct {
	watchers atomic.Pointer[Watchers] // nil: none

	mu     sync.Mutex
	closed bool
}

// Watchers are those who watch at a moment.
type Watchers []*Watcher

// Watchers returns who watches now; nil for nobody.
func (f *Feed) Watchers() Watchers {
	if f == nil {
		return nil
	}
	if w := f.watchers.Load(); w != nil {
		return *w
	}
	return nil
}

// Offer shows a decision to those who want it. It calls describe at most once, and not
// at all if nobody takes it.
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

// Event is a decision as a watcher sees it. It is shared with others, and must not be
// changed.
type Event struct {
	*Decision
	// Sampled says for how many decisions this one stands.
	Sampled uint32 `json:"sampled"`
}

// Watcher is one who watches.
type Watcher struct {
	feed   *Feed
	filter Filter
	pace   *pace.Pace
	events chan Event
	lost   atomic.Uint64
	done   chan struct{} // closed when the feed is
}

// Watch begins to show what the filter asks for, until Close. The error is ErrTooMany
// or ErrClosed.
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

// Events is where decisions arrive.
func (w *Watcher) Events() <-chan Event { return w.events }

// Lost returns how many decisions found no room since it was last asked.
func (w *Watcher) Lost() uint64 {
	if w.lost.Load() == 0 {
		return 0
	}
	return w.lost.Swap(0)
}

// Done is closed when the feed is.
func (w *Watcher) Done() <-chan struct{} { return w.done }

// Close ends watching.
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

// Close ends all watching for good.
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
