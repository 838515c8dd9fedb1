package limiter

import (
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// The least time between two log lines on requests for one domain without rules, and on
// descriptors of one domain that match no rule. The latter may be intended.
const (
	logUnknownDomainEvery = 10 * time.Minute
	logUnmatchedEvery     = time.Hour
)

// missDomain counts a request for a domain without rules.
func (l *Limiter) missDomain(r *Request, rules *ruleset, now time.Time) {
	l.opts.Stats.DomainNotFound.Add(1)
	if l.opts.Stats.UnknownDomain(r.Domain).CountUnmatched(1, now, logUnknownDomainEvery) {
		l.opts.Log.Warn("a request is not limited: its domain has no rules", zap.String("domain", r.Domain),
			zap.String("why", rules.matcher.Explain(r.Domain, nil).Reason))
	}
}

// missRules counts the descriptors of a request that match no rule and bring no override.
func (l *Limiter) missRules(r *Request, rules *ruleset, domain *descriptor.Domain, now time.Time) {
	missed, first := 0, -1
	for i := range r.Descriptors {
		if d := &r.Descriptors[i]; d.unmatched() {
			if missed++; first < 0 {
				first = i
			}
		}
	}
	if missed == 0 || !rules.domains[domain.Name()].CountUnmatched(missed, now, logUnmatchedEvery) {
		return
	}
	var keys []string // without values, because those are clients' data
	for _, e := range r.entriesOf(&r.Descriptors[first]) {
		keys = append(keys, e.Key)
	}
	l.opts.Log.Info("a descriptor is not limited: it meets no rule; ratelimit explain says why", zap.String("domain", r.Domain),
		zap.String("keys", strings.Join(keys, ",")))
}
