package limiter_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/persecond"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// modelRule is a rule of the tree, for a key with any value, or one on sets of entries.
type modelRule struct {
	name    string
	key     string            // of the tree
	match   map[string]string // of a set: what is asked of the key, as YAML
	countBy []string
	shadow  bool
	limits  []modelLimit
}

type modelLimit struct {
	unit   string
	most   int64
	counts bool // denied hits
	shadow bool
}

func (r *modelRule) yaml() string {
	var b strings.Builder
	if r.key != "" {
		fmt.Fprintf(&b, "  - key: %s\n", r.key)
	} else {
		fmt.Fprintf(&b, "  - name: %s\n    count_by: [%s]\n    match: {", r.name, strings.Join(r.countBy, ", "))
		for key, asked := range r.match {
			fmt.Fprintf(&b, "%s: %s, ", key, asked)
		}
		b.WriteString("}\n")
	}
	fmt.Fprintf(&b, "    shadow_mode: %t\n    rate_limits:\n", r.shadow)
	for _, l := range r.limits {
		denied := "drop"
		if l.counts {
			denied = "count"
		}
		fmt.Fprintf(&b, "      - {unit: %s, requests_per_unit: %d, denied_hits: %s, shadow_mode: %t}\n", l.unit, l.most, denied, l.shadow)
	}
	return b.String()
}

// conditions are the conditions of a rule on a key.
var conditions = map[string]func(values []string) bool{
	"x":              func(v []string) bool { return slices.Contains(v, "x") },
	"[x, y]":         func(v []string) bool { return slices.Contains(v, "x") || slices.Contains(v, "y") },
	`"y*"`:           func(v []string) bool { return slices.ContainsFunc(v, func(s string) bool { return s[0] == 'y' }) },
	"{}":             func(v []string) bool { return len(v) > 0 },
	"{not: [x]}":     func(v []string) bool { return len(v) > 0 && !slices.Contains(v, "x") },
	"{absent: true}": func(v []string) bool { return len(v) == 0 },
}

var drawRule = rapid.Custom(func(t *rapid.T) *modelRule {
	r := &modelRule{match: map[string]string{}, shadow: rapid.IntRange(0, 4).Draw(t, "shadow") == 0}
	for _, key := range []string{"a", "b", "c"} {
		if rapid.Bool().Draw(t, key) {
			r.match[key] = rapid.SampledFrom([]string{"x", "[x, y]", `"y*"`, "{}", "{not: [x]}", "{absent: true}"}).Draw(t, "condition")
			if r.match[key] != "{absent: true}" && rapid.Bool().Draw(t, "counted") {
				r.countBy = append(r.countBy, key)
			}
		}
	}
	r.limits = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) modelLimit {
		return modelLimit{
			unit: rapid.SampledFrom([]string{"second", "hour"}).Draw(t, "unit"), most: rapid.Int64Range(0, 12).Draw(t, "most"),
			counts: rapid.IntRange(0, 3).Draw(t, "denied") == 0, shadow: rapid.IntRange(0, 4).Draw(t, "candidate") == 0,
		}
	}), 1, 2).Draw(t, "limits")
	return r
})

// applies reports whether the rule applies, and returns the name of its counter.
func (r *modelRule) applies(entries []descriptor.Entry, first bool) (counter string, yes bool) {
	if r.key != "" {
		return fmt.Sprint(r.name, entries), len(entries) == 1 && entries[0].Key == r.key
	}
	values := func(key string) (all []string) {
		for _, e := range entries {
			if e.Key == key {
				all = append(all, e.Value)
			}
		}
		return all
	}
	for key, asked := range r.match {
		if !conditions[asked](values(key)) {
			return "", false
		}
	}
	counter = r.name
	for _, key := range r.countBy {
		counter += fmt.Sprintf(" %s=%q", key, values(key))
	}
	return counter, first || len(r.match) > 0
}

// model decides as limits are documented, one counter after the other.
type model struct {
	rules []*modelRule
	used  map[string]int64
}

// decide reports whether the descriptor is refused, and returns the remaining hits of the
// limit that is reported; -1 if none is.
func (m *model) decide(entries []descriptor.Entry, hits int64, first bool) (refused bool, left int64) {
	type check struct {
		modelLimit
		counter  string
		enforced bool
		fits     bool
	}
	var checks []*check
	for _, r := range m.rules {
		counter, yes := r.applies(entries, first)
		if !yes {
			continue
		}
		for i, l := range r.limits {
			c := &check{l, fmt.Sprint(counter, "#", i), !r.shadow && !l.shadow, true}
			c.fits = m.used[c.counter]+hits <= l.most
			checks = append(checks, c)
		}
	}
	enforced := slices.ContainsFunc(checks, func(c *check) bool { return c.enforced })
	passes := !slices.ContainsFunc(checks, func(c *check) bool { return !c.fits && (c.enforced || !enforced) })
	left = -1
	reportRefusal := false
	for _, c := range checks {
		if c.counts || c.fits && passes {
			m.used[c.counter] += hits
		}
		if c.enforced != enforced {
			continue
		}
		room := max(0, c.most-m.used[c.counter])
		if left < 0 || !c.fits && !reportRefusal || !c.fits == reportRefusal && room < left {
			left, reportRefusal = room, !c.fits
		}
	}
	return enforced && !passes, left
}

// testSets compares decisions on random requests under random rules with the model. one
// limits requests to one descriptor, because counters that live apart may be charged for
// a moment.
func testSets(t *testing.T, store backend.Backend, one bool) {
	run := 0
	rapid.Check(t, func(t2 *rapid.T) {
		run++
		domain := fmt.Sprintf("%s-%d-%d", t.Name(), noon, run)
		m := model{used: map[string]int64{}}
		yaml := "domain: " + domain + "\ndescriptors:\n"
		for _, key := range []string{"a", "b"} {
			r := drawRule.Draw(t2, "tree")
			r.name, r.key = "tree "+key, key
			// One that has no other denies as it is written; see TestParse for the defaults.
			m.rules = append(m.rules, r)
			yaml += r.yaml()
		}
		yaml += "limits:\n"
		for i, r := range rapid.SliceOfN(drawRule, 1, 6).Draw(t2, "sets") {
			r.name = fmt.Sprint("set", i)
			m.rules = append(m.rules, r)
			yaml += r.yaml()
		}
		f := serve(t, yaml, func(o *limiter.Options) { o.Backend = store })
		entry := rapid.Custom(func(t *rapid.T) descriptor.Entry {
			return descriptor.Entry{Key: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key"), Value: rapid.SampledFrom([]string{"x", "y", "yy"}).Draw(t, "value")}
		})
		most := 3
		if one {
			most = 1
		}
		for range 20 {
			var asks []*ask
			for range rapid.IntRange(1, most).Draw(t2, "descriptors") {
				asks = append(asks, withHits(&ask{entries: rapid.SliceOfN(entry, 1, 3).Draw(t2, "entries")}, rapid.Uint64Range(1, 3).Draw(t2, "hits")))
			}
			got, err := f.decide(context.Background(), domain, asks...)
			if err != nil {
				t2.Fatalf("%v\n%s", err, yaml)
			}
			overall := false
			for i, a := range asks {
				refused, left := m.decide(a.entries, int64(a.hits), i == 0)
				overall = overall || refused
				st := got.Statuses[i]
				if st.Code != codeOf(refused) || left < 0 != (st.CurrentLimit == nil) || left >= 0 && int64(st.LimitRemaining) != left {
					t2.Fatalf("%v of %d: %v with %d left of %v, want %v with %d\n%s", a.entries, a.hits, st.Code, st.LimitRemaining, st.CurrentLimit, codeOf(refused), left, yaml)
				}
			}
			if got.OverallCode != codeOf(overall) {
				t2.Fatalf("%v: %v\n%s", asks, got.OverallCode, yaml)
			}
		}
	})
}

// TestSetsAgainstAModel holds random rules on sets of entries, beside a tree, against
// a plain model, in each kind of store.
func TestSetsAgainstAModel(t *testing.T) {
	var now atomic.Int64
	now.Store(noon)
	t.Run("memory", func(t *testing.T) { testSets(t, store(t, &now), false) })
	server := redistest.Start(t, redistest.Config{})
	single := openRedis(t, redis.Options{Addrs: []string{server.Addr}, Clock: now.Load})
	t.Run("redis", func(t *testing.T) { testSets(t, single, false) })
	t.Run("redis, with another per second", func(t *testing.T) {
		testSets(t, &persecond.Backend{Seconds: store(t, &now), Others: single}, true)
	})
	cluster := redistest.StartClusterOfOne(t, redistest.Config{})
	t.Run("cluster", func(t *testing.T) {
		testSets(t, openRedis(t, redis.Options{Mode: redis.Cluster, Addrs: []string{cluster.Addr}, Clock: now.Load}), true)
	})
}

const sets = `
domain: edge
limits:
  - {name: all, rate_limit: {name: everything, unit: minute, requests_per_unit: 8}}
  - name: writes
    match: {method: [POST, PUT], user: {}}
    count_by: [user]
    detailed_metric: true
    metadata: {from: writes}
    rate_limit: {name: writes, unit: minute, requests_per_unit: 2, raw_body: "too many writes"}
  - name: candidate
    match: {user: {}}
    shadow_mode: true
    rate_limit: {name: candidate, unit: minute, requests_per_unit: 1}
  - {name: free, match: {vip: {}}, rate_limit: {unlimited: true, replaces: [{name: per_user}]}}
descriptors:
  - {key: user, rate_limit: {name: per_user, unit: minute, requests_per_unit: 4}}
`

// TestSetsCountByRule: each rule has statistics of its own, which do not count the
// refusals of other rules.
func TestSetsCountByRule(t *testing.T) {
	f := serve(t, sets)
	want(t, f.admitted(3, desc("user=a,method=POST")), 2)
	want(t, f.admitted(1, desc("method=PUT,user=b")), 1) // a counter of its own
	all, candidate := f.counts("limits.all", ""), f.counts("limits.candidate", "")
	if all.Allowed != 4 || all.Denied != 0 || all.WithinLimit != 3 || all.DeniedHits != 1 {
		t.Errorf("all: %+v", all)
	}
	if candidate.ShadowDenied != 3 || candidate.Denied != 0 {
		t.Errorf("candidate: %+v", candidate)
	}
	if c := f.counts("limits.writes.user_a", ""); c.Denied != 1 || c.Allowed != 2 || c.OverLimit != 1 {
		t.Errorf("detailed: %+v", c)
	}
}

// TestSetsReport: the status is that of the limit with the least room, never one in
// shadow mode beside others, and a refusal has the body of its rule.
func TestSetsReport(t *testing.T) {
	f := serve(t, sets)
	got := f.ask(desc("user=a"))
	want(t, got.Statuses[0].CurrentLimit.Name, "per_user")
	want(t, got.Statuses[0].LimitRemaining, uint32(3))
	got = f.ask(desc("user=a,method=POST"))
	want(t, got.Statuses[0].CurrentLimit.Name, "writes")
	got = f.ask(desc("nothing=else"))
	want(t, got.Statuses[0].CurrentLimit.Name, "everything")
	want(t, got.Statuses[0].LimitRemaining, uint32(5))
	r := &limiter.Request{Domain: "edge"}
	r.AddDescriptor(desc("user=a,method=POST").entries...).Hits = 3
	r.Hits = 3
	if err := f.Decide(context.Background(), r, time.Now()); err != nil {
		t.Fatal(err)
	}
	want(t, string(r.RawBody()), "too many writes")
	want(t, len(r.Metadata()), 0)
}

// TestSetsAndOverridesReplacesUnlimited: an override replaces only the limit of the tree,
// unlimited exempts its own rule, and replaces names limits of the tree.
func TestSetsAndOverridesReplacesUnlimited(t *testing.T) {
	f := serve(t, sets)
	want(t, f.admitted(9, override(desc("user=a"), 100, config.Minute)), 8) // all
	f.advance(time.Minute)
	want(t, f.admitted(9, desc("user=a")), 4)
	f.advance(time.Minute)
	want(t, f.admitted(9, desc("user=a"), desc("vip=a")), 8) // per_user is replaced
}

// TestSetsOfAnEmptyMatchLimitRequests, not their descriptors.
func TestSetsOfAnEmptyMatchLimitRequests(t *testing.T) {
	f := serve(t, sets)
	want(t, f.admitted(9, desc("a=1"), desc("b=2"), desc("c=3")), 8)
}

// TestQuotasBesideRequiredLimits: a quota that is used up neither refuses a request that
// another quota lets pass, nor prevents the charge of required limits.
func TestQuotasBesideRequiredLimits(t *testing.T) {
	f := serve(t, `
domain: edge
limits:
  - {name: monthly, match: {user: {}}, quota_mode: true, rate_limit: {name: monthly, unit: day, requests_per_unit: 1}}
  - {name: extra, match: {pool: {}}, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 100}}
descriptors:
  - {key: user, rate_limit: {name: rate, unit: minute, requests_per_unit: 3}}
`)
	want(t, f.admitted(9, desc("user=a"), desc("pool=1")), 3)
	f.advance(time.Minute)
	want(t, f.admitted(1, desc("user=a")), 0) // the one quota that there is
}

// TestTooManySets: a descriptor to which too many limits apply is refused with an error
// that names them.
func TestTooManySets(t *testing.T) {
	var b strings.Builder
	b.WriteString("domain: edge\nlimits:\n")
	for i := range config.MaxSets + 1 {
		fmt.Fprintf(&b, "  - {name: n%d, match: {user: {}}, rate_limit: {unit: day, requests_per_unit: 1}}\n", i)
	}
	f := serve(t, b.String())
	_, err := f.decide(context.Background(), "edge", desc("a=b"), desc("user=a"))
	want(t, failureOf(err), badRequest)
	if text := fmt.Sprint(err); !strings.Contains(text, "descriptors[1]: more than 64 of the limits of domain edge apply") || !strings.Contains(text, "limits.n") {
		t.Error(text)
	}
}

// TestSetsKeepTheirCounters over a reload that adds rules before and beside them.
func TestSetsKeepTheirCounters(t *testing.T) {
	f := serve(t, sets)
	want(t, f.admitted(3, desc("user=a,method=POST")), 2)
	f.load("domain: other\ndescriptors: [{key: user, rate_limit: {unit: day, requests_per_unit: 1}}]\n---" + sets)
	want(t, f.admitted(1, desc("user=a,method=POST")), 0)
	want(t, f.admitted(1, desc("user=b,method=POST")), 1)
}

// TestAResetRequestHoldsOnToNoRules: a pooled request must not keep the rules of before a
// reload alive.
func TestAResetRequestHoldsOnToNoRules(t *testing.T) {
	f := serve(t, "domain: edge\nlimits: [{name: all, rate_limit: {unit: year, requests_per_unit: 9}}]\n")
	r := &limiter.Request{Domain: "edge"}
	r.AddDescriptor(desc("a=1").entries...)
	if err := f.Decide(context.Background(), r, time.Now()); err != nil {
		t.Fatal(err)
	}
	rule := weak.Make(f.Matcher().Rules()[0])
	r.Reset()
	f.load("domain: edge\ndescriptors: [{key: b, rate_limit: {unit: year, requests_per_unit: 9}}]\n")
	runtime.GC()
	if rule.Value() != nil {
		t.Error("the request still refers to a rule that is no longer in force")
	}
	runtime.KeepAlive(r)
}
