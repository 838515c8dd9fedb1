package stats

import (
	"context"
	"time"
)

// Calls counts calls by what became of them.
type Calls struct{ Allowed, Denied, ShadowDenied, Errors uint64 }

func (c Calls) plus(d Calls) Calls {
	return Calls{c.Allowed + d.Allowed, c.Denied + d.Denied, c.ShadowDenied + d.ShadowDenied, c.Errors + d.Errors}
}

// minus is never below zero.
func (c Calls) minus(d Calls) Calls {
	return Calls{c.Allowed - min(c.Allowed, d.Allowed), c.Denied - min(c.Denied, d.Denied),
		c.ShadowDenied - min(c.ShadowDenied, d.ShadowDenied), c.Errors - min(c.Errors, d.Errors)}
}

// Rates are calls per second.
type Rates struct{ Allowed, Denied, ShadowDenied, Errors float64 }

// HistoryLength is how many seconds of each rule are kept one by one.
const HistoryLength = 60

// Activity is what has become of a rule's calls, with those that detailed_metric
// or an override counts apart.
type Activity struct {
	Counts
	// Second, Minute and Hour are rates over the last of each, or since the rule
	// is known if that is less.
	Second, Minute, Hour Rates
	// History are the calls of each of the last seconds, the oldest first; those
	// before the rule was known are empty. Nil unless asked for.
	History []Calls
	// Holds is what became of holds; nil if there were none.
	Holds *Holds
}

// calls32 is Calls in less room, for a second or a minute.
type calls32 [4]uint32

func (c calls32) plus(d Calls) calls32 {
	for i, n := range [4]uint64{d.Allowed, d.Denied, d.ShadowDenied, d.Errors} {
		c[i] = uint32(min(uint64(c[i])+n, 1<<32-1))
	}
	return c
}

func (c calls32) calls() Calls {
	return Calls{uint64(c[0]), uint64(c[1]), uint64(c[2]), uint64(c[3])}
}

// history is a rule's calls by second and by minute, in rings. The place in them
// is that of Stats. Rules without calls have none.
type history struct {
	seconds [HistoryLength]calls32
	minutes [60]calls32 // the current one is not over
}

// Run notes once a second what was counted, which is what rates are made of,
// until ctx is done.
func (s *Stats) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			s.Tick(now)
		}
	}
}

// Tick ends a second. It is for tests; otherwise Run calls it.
func (s *Stats) Tick(now time.Time) {
	s.pace.Relax(now)
	s.sampling.Lock()
	defer s.sampling.Unlock()
	s.ticked = now
	all := s.all()
	second, minute := s.ticks%HistoryLength, s.ticks/60%60
	for _, r := range all {
		if h := r.history; h != nil {
			h.seconds[second] = calls32{}
			if s.ticks%60 == 0 {
				h.minutes[minute] = calls32{}
			}
		}
	}
	for _, r := range all {
		now := r.calls()
		news := now.minus(r.noted)
		if news == (Calls{}) {
			continue
		}
		r.noted = now
		into := r.whole()
		if into.history == nil {
			into.history = new(history)
		}
		h := into.history
		h.seconds[second] = h.seconds[second].plus(news)
		h.minutes[minute] = h.minutes[minute].plus(news)
	}
	s.ticks++
}

// all returns all rules in no order.
func (s *Stats) all() []*Rule {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*Rule, 0, len(s.rules))
	for _, r := range s.rules {
		all = append(all, r)
	}
	return all
}

// whole returns the rule that r is a part of: of a value or an override the
// rule itself.
func (r *Rule) whole() *Rule {
	for r.of != nil {
		r = r.of
	}
	return r
}

func (r *Rule) calls() Calls {
	return Calls{r.allowed.Load(), r.denied.Load(), r.shadowDenied.Load(), r.errors.Load()}
}

// Activities returns the activity of the rules that are wanted, by name, and
// when its last second ended: zero before the first has.
func (s *Stats) Activities(withHistory bool, want func(Name) bool) (map[Name]Activity, time.Time) {
	s.sampling.Lock()
	defer s.sampling.Unlock()
	out := map[Name]Activity{}
	for _, r := range s.all() {
		whole := r.whole()
		if !want(whole.Name) {
			continue
		}
		a, known := out[whole.Name]
		if !known {
			a = s.activity(whole, withHistory)
		}
		a.Counts = sum(a.Counts, r.Counts())
		out[whole.Name] = a
	}
	return out, s.ticked
}

// activity returns rates and history.
func (s *Stats) activity(r *Rule, withHistory bool) Activity {
	a := Activity{Counts: r.former}
	if holds, given := r.Holds(); given {
		a.Holds = &holds
	}
	age := s.ticks - r.born
	h := r.history
	if h == nil {
		h = new(history)
	}
	ring := func(back uint64) Calls { // of the second that ended that many seconds ago
		if back >= s.ticks {
			return Calls{}
		}
		return h.seconds[(s.ticks-1-back)%HistoryLength].calls()
	}
	var minute, hour Calls
	for back := range uint64(HistoryLength) {
		minute = minute.plus(ring(back))
	}
	for _, m := range h.minutes {
		hour = hour.plus(m.calls())
	}
	a.Second = rates(ring(0), min(age, 1))
	a.Minute = rates(minute, min(age, HistoryLength))
	// The rings hold 59 minutes and the current one so far.
	a.Hour = rates(hour, min(age, 59*60+(s.ticks+59)%60+1))
	if withHistory {
		a.History = make([]Calls, HistoryLength)
		for i := range a.History {
			a.History[i] = ring(uint64(HistoryLength - 1 - i))
		}
	}
	return a
}

func rates(c Calls, seconds uint64) Rates {
	per := 1 / float64(max(seconds, 1))
	return Rates{float64(c.Allowed) * per, float64(c.Denied) * per, float64(c.ShadowDenied) * per, float64(c.Errors) * per}
}
