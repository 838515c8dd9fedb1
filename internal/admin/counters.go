package admin

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// Resetter is a store of counters that can forget some.
type Resetter interface {
	// Reset forgets the counters of the checks and returns how many were in use.
	Reset(ctx context.Context, checks []backend.Check) (int, error)
	// ResetAll forgets the counters whose keys are to go and returns their number. It
	// fails with ErrCannotList if the store can't list its counters.
	ResetAll(ctx context.Context, goes func(key []byte) bool) (int, error)
}

// ErrCannotList is the error of a store that can't list its counters.
var ErrCannotList = errors.New("this store cannot list its counters")

// looked is the answer of GET /admin/counters.
type looked struct {
	Domain   string             `json:"domain"`
	Entries  []descriptor.Entry `json:"entries"`
	Rule     *ruleJSON          `json:"rule,omitempty"`
	Counters []counterJSON      `json:"counters"`
}

type counterJSON struct {
	Counter           string   `json:"counter"`
	Rule              string   `json:"rule"`
	Name              string   `json:"name,omitempty"`
	Algorithm         string   `json:"algorithm"`
	RequestsPerUnit   uint32   `json:"requests_per_unit"`
	Unit              string   `json:"unit"`
	UnitMultiplier    uint32   `json:"unit_multiplier,omitempty"`
	Window            string   `json:"window,omitempty"`
	Allowed           bool     `json:"allowed"`
	Remaining         int64    `json:"remaining"`
	ResetAfterSeconds float64  `json:"reset_after_seconds"`
	RetryAfterSeconds *float64 `json:"retry_after_seconds"`
	// Held is how many requests hold, under a rule with a hold.
	Held *int `json:"held,omitempty"`
}

func describeCounter(c limiter.Counter) counterJSON {
	l := c.Limit
	out := counterJSON{
		Counter: string(c.Check.Key), Rule: c.Rule.Path, Name: l.Name, Algorithm: l.Algo.Params().Algorithm.String(),
		RequestsPerUnit: l.RequestsPerUnit, Unit: l.Unit.String(), Allowed: c.Decision.Allowed,
		Remaining: max(c.Decision.Remaining, 0), ResetAfterSeconds: c.Decision.ResetAfter.Seconds(),
	}
	if l.UnitMultiplier > 1 {
		out.UnitMultiplier = l.UnitMultiplier
	}
	_, out.Window = l.Window()
	if l.Algo.Holds() {
		held := int(c.Decision.Held)
		out.Held = &held
	}
	if after := c.Decision.RetryAfter; after != algo.Never {
		seconds := after.Seconds()
		out.RetryAfterSeconds = &seconds
	}
	return out
}

// lookTimeout bounds what a request waits for the store.
const lookTimeout = 5 * time.Second

// look returns what applies to a descriptor, or a problem.
func (a api) look(ctx context.Context, domain string, entries []descriptor.Entry) (*descriptor.Rule, []limiter.Counter, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	rule, counters, err := a.Limiter.Look(ctx, domain, entries)
	if err != nil {
		return nil, nil, refuseAs(backendFailed, "The counters can't be read", http.StatusServiceUnavailable, "%v", err)
	}
	return rule, counters, nil
}

func (a api) getCounters(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	domain := query.Get("domain")
	var entries descriptor.Entries
	if err := entries.UnmarshalText([]byte(query.Get("descriptor"))); err != nil {
		return refuse(http.StatusBadRequest, "descriptor: %v", err)
	}
	if domain == "" {
		return refuse(http.StatusBadRequest, "domain is missing")
	}
	rule, counters, err := a.look(r.Context(), domain, entries)
	if err != nil {
		return err
	}
	out := looked{Domain: domain, Entries: entries, Counters: []counterJSON{}}
	if rule != nil {
		if known, ok := a.ruleOf(rule); ok {
			described := describeRule(known)
			out.Rule = &described
		}
	}
	for _, c := range counters {
		out.Counters = append(out.Counters, describeCounter(c))
	}
	answer(w, http.StatusOK, out)
	return nil
}

// ruleOf returns the rule in force that the matcher has found, unless it is in
// force no more.
func (a api) ruleOf(rule *descriptor.Rule) (config.Rule, bool) {
	for r := range a.rulesInForce().All() {
		if r.Descriptor() == rule.Config {
			return r, true
		}
	}
	return config.Rule{}, false
}

// descriptorJSON is a descriptor in the body of a request.
type descriptorJSON struct {
	Domain  string             `json:"domain"`
	Entries []descriptor.Entry `json:"entries"`
}

func (d descriptorJSON) check() error {
	if d.Domain == "" {
		return refuse(http.StatusBadRequest, "domain is missing")
	}
	if len(d.Entries) == 0 {
		return refuse(http.StatusBadRequest, "entries are missing")
	}
	for i, e := range d.Entries {
		if e.Key == "" {
			return refuse(http.StatusBadRequest, "entries[%d] has no key", i)
		}
	}
	return nil
}

func (a api) explain(w http.ResponseWriter, r *http.Request) error {
	var of descriptorJSON
	if err := readJSON(w, r, &of); err != nil {
		return err
	}
	if err := of.check(); err != nil {
		return err
	}
	matcher := a.Limiter.Matcher()
	if matcher == nil {
		return refuse(http.StatusServiceUnavailable, "%v", limiter.ErrNoRules)
	}
	out := struct {
		descriptor.Explanation
		Key string `json:"key,omitempty"`
	}{Explanation: matcher.Explain(of.Domain, of.Entries)}
	if out.Rule != nil {
		if rule, ok := a.ruleOf(matcher.Rules()[out.Rule.Index]); ok {
			out.Key = rule.ID()
		}
	}
	answer(w, http.StatusOK, out)
	return nil
}

// resetRequest names a descriptor or a rule.
type resetRequest struct {
	descriptorJSON
	Rule string `json:"rule"`
}

func (a api) reset(w http.ResponseWriter, r *http.Request) error {
	if _, err := flags(r); err != nil {
		return err
	}
	var of resetRequest
	err := readJSON(w, r, &of)
	if err != nil {
		return err
	}
	var n int
	switch byDescriptor := of.Domain != "" || of.Entries != nil; {
	case byDescriptor && of.Rule != "":
		return refuse(http.StatusBadRequest, "send a rule, or a domain and entries")
	case of.Rule != "":
		n, err = a.resetRule(r.Context(), of.Rule)
	default:
		if err := of.check(); err != nil {
			return err
		}
		n, err = a.resetDescriptor(r.Context(), of.descriptorJSON)
	}
	if err != nil {
		return err
	}
	a.audit(r, "reset", zap.String("domain", abridge(of.Domain)), zap.String("descriptor", abridge(descriptor.Entries(of.Entries).String())),
		zap.String("rule", of.Rule), zap.Int("counters", n))
	answer(w, http.StatusOK, map[string]int{"counters": n})
	return nil
}

func (a api) resetDescriptor(ctx context.Context, of descriptorJSON) (int, error) {
	rule, counters, err := a.look(ctx, of.Domain, of.Entries)
	if err != nil {
		return 0, err
	}
	if rule == nil && len(counters) == 0 {
		return 0, refuse(http.StatusNotFound, "no rule applies to %s in domain %s: POST /admin/explain says why", descriptor.Entries(of.Entries), of.Domain)
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var checks []backend.Check
	released := 0
	for _, c := range counters {
		if names(of.Entries, c.Rule.Config.Hold) { // of one request, only what it holds
			held, err := a.Limiter.Release(ctx, c.Check)
			if err != nil {
				return released, notReset(err)
			}
			if held {
				released++
			}
			continue
		}
		if !isShared(c.Rule) {
			checks = append(checks, c.Check)
		}
	}
	n, err := a.Counters.Reset(ctx, checks)
	return n + released, notReset(err)
}

// names reports whether the entries say which request it is by which a rule holds.
func names(entries []descriptor.Entry, hold *config.Hold) bool {
	return hold != nil && slices.ContainsFunc(entries, func(e descriptor.Entry) bool { return e.Key == hold.By })
}

func (a api) resetRule(ctx context.Context, id string) (int, error) {
	matcher := a.Limiter.Matcher()
	if matcher == nil {
		return 0, refuse(http.StatusServiceUnavailable, "%v", limiter.ErrNoRules)
	}
	known, err := a.findID(id)
	if err != nil {
		return 0, err
	}
	of := func(r *descriptor.Rule) bool { return r != nil && r.Config == known.Descriptor() }
	at := slices.IndexFunc(matcher.Rules(), of)
	if at < 0 {
		return 0, refuse(http.StatusServiceUnavailable, "rules are being loaded: try again")
	}
	if rule := matcher.Rules()[at]; isShared(rule) { // its counters are known without a list
		n, err := a.Counters.Reset(ctx, a.Limiter.Shared(rule))
		return n, notReset(err)
	}
	n, err := a.Counters.ResetAll(ctx, func(key []byte) bool { return of(matcher.RuleOf(key)) })
	return n, notReset(err)
}

func notReset(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrCannotList):
		return refuseAs(cannotReset, "The counters of a rule can't be reset", http.StatusNotImplemented, "%v: reset them by their descriptors", err)
	}
	return refuseAs(backendFailed, "The counters may not be reset", http.StatusServiceUnavailable, "%v", err)
}
