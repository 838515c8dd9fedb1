package limiter_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// TestUnmatchedIsCountedAndLoggedOnce: descriptors that match no rule are counted by domain,
// and the log has a line for the first, without its values.
func TestUnmatchedIsCountedAndLoggedOnce(t *testing.T) {
	core, lines := observer.New(zap.InfoLevel)
	f := serve(t, observed, func(o *limiter.Options) { o.Log = zap.New(core) })
	for range 3 {
		for _, domain := range []string{"edge", "egde"} {
			if _, err := f.decide(context.Background(), domain, desc("nobody=secret,path=/x"), desc("user=al")); err != nil {
				t.Fatal(err)
			}
		}
	}
	unknown, known := f.stats.Unmatched()
	if len(unknown) != 1 || unknown[0].Domain != "egde" || unknown[0].Count != 3 || len(known) != 1 || known[0].Domain != "edge" || known[0].Count != 3 {
		t.Errorf("%v %v", unknown, known)
	}
	var said []string
	for _, l := range lines.All() {
		said = append(said, fmt.Sprint(l.Level, " ", l.Message, " ", l.ContextMap()))
	}
	want := []string{
		"info a descriptor is not limited: it meets no rule; ratelimit explain says why map[domain:edge keys:nobody,path]",
		"warn a request is not limited: its domain has no rules map[domain:egde why:there are no rules for domain egde; nearest: edge]",
	}
	if !slices.Equal(said, want) {
		t.Errorf("%s", strings.Join(said, "\n"))
	}
}

// labelsOf returns the labels of the series of a metric.
func labelsOf(t *testing.T, s *stats.Stats, name string) (all []string) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name {
				var labels []string
				for _, l := range m.GetLabel() {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
				all = append(all, strings.Join(labels, " "))
			}
		}
	}
	return all
}

// TestLabelsAreTheLevelsOfRules: a dot in a value is no end of a level, and two networks
// have a series each. The same holds for values of detailed_metric.
func TestLabelsAreTheLevelsOfRules(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: masked_remote_address
    value: 192.168.0.10/32
    rate_limit: {unit: year, requests_per_unit: 1}
  - key: masked_remote_address
    value: 192.169.0.0/16
    descriptors:
      - {key: path, value: "/v1.2:x|y", rate_limit: {unit: year, requests_per_unit: 1}}
  - key: host
    detailed_metric: true
    rate_limit: {unit: year, requests_per_unit: 1}
`)
	f.ask(desc("host=a.example"))
	want := []string{
		"domain=edge key1=host",
		"domain=edge key1=host_a_example",
		"domain=edge key1=masked_remote_address_192_168_0_10/32",
		"domain=edge key1=masked_remote_address_192_169_0_0/16 key2=path_/v1_2_x_y",
	}
	got := labelsOf(t, f.stats, "ratelimit_service_rate_limit_total_hits")
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

// TestOverridesAreCountedUnderTheirRule: limits that requests bring add no series, so that
// values of detailed_metric have room. OverridesByValue counts as envoyproxy/ratelimit.
func TestOverridesAreCountedUnderTheirRule(t *testing.T) {
	for _, byValue := range []bool{false, true} {
		f := serve(t, "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: year, requests_per_unit: 1}}, {key: tenant, detailed_metric: true, rate_limit: {unit: year, requests_per_unit: 1}}]",
			func(o *limiter.Options) { o.OverridesByValue = byValue })
		for i := range 50 {
			var brought []*ask
			for _, key := range []string{"user", "unknown", "tenant"} {
				brought = append(brought, override(desc(fmt.Sprintf("%s=%d", key, i%(50/2))), 1, config.Year))
			}
			f.ask(brought...)
		}
		counts := map[string]int{}
		for _, r := range f.stats.Rules() {
			key, _, _ := strings.Cut(r.Name.Path, "_")
			counts[key]++
			if c := r.Counts(); r.Name.Path == "user" && !byValue && (c.Allowed != 25 || c.Denied != 25) {
				t.Errorf("the rule: %+v", c)
			}
		}
		want := map[string]int{"user": 1, "unknown": 1, "tenant": 1 + 25}
		if byValue {
			want = map[string]int{"user": 1 + 25, "unknown": 25, "tenant": 1 + 25}
		}
		if fmt.Sprint(counts) != fmt.Sprint(want) {
			t.Errorf("by value %v: %v", byValue, counts)
		}
	}
}
