package stats

import (
	"cmp"
	"iter"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/distlimiter/ratelimit/internal/background"
)

// latency times answers, from the decoded request to the answer before encoding.
type latency struct{ prometheus.Histogram }

func newLatency() *latency {
	return &latency{prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:        "ratelimit_service_response_time_seconds",
		Help:        "Time from a decoded request to its answer.",
		ConstLabels: byMethod,
		Buckets:     []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
	})}
}

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
// their keys are the first two levels of the rule's path, in whose values _ stands for
// . : and |.
var (
	decisions = prometheus.NewDesc("ratelimit_decisions_total", "Calls by rule and result: allowed, denied, shadow_denied or error.", []string{"domain", "rule", "result"}, nil)

	unmatched = prometheus.NewDesc("ratelimit_unmatched_total", "What met no rule, by domain: requests whose domain has none, or descriptors.", []string{"domain", "what"}, nil)

	candidateDecisions = prometheus.NewDesc("ratelimit_candidate_decisions_total", "Calls by limit in shadow mode beside enforced ones, and result: allowed or shadow_denied.", []string{"domain", "rule", "limit", "result"}, nil)
	candidateOver      = prometheus.NewDesc("ratelimit_candidate_over_limit_hits_total", "Hits beyond a limit in shadow mode beside enforced ones.", []string{"domain", "rule", "limit"}, nil)

	results = []struct {
		name string
		read func(Counts) uint64
	}{
		{"allowed", func(c Counts) uint64 { return c.Allowed }},
		{"denied", func(c Counts) uint64 { return c.Denied }},
		{"error", func(c Counts) uint64 { return c.Errors }},
		{"shadow_denied", func(c Counts) uint64 { return c.ShadowDenied }},
	}

	// hitKinds have the names of envoyproxy/ratelimit, in the order of these.
	hitKinds = []struct {
		name, help string
		read       func(Counts) uint64
	}{
		{"near_limit", "Hits above the near-limit ratio.", func(c Counts) uint64 { return c.NearLimit }},
		{"over_limit", "Hits beyond the limit.", func(c Counts) uint64 { return c.OverLimit }},
		{"over_limit_with_local_cache", "Hits refused out of the local over-limit memory.", func(c Counts) uint64 { return c.OverLimitWithLocalCache }},
		{"shadow_mode", "Hits beyond the limit that shadow mode let through.", func(c Counts) uint64 { return c.ShadowMode }},
		{"total_hits", "Hits of all calls.", Counts.TotalHits},
		{"within_limit", "Hits that were admitted.", func(c Counts) uint64 { return c.WithinLimit }},
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

// Hits returns the counts of hits by the names that envoyproxy/ratelimit has for them, in
// the order of the names.
func (c Counts) Hits() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for _, k := range hitKinds {
			if !yield(k.name, k.read(c)) {
				return
			}
		}
	}
}

// Describe sends nothing: the labels of a rule's metrics depend on its depth, as
// in envoyproxy/ratelimit, which makes this an unchecked collector.
func (s *Stats) Describe(chan<- *prometheus.Desc) {}

// series is a counter with labels that it shares with others: there may be a
// hundred thousand of them. The labels are in the order of their names.
type series struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  float64
}

// Desc implements prometheus.Metric.
func (s *series) Desc() *prometheus.Desc { return s.desc }

// Write implements prometheus.Metric.
func (s *series) Write(out *dto.Metric) error {
	out.Label, out.Counter = s.labels, &dto.Counter{Value: &s.value}
	return nil
}

func labelPair(name, value string) *dto.LabelPair {
	return &dto.LabelPair{Name: &name, Value: &value}
}

// Collect implements prometheus.Collector. It lets requests go first. The series of
// a name come in the order in which they are shown, so that sorting them takes no
// time.
func (s *Stats) Collect(out chan<- prometheus.Metric) {
	s.latency.Collect(out)
	for _, d := range serviceDescs {
		out <- prometheus.MustNewConstMetric(d.desc, prometheus.CounterValue, float64(d.read(s)))
	}
	s.collectUnmatched(out)
	task := background.New()
	defer task.Close()
	rules := s.Rules()
	counts := make([]ruleCounts, len(rules))
	domain := labelPair("domain", "")
	for i, r := range rules {
		if name := label(r.Name.Domain); name != *domain.Value {
			domain = labelPair("domain", name)
		}
		counts[i] = ruleCounts{r, r.Counts(), domain, labelPair("rule", label(r.Name.Path))}
		task.Step()
	}
	for _, result := range results {
		name := labelPair("result", result.name)
		for i := range counts {
			c := &counts[i]
			out <- &series{decisions, []*dto.LabelPair{c.domain, name, c.rule}, float64(result.read(c.Counts))}
			task.Step()
		}
	}
	collectHolds(out, counts)
	for _, r := range s.Candidates() {
		c := r.Counts()
		labels := []string{label(r.Name.Domain), label(r.Name.Path), label(r.Name.Limit)}
		out <- prometheus.MustNewConstMetric(candidateDecisions, prometheus.CounterValue, float64(c.Allowed), append(labels, "allowed")...)
		out <- prometheus.MustNewConstMetric(candidateDecisions, prometheus.CounterValue, float64(c.ShadowDenied), append(labels, "shadow_denied")...)
		out <- prometheus.MustNewConstMetric(candidateOver, prometheus.CounterValue, float64(c.OverLimit), labels...)
		task.Step()
	}
	byLevels := sumByLevels(counts, task)
	for i, kind := range hitKinds {
		for _, l := range byLevels {
			out <- &series{hitDescs[i][len(l.labels)-2], l.labels, float64(kind.read(l.counts))}
			task.Step()
		}
	}
}

// collectUnmatched also gives envoyproxy/ratelimit's metrics for domains without rules,
// whose names hold those of the domains.
func (s *Stats) collectUnmatched(out chan<- prometheus.Metric) {
	unknown, known := s.Unmatched()
	theirs := map[string]uint64{}
	for _, m := range unknown {
		out <- prometheus.MustNewConstMetric(unmatched, prometheus.CounterValue, float64(m.Count), label(m.Domain), "domain")
		theirs["ratelimit_service_rate_limit_"+notInNames.ReplaceAllString(m.Domain, "_")+"_domain_not_found"] += m.Count
	}
	for _, m := range known {
		out <- prometheus.MustNewConstMetric(unmatched, prometheus.CounterValue, float64(m.Count), label(m.Domain), "descriptor")
	}
	for name, n := range theirs {
		desc := prometheus.NewDesc(name, "Requests for a domain without rules, under envoyproxy/ratelimit's name.", nil, nil)
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n))
	}
}

var notInNames = regexp.MustCompile(`[^a-zA-Z0-9_]`)

// ruleCounts are the counts of a rule with its labels.
type ruleCounts struct {
	of *Rule
	Counts
	domain, rule *dto.LabelPair
}

// levelCounts are the counts of the rules that have their first two levels in
// common.
type levelCounts struct {
	keys   [3]string // domain, key1 and key2
	labels []*dto.LabelPair
	counts Counts
}

// sumByLevels adds up rules that are below the second level: they share a series
// with their siblings.
func sumByLevels(rules []ruleCounts, task *background.Task) []*levelCounts {
	byKeys := map[[3]string]*levelCounts{}
	var all []*levelCounts
	for _, r := range rules {
		key1, key2 := label(r.of.key1), label(r.of.key2)
		keys := [3]string{*r.domain.Value, key1, key2}
		l := byKeys[keys]
		if l == nil {
			l = &levelCounts{keys: keys, labels: []*dto.LabelPair{r.domain, labelPair("key1", key1)}}
			if key2 != "" {
				l.labels = append(l.labels, labelPair("key2", key2))
			}
			byKeys[keys] = l
			all = append(all, l)
		}
		l.counts = sum(l.counts, r.Counts)
		task.Step()
	}
	slices.SortFunc(all, func(a, b *levelCounts) int {
		task.Step()
		return cmp.Or(cmp.Compare(len(a.labels), len(b.labels)), slices.Compare(a.keys[:], b.keys[:]))
	})
	return all
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
