package admin

import (
	"net/http"
	"time"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// statsList is the answer of GET /admin/stats.
type statsList struct {
	Time      time.Time      `json:"time"`
	Service   serviceCounts  `json:"service"`
	Unmatched unmatched      `json:"unmatched"`
	Rules     []ruleActivity `json:"rules"`
}

// unmatched is what met no rule since the process started.
type unmatched struct {
	Domains     []missed `json:"domains"`     // without rules, by requests
	Descriptors []missed `json:"descriptors"` // of domains with rules
}

type missed struct {
	Domain string    `json:"domain"`
	Count  uint64    `json:"count"`
	Last   time.Time `json:"last"`
}

func newUnmatched(s *stats.Stats) unmatched {
	list := func(from []stats.UnmatchedCount) []missed {
		out := make([]missed, len(from))
		for i, m := range from {
			out[i] = missed(m)
		}
		return out
	}
	unknown, known := s.Unmatched()
	return unmatched{Domains: list(unknown), Descriptors: list(known)}
}

type serviceCounts struct {
	BackendErrors    uint64 `json:"backend_errors"`
	ServiceErrors    uint64 `json:"service_errors"`
	DomainNotFound   uint64 `json:"domain_not_found"`
	GlobalShadowMode uint64 `json:"global_shadow_mode"`
}

type ruleActivity struct {
	Key        string               `json:"key"`
	Domain     string               `json:"domain"`
	Path       string               `json:"path"`
	Source     string               `json:"source"`
	Totals     totals               `json:"totals"`
	Rates      map[string]callRates `json:"rates"`
	LastDenied *time.Time           `json:"last_denied,omitempty"`
	Candidates []candidate          `json:"candidates,omitempty"`
	Holds      *stats.Holds         `json:"holds,omitempty"`
	History    *callHistory         `json:"history,omitempty"`
	Hottest    *hottest             `json:"hottest,omitempty"`
}

// candidate is a limit in shadow mode beside enforced ones.
type candidate struct {
	Limit  string `json:"limit"`
	Totals totals `json:"totals"`
}

type totals struct {
	Allowed      uint64 `json:"allowed"`
	Denied       uint64 `json:"denied"`
	ShadowDenied uint64 `json:"shadow_denied"`
	Errors       uint64 `json:"errors"`
	Hits         uint64 `json:"hits"`
	NearLimit    uint64 `json:"near_limit"`
	OverLimit    uint64 `json:"over_limit"`
}

type callRates struct {
	Allowed      float64 `json:"allowed"`
	Denied       float64 `json:"denied"`
	ShadowDenied float64 `json:"shadow_denied"`
	Errors       float64 `json:"errors"`
}

type callHistory struct {
	End          time.Time `json:"end"`
	Allowed      []uint64  `json:"allowed"`
	Denied       []uint64  `json:"denied"`
	ShadowDenied []uint64  `json:"shadow_denied"`
	Errors       []uint64  `json:"errors"`
}

type hottest struct {
	Since    time.Time    `json:"since"`
	Sampled  int          `json:"sampled"`
	Counters []hotCounter `json:"counters"`
}

type hotCounter struct {
	Entries  []descriptor.Entry `json:"entries"`
	Abridged bool               `json:"abridged,omitempty"`
	Calls    int64              `json:"calls"`
	Error    int64              `json:"error"`
}

func (a api) listStats(w http.ResponseWriter, r *http.Request) error {
	withHistory, err := flag(r, "history")
	if err != nil {
		return err
	}
	domain := r.URL.Query().Get("domain")
	list := statsList{Time: time.Now(), Unmatched: newUnmatched(a.Stats), Rules: []ruleActivity{}, Service: serviceCounts{
		BackendErrors: a.Stats.BackendErrors.Load(), ServiceErrors: a.Stats.ServiceErrors.Load(),
		DomainNotFound: a.Stats.DomainNotFound.Load(), GlobalShadowMode: a.Stats.GlobalShadowMode.Load(),
	}}
	activities, at := a.Stats.Activities(withHistory, func(n stats.Name) bool { return domain == "" || n.Domain == domain })
	for rule := range a.rulesInForce().All() {
		if domain == "" || rule.Domain.Name == domain {
			list.Rules = append(list.Rules, describeActivity(rule, activities, at))
		}
	}
	answer(w, http.StatusOK, list)
	return nil
}

func (a api) getStats(w http.ResponseWriter, r *http.Request) error {
	rule, err := a.find(r)
	if err != nil {
		return err
	}
	name := stats.Name{Domain: rule.Domain.Name, Path: rule.Name()}
	activities, at := a.Stats.Activities(true, func(n stats.Name) bool { return n.Domain == name.Domain && n.Path == name.Path })
	out := describeActivity(rule, activities, at)
	hot := a.Stats.Hottest(name, time.Now())
	out.Hottest = &hottest{Since: hot.Since, Sampled: hot.Sampled, Counters: make([]hotCounter, len(hot.Counters))}
	for i, c := range hot.Counters {
		counter, complete := descriptor.ParseKey([]byte(c.Key))
		entries := make([]descriptor.Entry, len(counter.Entries))
		for i, e := range counter.Entries {
			entries[i] = e.Entry
		}
		out.Hottest.Counters[i] = hotCounter{Entries: entries, Abridged: c.Abridged || !complete, Calls: c.Calls, Error: c.Error}
	}
	answer(w, http.StatusOK, out)
	return nil
}

func describeActivity(rule config.Rule, all map[stats.Name]stats.Activity, at time.Time) ruleActivity {
	name := stats.Name{Domain: rule.Domain.Name, Path: rule.Name()}
	x := all[name]
	out := ruleActivity{
		Key: rule.ID(), Domain: rule.Domain.Name, Path: rule.Name(), Source: rule.Descriptor().Origin.String(),
		Totals: newTotals(x.Counts),
		Rates:  map[string]callRates{"1s": callRates(x.Second), "1m": callRates(x.Minute), "1h": callRates(x.Hour)},
	}
	if !x.LastDenied.IsZero() {
		out.LastDenied = &x.LastDenied
	}
	out.Holds = x.Holds
	for i, l := range rule.Descriptor().Limits {
		if rule.Descriptor().Candidate(l) {
			name.Limit = rule.Descriptor().CandidateName(i)
			out.Candidates = append(out.Candidates, candidate{name.Limit, newTotals(all[name].Counts)})
		}
	}
	if x.History != nil {
		h := &callHistory{End: at}
		for _, c := range x.History {
			h.Allowed = append(h.Allowed, c.Allowed)
			h.Denied = append(h.Denied, c.Denied)
			h.ShadowDenied = append(h.ShadowDenied, c.ShadowDenied)
			h.Errors = append(h.Errors, c.Errors)
		}
		out.History = h
	}
	return out
}

func newTotals(c stats.Counts) totals {
	return totals{c.Allowed, c.Denied, c.ShadowDenied, c.Errors, c.TotalHits(), c.NearLimit, c.OverLimit}
}
