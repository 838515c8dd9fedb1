package server

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

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

// rule is what the service knows of a matched rule.
type rule struct {
	role      backend.Role // of its limits, candidates aside
	unlimited bool
	detailed  bool    // has counters for each value
	limits    []limit // next to those of other rules, in one piece of memory
	replaces  []string
	stats     *stats.Rule
	metadata  *structpb.Struct // nil without
}

// limit is one limit of a rule, or of an override.
type limit struct {
	index    int // in the rule; -1 for an override
	name     string
	algo     *algo.Limit
	requests uint32  // per unit
	current  []byte  // current_limit of a status that reports it, as a field on the wire
	lease    float64 // what replicas may take ahead of it
	near     int64   // hits above which the limit is near
	rawBody  []byte
	onError  config.BackendErrorMode // never BackendErrorDefault
	local    *algo.Limit             // for BackendErrorLocal

	candidate bool        // in shadow mode beside others, which it does not affect
	stats     *stats.Rule // of a candidate
}

func (s *Service) compile(rules *config.Rules) (*ruleset, error) {
	before := s.Matcher()
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
	limits := make([]limit, 0, n)
	task := background.New()
	defer task.Close()
	for i, m := range matched {
		task.Step()
		r := &rs.rules[i]
		r.detailed = m.Detailed
		var err error
		if limits, err = s.compileRule(r, m.Config, limits); err != nil {
			return nil, fmt.Errorf("%s: domain %s: rule %s: %w", m.Config.Pos, m.Domain, m.Path, err)
		}
	}
	var candidates []*limit
	var candidateNames []stats.Name
	for i, m := range matched {
		for at := range rs.rules[i].limits {
			if l := &rs.rules[i].limits[at]; l.candidate {
				candidates = append(candidates, l)
				candidateNames = append(candidateNames, stats.Name{Domain: m.Domain, Path: m.Path, Limit: m.Config.CandidateName(l.index)})
			}
		}
		task.Step()
	}
	counters := s.opts.Stats.Bind(slices.Concat(names, candidateNames), func(i int) (first, second string) {
		if i >= len(matched) { // a candidate has no such metrics
			return "", ""
		}
		return matched[i].MetricLevels(nil)
	})
	domains := make([]string, len(rules.Domains))
	for i, d := range rules.Domains {
		domains[i] = d.Name
	}
	rs.domains = s.opts.Stats.BindDomains(domains)
	for i := range rs.rules {
		rs.rules[i].stats = counters[i]
	}
	for i, l := range candidates {
		l.stats = counters[len(rs.rules)+i]
	}
	return rs, nil
}

// compileRule returns the limits with those of the rule.
func (s *Service) compileRule(r *rule, c *config.Descriptor, limits []limit) (_ []limit, err error) {
	switch {
	case c.InShadow():
		r.role = backend.Shadow
	case c.QuotaMode || s.opts.QuotaMode:
		r.role = backend.Quota
	}
	if c.Metadata != nil {
		if r.metadata, err = structpb.NewStruct(c.Metadata); err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
	}
	first := len(limits)
	for i, l := range c.Limits {
		for _, name := range l.Replaces {
			if !l.ShadowMode && !slices.Contains(r.replaces, name) {
				r.replaces = append(r.replaces, name)
			}
		}
		if l.Unlimited {
			r.unlimited = true
			continue
		}
		compiled, err := s.compileLimit(l.Algo, l.OnBackendError)
		if err != nil {
			return nil, err
		}
		compiled.candidate = c.Candidate(l)
		compiled.index, compiled.name, compiled.lease, compiled.rawBody = i, l.Name, l.Lease, []byte(l.RawBody)
		compiled.report(l.RequestsPerUnit, int32(l.Unit), l.UnitMultiplier)
		limits = append(limits, compiled)
	}
	r.limits = slices.Clip(limits[first:])
	return limits, nil
}

func (s *Service) compileLimit(a *algo.Limit, mode config.BackendErrorMode) (limit, error) {
	// In single precision, as envoyproxy/ratelimit: 0.29 of 100 is 29, not 28.
	near := int64(float32(a.Capacity()) * float32(s.opts.NearLimitRatio))
	l := limit{algo: a, near: near, onError: mode}
	if mode == config.BackendErrorDefault {
		l.onError = s.opts.OnBackendError
	}
	if l.onError == config.BackendErrorLocal {
		if s.opts.Local == nil {
			return limit{}, errors.New("on_backend_error: local needs a store in memory beside the backend: memory itself has none to fall back to; write error, allow or deny")
		}
		var err error
		if l.local, err = share(a.Params(), s.opts.Replicas); err != nil {
			return limit{}, err
		}
	}
	return l, nil
}

// share returns the limit of one of so many replicas that have nothing in
// common, so that together they admit no more than p does.
func share(p algo.Params, replicas int) (*algo.Limit, error) {
	n := uint32(replicas)
	split := func(hits uint32, per time.Duration) (uint32, time.Duration) {
		if hits == 0 || hits >= n {
			return hits / n, per
		}
		// Less than one hit each: one hit in a longer period instead.
		stretched := (per.Microseconds()*int64(n) + int64(hits) - 1) / int64(hits)
		return 1, min(time.Duration(stretched)*time.Microsecond, algo.MaxWindow)
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
	p.Limit, p.Window = split(p.Limit, p.Window)
	return algo.New(p)
}
