package limiter

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/background"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// ruleset is the rules in force with all that does not depend on a request made
// beforehand. It is immutable.
type ruleset struct {
	matcher *descriptor.Matcher
	rules   []rule // by descriptor.Rule.Index
	domains map[string]*stats.Domain
}

// rule is a matched rule, ready to be checked.
type rule struct {
	match     *descriptor.Rule
	role      backend.Role // of its limits, candidates aside
	unlimited bool
	holds     bool
	limits    []Limit // next to those of other rules, in one piece of memory
	replaces  []string
	stats     *stats.Rule
}

// Limit is one limit of a rule, or the limit of an override.
type Limit struct {
	Name string // may be empty
	Algo *algo.Limit
	// RequestsPerUnit, Unit and UnitMultiplier are what current_limit reports. A
	// window that is not a whole number of units has config.UnitUnknown.
	RequestsPerUnit uint32
	Unit            config.Unit
	UnitMultiplier  uint32
	RawBody         []byte // of the 429 that it causes; empty: the proxy's own
	RequestHeaders  []config.Header
	Encoded         []byte // see Options.Encode

	index   int                     // in the rule; -1 for an override
	lease   float64                 // share that replicas may take ahead
	near    int64                   // hits above which the limit is near
	onError config.BackendErrorMode // never BackendErrorDefault
	local   *algo.Limit             // for BackendErrorLocal

	table   *table         // nil: it follows no entry
	percent config.Percent // that the burst is of the limit, if it is written so

	candidate bool        // in shadow mode beside others, which it does not affect
	stats     *stats.Rule // of a candidate
}

func (l *Limiter) compile(rules *config.Rules) (*ruleset, error) {
	before := l.Matcher()
	if before == nil {
		before = new(descriptor.Matcher)
	}
	rs := &ruleset{matcher: before.Recompile(rules)}
	matched := rs.matcher.Rules()
	names := make([]stats.Name, len(matched))
	for i, m := range matched {
		names[i] = stats.Name{Domain: m.Domain, Path: m.Path}
	}
	rs.rules = make([]rule, len(matched))
	n := 0
	for _, m := range matched {
		n += len(m.Config.Limits)
	}
	limits := make([]Limit, 0, n)
	task := background.New()
	defer task.Close()
	for i, m := range matched {
		task.Step()
		r := &rs.rules[i]
		r.match = m
		var err error
		if limits, err = l.compileRule(r, m.Config, limits); err != nil {
			return nil, fmt.Errorf("%s: domain %s: rule %s: %w", m.Config.Pos, m.Domain, m.Path, err)
		}
	}
	var candidates []*Limit
	var candidateNames []stats.Name
	for i, m := range matched {
		for at := range rs.rules[i].limits {
			if c := &rs.rules[i].limits[at]; c.candidate {
				candidates = append(candidates, c)
				candidateNames = append(candidateNames, stats.Name{Domain: m.Domain, Path: m.Path, Limit: m.Config.CandidateName(c.index)})
			}
		}
		task.Step()
	}
	counters := l.opts.Stats.Bind(slices.Concat(names, candidateNames), func(i int) (first, second string) {
		if i >= len(matched) { // a candidate has no such metrics
			return "", ""
		}
		return matched[i].MetricLevels(nil)
	})
	domains := make([]string, len(rules.Domains))
	for i, d := range rules.Domains {
		domains[i] = d.Name
	}
	rs.domains = l.opts.Stats.BindDomains(domains)
	for i := range rs.rules {
		rs.rules[i].stats = counters[i]
	}
	for i, c := range candidates {
		c.countIn(counters[len(rs.rules)+i])
	}
	return rs, nil
}

// compileRule returns the limits with those of the rule.
func (l *Limiter) compileRule(r *rule, c *config.Descriptor, limits []Limit) ([]Limit, error) {
	switch {
	case c.InShadow():
		r.role = backend.Shadow
	case c.QuotaMode || l.opts.QuotaMode:
		r.role = backend.Quota
	}
	r.holds = c.Hold != nil
	first := len(limits)
	for i, limit := range c.Limits {
		for _, name := range limit.Replaces {
			if !limit.ShadowMode && !slices.Contains(r.replaces, name) {
				r.replaces = append(r.replaces, name)
			}
		}
		if limit.Unlimited {
			r.unlimited = true
			continue
		}
		compiled := Limit{
			Name: limit.Name, Algo: limit.Algo, RequestsPerUnit: limit.RequestsPerUnit, Unit: limit.Unit, UnitMultiplier: limit.UnitMultiplier,
			index: i, lease: limit.Lease, RawBody: []byte(limit.RawBody), RequestHeaders: limit.RequestHeaders, onError: limit.OnBackendError, candidate: c.Candidate(limit), percent: limit.BurstPercent,
		}
		var err error
		if compiled.table, err = l.compileTable(&compiled, limit.Table); err != nil {
			return nil, err
		}
		if err := l.compileLimit(&compiled); err != nil {
			return nil, err
		}
		limits = append(limits, compiled)
	}
	r.limits = slices.Clip(limits[first:])
	return limits, nil
}

// compileLimit fills in the fields of a limit that follow from the others and from the
// options.
func (l *Limiter) compileLimit(limit *Limit) error {
	// In single precision, as envoyproxy/ratelimit: 0.29 of 100 is 29, not 28.
	limit.near = int64(float32(limit.Algo.Capacity()) * float32(l.opts.NearLimitRatio))
	if limit.onError == config.BackendErrorDefault {
		limit.onError = l.opts.OnBackendError
	}
	if limit.onError == config.BackendErrorLocal {
		if l.opts.Local == nil {
			return errors.New("on_backend_error: local needs another store to fall back to, and counters in memory have none; write error, allow or deny")
		}
		var err error
		if limit.local, err = share(limit.Algo.Params(), l.opts.Replicas); err != nil {
			return err
		}
	}
	if l.opts.Encode != nil {
		limit.Encoded = l.opts.Encode(limit)
	}
	return nil
}

// share returns the limit of one of several replicas that share no counters, so that
// together they admit no more than p does.
func share(p algo.Params, replicas int) (*algo.Limit, error) {
	n := uint32(replicas)
	if p.Algorithm.AlwaysHolds() { // a slot that is held for longer is no smaller
		p.Limit = min(p.Limit, max(p.Limit/n, 1))
		return algo.New(p)
	}
	split := func(hits uint32, per time.Duration) (uint32, time.Duration) {
		if hits == 0 || hits >= n {
			return hits / n, per
		}
		// Less than one hit each: one hit in a longer period instead.
		stretched := (per.Microseconds()*int64(n) + int64(hits) - 1) / int64(hits)
		return 1, time.Duration(min(stretched, algo.MaxWindow.Microseconds())) * time.Microsecond
	}
	if p.Burst == 0 && p.Refill == (algo.Rate{}) && p.Algorithm.Takes(algo.TakesRefill) {
		p.Refill = algo.Rate{Hits: p.Limit, Per: p.Window}
	}
	if p.Burst > 0 {
		p.Burst = max(1, p.Burst/n)
	}
	if p.Refill.Hits > 0 {
		p.Refill.Hits, p.Refill.Per = split(p.Refill.Hits, p.Refill.Per)
	}
	if p.Calendar.IsZero() || p.Limit > 0 && p.Limit < n { // a calendar can't be stretched
		p.Limit, p.Window = split(p.Limit, p.Length())
		p.Calendar = algo.Calendar{}
	} else {
		p.Limit /= n
	}
	return algo.New(p)
}
