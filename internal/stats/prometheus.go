package stats

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// latency times answers, from the decoded request to the answer before encoding.
type latency struct{ prometheus.Histogram }

func newLatency() *latency {
	return &latency{prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:        "ratelimit_service_response_time_seconds",
		Help:        "Time from a decoded request to its answer.",
		ConstLabels: byMethod,
		Buckets:     []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 1},
	})}
}

func (l *latency) observe(d time.Duration) { l.Observe(d.Seconds()) }

// count returns how many answers were timed.
func (l *latency) count() uint64 {
	var m dto.Metric
	if err := l.Write(&m); err != nil {
		return 0
	}
	return m.GetHistogram().GetSampleCount()
}

// byMethod is a label of envoyproxy/ratelimit's, whose service has one method.
var byMethod = prometheus.Labels{"grpc_method": "ShouldRateLimit"}

// The metrics that name a rule. Those called ratelimit_service_… have the names
// and labels of envoyproxy/ratelimit's exporter, on which dashboards are built;
// their keys are the first two levels of the rule's path.
var (
	decisions = prometheus.NewDesc("ratelimit_decisions_total", "Calls by rule and result: allowed, denied, shadow_denied or error.", []string{"domain", "rule", "result"}, nil)

	candidateDecisions = prometheus.NewDesc("ratelimit_candidate_decisions_total", "Calls by limit in shadow mode beside enforced ones, and result: allowed or shadow_denied.", []string{"domain", "rule", "limit", "result"}, nil)
	candidateOver      = prometheus.NewDesc("ratelimit_candidate_over_limit_hits_total", "Hits beyond a limit in shadow mode beside enforced ones.", []string{"domain", "rule", "limit"}, nil)

	hitKinds = []struct {
		name, help string
		read       func(Counts) uint64
	}{
		{"total_hits", "Hits of all calls.", Counts.TotalHits},
		{"within_limit", "Hits that were admitted.", func(c Counts) uint64 { return c.WithinLimit }},
		{"over_limit", "Hits beyond the limit.", func(c Counts) uint64 { return c.OverLimit }},
		{"near_limit", "Hits above the near-limit ratio.", func(c Counts) uint64 { return c.NearLimit }},
		{"over_limit_with_local_cache", "Hits refused out of the local over-limit memory.", func(c Counts) uint64 { return c.OverLimitWithLocalCache }},
		{"shadow_mode", "Hits beyond the limit that shadow mode let through.", func(c Counts) uint64 { return c.ShadowMode }},
	}
	hitLabels = [][]string{{"domain", "key1"}, {"domain", "key1", "key2"}}
	hitDescs  = func() (descs [][2]*prometheus.Desc) {
		for _, k := range hitKinds {
			var d [2]*prometheus.Desc
			for i, labels := range hitLabels {
				d[i] = prometheus.NewDesc("ratelimit_service_rate_limit_"+k.name, k.help, labels, nil)
			}
			descs = append(descs, d)
		}
		return descs
	}()

	serviceDescs = []struct {
		desc *prometheus.Desc
		read func(*Stats) uint64
	}{
		{prometheus.NewDesc("ratelimit_service_global_shadow_mode", "Answers that service-wide shadow mode turned into OK.", nil, nil), func(s *Stats) uint64 { return s.GlobalShadowMode.Load() }},
		{prometheus.NewDesc("ratelimit_service_total_requests", "Requests, answered or not.", nil, byMethod), (*Stats).Requests},
		{prometheus.NewDesc("ratelimit_service_domain_not_found", "Requests whose domain has no rules.", nil, nil), func(s *Stats) uint64 { return s.DomainNotFound.Load() }},
		{prometheus.NewDesc("ratelimit_service_should_rate_limit_error", "Requests without a decision, by cause.", nil, prometheus.Labels{"err_type": "redis_error"}), func(s *Stats) uint64 { return s.BackendErrors.Load() }},
		{prometheus.NewDesc("ratelimit_service_should_rate_limit_error", "Requests without a decision, by cause.", nil, prometheus.Labels{"err_type": "service_error"}), func(s *Stats) uint64 { return s.ServiceErrors.Load() }},
		{prometheus.NewDesc("ratelimit_detailed_metric_folded_total", "Calls of rules with detailed_metric that were counted under the rule, for want of room.", nil, nil), func(s *Stats) uint64 { return s.Folded.Load() }},
	}
)

// Describe sends nothing: the labels of a rule's metrics depend on its depth, as
// in envoyproxy/ratelimit, which makes this an unchecked collector.
func (s *Stats) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *Stats) Collect(out chan<- prometheus.Metric) {
	s.latency.Collect(out)
	for _, d := range serviceDescs {
		out <- prometheus.MustNewConstMetric(d.desc, prometheus.CounterValue, float64(d.read(s)))
	}
	// Rules below the second level share a series with their siblings.
	byKeys := map[[3]string]Counts{}
	for _, r := range s.Rules() {
		c := r.Counts()
		for _, d := range []struct {
			result string
			n      uint64
		}{{"allowed", c.Allowed}, {"denied", c.Denied}, {"shadow_denied", c.ShadowDenied}, {"error", c.Errors}} {
			out <- prometheus.MustNewConstMetric(decisions, prometheus.CounterValue, float64(d.n), label(r.Name.Domain), label(r.Name.Path), d.result)
		}
		key1, rest, _ := strings.Cut(r.Name.Path, ".")
		key2, _, _ := strings.Cut(rest, ".")
		keys := [3]string{label(r.Name.Domain), label(key1), label(key2)}
		byKeys[keys] = sum(byKeys[keys], c)
	}
	for _, r := range s.Candidates() {
		c := r.Counts()
		labels := []string{label(r.Name.Domain), label(r.Name.Path), label(r.Name.Limit)}
		out <- prometheus.MustNewConstMetric(candidateDecisions, prometheus.CounterValue, float64(c.Allowed), append(labels, "allowed")...)
		out <- prometheus.MustNewConstMetric(candidateDecisions, prometheus.CounterValue, float64(c.ShadowDenied), append(labels, "shadow_denied")...)
		out <- prometheus.MustNewConstMetric(candidateOver, prometheus.CounterValue, float64(c.OverLimit), labels...)
	}
	for keys, c := range byKeys {
		labels, form := keys[:], 1
		if keys[2] == "" {
			labels, form = keys[:2], 0
		}
		for i, k := range hitKinds {
			out <- prometheus.MustNewConstMetric(hitDescs[i][form], prometheus.CounterValue, float64(k.read(c)), labels...)
		}
	}
}

func sum(a, b Counts) Counts {
	a.WithinLimit = plus(a.WithinLimit, b.WithinLimit)
	a.DeniedHits = plus(a.DeniedHits, b.DeniedHits)
	a.OverLimit = plus(a.OverLimit, b.OverLimit)
	a.NearLimit = plus(a.NearLimit, b.NearLimit)
	a.ShadowMode = plus(a.ShadowMode, b.ShadowMode)
	a.OverLimitWithLocalCache = plus(a.OverLimitWithLocalCache, b.OverLimitWithLocalCache)
	a.Allowed += b.Allowed
	a.Denied += b.Denied
	a.ShadowDenied += b.ShadowDenied
	a.Errors += b.Errors
	if b.LastDenied.After(a.LastDenied) {
		a.LastDenied = b.LastDenied
	}
	return a
}

// label makes any bytes a valid label value.
func label(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
