package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/distlimiter/ratelimit/internal/stats"
	"github.com/distlimiter/ratelimit/internal/stats/statsd"
)

// ruleStats is one rule in the answer of /stats?format=json.
type ruleStats struct {
	Domain                  string     `json:"domain"`
	Rule                    string     `json:"rule"`
	TotalHits               uint64     `json:"total_hits"`
	WithinLimit             uint64     `json:"within_limit"`
	OverLimit               uint64     `json:"over_limit"`
	NearLimit               uint64     `json:"near_limit"`
	OverLimitWithLocalCache uint64     `json:"over_limit_with_local_cache"`
	ShadowMode              uint64     `json:"shadow_mode"`
	Allowed                 uint64     `json:"allowed"`
	Denied                  uint64     `json:"denied"`
	ShadowDenied            uint64     `json:"shadow_denied"`
	Errors                  uint64     `json:"errors"`
	LastDenied              *time.Time `json:"last_denied,omitempty"`
	// Holds is what became of holds, if there were any.
	Holds *stats.Holds `json:"holds,omitempty"`
}

// stats answers with what was counted since the process started: as lines of
// name and number under the names that envoyproxy/ratelimit's statsd output has,
// or as JSON.
func (o Options) stats() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch format := r.URL.Query().Get("format"); format {
		case "", "text":
			plainText(w)
			o.writeStats(w)
		case "json":
			writeJSON(w, map[string]any{"service": o.serviceStats(), "rules": o.ruleStats()})
		default:
			http.Error(w, fmt.Sprintf("unknown format %q: use text or json", format), http.StatusBadRequest)
		}
	})
}

// serviceStats returns the counts that belong to no rule, by the names that they have in
// envoyproxy/ratelimit.
func (o Options) serviceStats() map[string]uint64 {
	reloads := o.Reloads()
	return map[string]uint64{
		"call.should_rate_limit.redis_error":   o.Stats.BackendErrors.Load(),
		"call.should_rate_limit.service_error": o.Stats.ServiceErrors.Load(),
		"config_load_success":                  reloads.Successes,
		"config_load_error":                    reloads.Failures,
		"domain_not_found":                     o.Stats.DomainNotFound.Load(),
		"global_shadow_mode":                   o.Stats.GlobalShadowMode.Load(),
	}
}

func (o Options) ruleStats() []ruleStats {
	all := []ruleStats{}
	for _, r := range o.Stats.Rules() {
		c := r.Counts()
		s := ruleStats{
			Domain: r.Name.Domain, Rule: r.Name.Path,
			TotalHits: c.TotalHits(), WithinLimit: c.WithinLimit, OverLimit: c.OverLimit, NearLimit: c.NearLimit,
			OverLimitWithLocalCache: c.OverLimitWithLocalCache, ShadowMode: c.ShadowMode,
			Allowed: c.Allowed, Denied: c.Denied, ShadowDenied: c.ShadowDenied, Errors: c.Errors,
		}
		if !c.LastDenied.IsZero() {
			s.LastDenied = &c.LastDenied
		}
		if holds, given := r.Holds(); given {
			s.Holds = &holds
		}
		all = append(all, s)
	}
	return all
}

func (o Options) writeStats(w http.ResponseWriter) {
	service := o.serviceStats()
	for _, name := range slices.Sorted(maps.Keys(service)) {
		fmt.Fprintf(w, "ratelimit.service.%s: %d\n", name, service[name])
	}
	for _, r := range o.Stats.Rules() {
		prefix := statsd.Sanitize(r.Name.Domain) + "." + statsd.Sanitize(r.Name.Path)
		for name, n := range r.Counts().Hits() {
			fmt.Fprintf(w, "ratelimit.service.rate_limit.%s.%s: %d\n", prefix, name, n)
		}
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(v) // a client that has left is no error of ours
}
