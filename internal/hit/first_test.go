package hit

import (
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
)

// TestFirstShowsBothAnswers decides what First sends, in some time: the first request
// passes and the last does not.
func TestFirstShowsBothAnswers(t *testing.T) {
	const limit = "rate_limit: {unit: minute, requests_per_unit: 10}"
	for _, tt := range []struct{ name, descriptors, want string }{
		{"key alone", "[{key: user, " + limit + "}]", "user=demo"},
		{"exact value", "[{key: user, value: alice, " + limit + "}]", "user=alice"},
		{"pattern", "[{key: path, value: /api/*/x*, " + limit + "}]", "path=/api/demo/xdemo"},
		{"nested", "[{key: a, descriptors: [{key: b, value: x, " + limit + "}]}]", "a=demo,b=x"},
		{"unlimited shows nothing", "[{key: a, rate_limit: {unlimited: true}}, {key: b, " + limit + "}]", "b=demo"},
		{"shadow mode refuses nothing", "[{key: a, shadow_mode: true, " + limit + "}, {key: b, " + limit + "}]", "b=demo"},
		{"0 passes nothing", "[{key: a, rate_limit: {unit: day, requests_per_unit: 0}}, {key: b, " + limit + "}]", "b=demo"},
		{"a bucket that is full again at once", "[{key: a, rate_limit: {algorithm: leaky_bucket, unit: second, requests_per_unit: 10000}}, {key: b, " + limit + "}]", "b=demo"},
		{"a rule that others hide", "[{key: a, value: '*', " + limit + "}, {key: a, value: b*, " + limit + "}]", "a=demo"},
		{"one", "[{key: a, rate_limit: {unit: day, requests_per_unit: 1}}]", "a=demo"},
		{"many", "[{key: a, rate_limit: {unit: second, requests_per_unit: 4294967295}}]", "a=demo"},
		{"burst", "[{key: a, rate_limit: {algorithm: token_bucket, unit: second, requests_per_unit: 1000, burst: 5000}}]", "a=demo"},
		{"hybrid", "[{key: a, rate_limit: {algorithm: hybrid, token_bucket: {capacity: 20, refill_rate: 2/s}, sliding_window: {requests_per_unit: 100, unit: minute}}}]", "a=demo"},
		{"several limits", "[{key: a, rate_limits: [{unit: second, requests_per_unit: 37}, {unit: day, requests_per_unit: 100000}]}]", "a=demo"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules, err := rulefile.Parse([]rulefile.Source{{Name: "r.yaml", Data: []byte("{domain: edge, descriptors: " + tt.descriptors + "}")}}, rulefile.Options{})
			if err != nil {
				t.Fatal(err)
			}
			matcher := descriptor.Compile(rules)
			first, ok := First(rules, matcher)
			if !ok || first.Domain != "edge" || first.Descriptors[0].String() != tt.want {
				t.Fatalf("got %+v, %v; want %s", first, ok, tt.want)
			}
			rule := matcher.Domain("edge").Lookup(first.Descriptors[0])
			states := make([]algo.State, len(rule.Config.Limits))
			var passed []bool
			for i := range first.Count {
				now, all := int64(i)*time.Millisecond.Microseconds(), true
				for j, l := range rule.Config.Limits {
					var d algo.Decision
					states[j], d = l.Algo.Step(states[j], now, first.Hits)
					all = all && d.Allowed
				}
				passed = append(passed, all)
			}
			if !passed[0] || passed[len(passed)-1] && passed[len(passed)-2] {
				t.Errorf("hits %d: %v", first.Hits, passed)
			}
		})
	}
	rules, err := rulefile.Parse([]rulefile.Source{{Name: "r.yaml", Data: []byte("{domain: edge, descriptors: [{key: a, rate_limit: {unlimited: true}}]}")}}, rulefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if first, ok := First(rules, descriptor.Compile(rules)); ok || Limits(rules) {
		t.Errorf("without a limit: %+v", first)
	}
}

// TestFirstShowsHolds: a request of no name holds each time that it asks, so that one
// command fills a limit on what is held at once.
func TestFirstShowsHolds(t *testing.T) {
	for _, tt := range []struct{ match, want string }{{"", "id"}, {"match: {user: {}, id: {}}, ", "user=demo,id"}} {
		rules, err := rulefile.Parse([]rulefile.Source{{Name: "r.yaml", Data: []byte("{domain: edge, limits: [{name: x, " + tt.match +
			"hold: {by: id, expires: 60s, settled_by: {phase: done}}, rate_limit: {algorithm: concurrency, requests_per_unit: 5}}]}")}}, rulefile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		matcher := descriptor.Compile(rules)
		first, ok := First(rules, matcher)
		if !ok || !Limits(rules) || first.Descriptors[0].String() != tt.want || first.Hits != 1 {
			t.Fatalf("got %+v, %v; want %s", first, ok, tt.want)
		}
		met, _, err := matcher.Domain("edge").LookupSets(nil, nil, first.Descriptors[0], true)
		if err != nil || len(met) != 1 {
			t.Fatalf("it meets %v, error %v", met, err)
		}
		var state algo.State
		passed := 0
		for range first.Count {
			l := met[0].Config.Limits[0].Algo.For(met[0].HoldOf(first.Descriptors[0]))
			var d algo.Decision
			if state, d = l.Step(state, 1, first.Hits); d.Allowed {
				passed++
			}
		}
		if passed != 5 {
			t.Errorf("%d pass, want the 5 of the limit", passed)
		}
	}
}
