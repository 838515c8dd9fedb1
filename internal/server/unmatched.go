package server

import (
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// How often the log says of a domain that it has no rules, and that descriptors meet
// none. The latter may be meant.
const (
	tellUnknownDomain = 10 * time.Minute
	tellUnmatched     = time.Hour
)

// missDomain counts a request for a domain without rules.
func (s *Service) missDomain(r *request, rules *ruleset, now time.Time) {
	s.opts.Stats.DomainNotFound.Add(1)
	if s.opts.Stats.UnknownDomain(r.domain).Miss(1, now, tellUnknownDomain) {
		s.opts.Log.Warn("a request is not limited: its domain has no rules", zap.String("domain", r.domain),
			zap.String("why", rules.matcher.Explain(r.domain, nil).Reason))
	}
}

// missRules counts the descriptors of a request that meet no rule and bring no limit.
func (s *Service) missRules(r *request, rules *ruleset, domain *descriptor.Domain, now time.Time) {
	missed, first := 0, -1
	for i := range r.descriptors {
		if d := &r.descriptors[i]; d.match == nil && d.override == nil {
			if missed++; first < 0 {
				first = i
			}
		}
	}
	if missed == 0 || !rules.domains[domain.Name()].Miss(missed, now, tellUnmatched) {
		return
	}
	entries := r.descriptors[first].entries
	var keys []string // without values, for those are clients' data
	for _, e := range r.entries[entries[0]:entries[1]] {
		keys = append(keys, e.Key)
	}
	s.opts.Log.Info("a descriptor is not limited: it meets no rule; ratelimit explain says why", zap.String("domain", r.domain),
		zap.String("keys", strings.Join(keys, ",")))
}
