package limiter_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/stats"
)

func TestRequestsThatCannotBeDecided(t *testing.T) {
	f := serve(t, perUser)
	for _, c := range []struct {
		name, domain string
		descriptors  []*ask
		says         string
	}{
		{"no domain", "", []*ask{desc("user=a")}, "domain must not be empty"},
		{"no descriptors", "edge", nil, "descriptor list must not be empty"},
		{"override without unit", "edge", []*ask{override(desc("user=a"), 1, 0)}, "descriptors[0].limit.unit: UNKNOWN: use SECOND"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := f.decide(context.Background(), c.domain, c.descriptors...)
			if failureOf(err) != badRequest || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want a fault of the request with %q", err, c.says)
			}
		})
	}
	if n := f.stats.ServiceErrors.Load(); n != 3 {
		t.Errorf("%d service errors counted, want 3", n)
	}
}

func TestNoRulesYet(t *testing.T) {
	f := &fixture{Limiter: limiter.New(limiter.Options{Log: zaptest.NewLogger(t), Stats: stats.New(0)})}
	if _, err := f.decide(context.Background(), "edge", desc("a")); !errors.Is(err, limiter.ErrNoRules) {
		t.Errorf("got %v, want ErrNoRules", err)
	}
}

func TestHits(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 10}
`)
	remaining := func(want uint32, code code, resp answer) {
		t.Helper()
		if got := resp.Statuses[0]; got.LimitRemaining != want || got.Code != code {
			t.Errorf("%v with %d left, want %v with %d", got.Code, got.LimitRemaining, code, want)
		}
	}
	a := func() *ask { return desc("user=a") }
	remaining(9, ok, f.ask(a()))
	remaining(9, ok, f.ask(withHits(a(), 0))) // looks
	remaining(6, ok, f.ask(withHits(a(), 3)))
	remaining(8, ok, f.ask(negative(withHits(a(), 2)))) // gives back
	remaining(10, ok, f.ask(negative(withHits(a(), 1<<63))))
	remaining(10, over, f.ask(withHits(a(), 11)))
	remaining(10, over, f.ask(withHits(a(), 1<<64-1)))
	f.hits = 4
	resp := f.ask(a(), withHits(desc("user=b"), 1))
	remaining(6, ok, resp)
	if got := resp.Statuses[1].LimitRemaining; got != 9 {
		t.Errorf("a descriptor's own hits leave %d, want 9", got)
	}
}

func TestOverride(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    shadow_mode: true
    rate_limit: {name: per_user, unit: hour, requests_per_unit: 1000}
  - key: bucket
    rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 1000}
`)
	for _, text := range []string{"user=a", "unknown=a", "bucket=a"} {
		o := func() *ask { return override(desc(text), 2, config.Minute) }
		if got := f.admitted(5, o()); got != 2 {
			t.Errorf("%s: an override of 2 admits %d", text, got)
		}
		if l := f.ask(o()).Statuses[0].CurrentLimit; l.RequestsPerUnit != 2 || l.Unit != config.Minute || l.Name != "" {
			t.Errorf("%s: reported is %+v", text, l)
		}
	}
	if got := f.ask(desc("bucket=a")).Statuses[0].LimitRemaining; got != 999 {
		t.Errorf("the rule's own counter has %d left, want 999", got)
	}
	f.advance(30 * time.Second) // a token bucket has refilled by one, the windows have not
	if got := f.admitted(2, override(desc("bucket=a"), 2, config.Minute)); got != 1 {
		t.Errorf("the override on a bucket admits %d, want 1", got)
	}
}

func TestShadowMode(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    shadow_mode: true
    rate_limit: {unit: hour, requests_per_unit: 1}
`)
	for range 3 {
		resp := f.ask(desc("user=a"))
		if resp.OverallCode != ok || resp.Statuses[0].Code != ok {
			t.Fatalf("shadow mode answers %v", resp)
		}
	}
	c := f.stats.Rules()[0].Counts()
	if c.Allowed != 1 || c.ShadowDenied != 2 || c.ShadowMode != 2 || c.Denied != 0 {
		t.Errorf("counted %+v", c)
	}
}

func TestGlobalShadowMode(t *testing.T) {
	f := serve(t, perUser, func(o *limiter.Options) { o.ShadowMode = true })
	if got := f.admitted(5, desc("user=a")); got != 5 {
		t.Errorf("admitted %d of 5", got)
	}
	if code := f.ask(desc("user=a")).Statuses[0].Code; code != over {
		t.Errorf("the descriptor's own code is %v, want OVER_LIMIT", code)
	}
	if n := f.stats.GlobalShadowMode.Load(); n != 4 {
		t.Errorf("%d answers counted as shadowed, want 4", n)
	}
}

func TestQuotaMode(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: gold, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: silver, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: hard, rate_limit: {unit: hour, requests_per_unit: 100}}
`)
	gold, silver := desc("gold=a"), desc("silver=a")
	for i, wanted := range []code{ok, ok, over} {
		if got := f.ask(gold, silver, desc("hard=a")).OverallCode; got != wanted {
			t.Errorf("call %d: %v, want %v", i, got, wanted)
		}
	}
	if got := f.ask(withHits(desc("hard=b"), 101), desc("gold=new")).OverallCode; got != over {
		t.Errorf("a required descriptor that refuses gives %v", got)
	}
}

func TestGlobalQuotaMode(t *testing.T) {
	f := serve(t, perUser, func(o *limiter.Options) { o.QuotaMode = true })
	f.admitted(2, desc("user=a"))
	if got := f.ask(desc("user=a"), desc("user=b")).OverallCode; got != ok {
		t.Errorf("one of two quotas is left: %v", got)
	}
	if got := f.ask(desc("user=a"), desc("none=x")).OverallCode; got != ok {
		t.Errorf("a descriptor without a limit is a quota that never ends: %v", got)
	}
	if got := f.ask(desc("user=a")).OverallCode; got != over {
		t.Errorf("no quota is left: %v", got)
	}
}

func TestReplacesAndUnlimited(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {name: base, unit: hour, requests_per_unit: 1}}
  - {key: premium, rate_limit: {name: more, unit: hour, requests_per_unit: 3, replaces: [{name: base}]}}
  - {key: vip, rate_limit: {unlimited: true, replaces: [{name: base}, {name: more}]}}
`)
	if got := f.admitted(5, desc("user=a"), desc("premium=a")); got != 3 {
		t.Errorf("admitted %d, want what the replacing limit admits, 3", got)
	}
	resp := f.ask(desc("user=a"), desc("premium=a"), desc("vip=a"))
	want(t, resp, answer{OverallCode: ok, Minimum: -1, Statuses: []status{
		{Code: ok}, {Code: ok}, {Code: ok, LimitRemaining: 1<<32 - 1},
	}})
	if got := f.ask(desc("user=a")).Statuses[0].LimitRemaining; got != 0 {
		t.Errorf("the replaced limit was charged: %d left", got)
	}
	for _, r := range f.stats.Rules() {
		if r.Name.Path == "vip" && r.Counts().WithinLimit != 1 {
			t.Errorf("unlimited is not counted: %+v", r.Counts())
		}
	}
}

func TestSeveralLimitsReportTheTightest(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limits:
      - {name: burst, unit: second, requests_per_unit: 3}
      - {name: daily, unit: day, requests_per_unit: 5}
`)
	var got []string
	for range 7 {
		st := f.ask(desc("user=a")).Statuses[0]
		got = append(got, fmt.Sprintf("%v %s %d", st.Code, st.CurrentLimit.Name, st.LimitRemaining))
		f.advance(300 * time.Millisecond)
	}
	wanted := []string{
		"OK burst 2", "OK burst 1", "OK burst 0", "OVER_LIMIT burst 0",
		"OK daily 1", "OK daily 0", "OVER_LIMIT daily 0",
	}
	if strings.Join(got, "\n") != strings.Join(wanted, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
}

func TestAllOrNothing(t *testing.T) {
	const yaml = `
domain: edge
%sdescriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 10}}
  - {key: path, rate_limit: {unit: hour, requests_per_unit: 1}}
`
	for _, c := range []struct {
		consume string
		left    uint32
	}{{"", 6}, {"consume: all_or_nothing\n", 8}} {
		f := serve(t, fmt.Sprintf(yaml, c.consume))
		f.admitted(3, desc("user=a"), desc("path=/"))
		if got := f.ask(desc("user=a")).Statuses[0].LimitRemaining; got != c.left {
			t.Errorf("%q: %d left for the user, want %d", c.consume, got, c.left)
		}
	}
}

func TestDetailedMetric(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, detailed_metric: true, rate_limit: {unit: hour, requests_per_unit: 9}}
  - key: route
    value_to_metric: true
    descriptors: [{key: method, rate_limit: {unit: hour, requests_per_unit: 9}}]
`)
	f.ask(desc("user=a"))
	f.ask(desc("user=b"))
	f.ask(desc("user=b"))
	f.ask(desc("route=r,method=GET"))
	got := map[string]uint64{}
	for _, r := range f.stats.Rules() {
		got[r.Name.Path] = r.Counts().WithinLimit
	}
	if got["user_a"] != 1 || got["user_b"] != 2 || got["route_r.method"] != 1 {
		t.Errorf("counted %v", got)
	}
}

// broken is a backend that is down. It stands for no real store: the tests are about the
// limiter's answer to an error.
type broken struct{}

func (broken) Decide(context.Context, *backend.Request, []algo.Decision) error {
	return errors.New("connection refused")
}

func TestBackendErrors(t *testing.T) {
	const yaml = `
domain: edge
descriptors:
  - {key: default, rate_limit: {unit: hour, requests_per_unit: 4}}
  - {key: error, rate_limit: {unit: hour, requests_per_unit: 4, on_backend_error: error}}
  - {key: allow, rate_limit: {unit: hour, requests_per_unit: 4, on_backend_error: allow}}
  - {key: deny, rate_limit: {unit: hour, requests_per_unit: 4, on_backend_error: deny}}
  - {key: local, rate_limit: {unit: hour, requests_per_unit: 4, on_backend_error: local}}
`
	f := serve(t, yaml, func(o *limiter.Options) {
		o.Backend, o.Replicas = broken{}, 2
		var now atomic.Int64
		now.Store(noon)
		o.Local = store(t, &now)
		o.OnBackendError = config.BackendErrorAllow
	})
	for text, wanted := range map[string]int{"default=a": 5, "allow=a": 5, "deny=a": 0, "local=a": 2} {
		if got := f.admitted(5, desc(text)); got != wanted {
			t.Errorf("%s: admitted %d of 5, want %d", text, got, wanted)
		}
	}
	for _, ds := range [][]*ask{{desc("error=a")}, {desc("allow=a"), desc("error=a")}} {
		_, err := f.decide(context.Background(), "edge", ds...)
		if failureOf(err) != backendFailed || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v, want Unavailable with the cause", err)
		}
	}
	if n := f.stats.BackendErrors.Load(); n != 22 {
		t.Errorf("%d backend errors counted, want 22", n)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.decide(gone, "edge", desc("allow=a")); failureOf(err) != clientLeft {
		t.Errorf("got %v for a client that has left, want Canceled", err)
	}
}

// The stand-in's share of a limit is a hit in a longer window, which must not overflow.
func TestOneOfTheMostReplicasHasAShare(t *testing.T) {
	const yaml = `
domain: edge
descriptors:
  - {key: fixed, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: calendar, rate_limit: {window: {calendar: year}, requests_per_unit: 1}}
  - {key: sliding, rate_limit: {algorithm: sliding_window, strict: true, unit: year, requests_per_unit: 7}}
  - {key: log, rate_limit: {algorithm: sliding_log, window: 366d, requests_per_unit: 7}}
  - {key: bucket, rate_limit: {algorithm: token_bucket, unit: year, requests_per_unit: 7}}
  - {key: queue, rate_limit: {algorithm: leaky_bucket, unit: second, requests_per_unit: 7}}
  - {key: hybrid, rate_limit: {algorithm: hybrid, unit: year, requests_per_unit: 7}}
`
	f := serve(t, yaml, func(o *limiter.Options) {
		o.Backend, o.Replicas, o.OnBackendError = broken{}, limiter.MaxReplicas, config.BackendErrorLocal
		var now atomic.Int64
		now.Store(noon)
		o.Local = store(t, &now)
	})
	for _, key := range []string{"fixed", "calendar", "sliding", "log", "bucket", "queue", "hybrid"} {
		if got := f.admitted(5, desc(key+"=a")); got != 1 {
			t.Errorf("%s: admitted %d of 5, want 1", key, got)
		}
	}
}

func TestLocalWithoutAStoreIsRefused(t *testing.T) {
	f := serve(t, perUser)
	err := f.SetRules(rules(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 4, on_backend_error: local}}
`))
	if err == nil || !strings.Contains(err.Error(), "test.yaml:4:") || !strings.Contains(err.Error(), "on_backend_error") {
		t.Errorf("got %v, want an error with the place", err)
	}
	if got := f.admitted(3, desc("user=a")); got != 2 {
		t.Errorf("the old rules admit %d, want 2", got)
	}
}

// TestOverrideWithoutAStandIn names the option to set, because no rule can help.
func TestOverrideWithoutAStandIn(t *testing.T) {
	f := serve(t, strings.Replace(perUser, "requests_per_unit: 2", "requests_per_unit: 2, on_backend_error: error", 1), func(o *limiter.Options) { o.OnBackendError = config.BackendErrorLocal })
	_, err := f.decide(context.Background(), "edge", override(desc("none=a"), 1, config.Hour))
	var option *limiter.OptionError
	if failureOf(err) != badRequest || !errors.As(err, &option) || option.Option != "OnBackendError" || !strings.Contains(err.Error(), "descriptors[0].limit: it cannot be decided locally") {
		t.Errorf("%v", err)
	}
}

// remembering is a store that remembers refusals.
type remembering struct {
	backend.Backend
	refused map[string]algo.Decision
}

func (r *remembering) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	key := string(req.Checks[0].Key)
	if known, is := r.refused[key]; is {
		out[0], out[0].Remembered = known, true
		return nil
	}
	err := r.Backend.Decide(ctx, req, out)
	if !out[0].Allowed {
		r.refused[key] = out[0]
	}
	return err
}

// TestRefusalsOutOfMemoryAreCounted, with the others and separately. Those of one request
// do not count for the next.
func TestRefusalsOutOfMemoryAreCounted(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: minute, requests_per_unit: 1, denied_hits: drop}}\n",
		func(o *limiter.Options) { o.Backend = &remembering{o.Backend, map[string]algo.Decision{}} })
	for range 4 {
		f.ask(desc("user=a"))
	}
	f.ask(desc("user=b"))
	f.ask(desc("user=b"))
	c := f.stats.Rules()[0].Counts()
	c.LastDenied = time.Time{}
	if want := (stats.Counts{WithinLimit: 2, NearLimit: 2, DeniedHits: 4, OverLimit: 4, OverLimitWithLocalCache: 2, Allowed: 2, Denied: 4}); c != want {
		t.Errorf("counted %+v, want %+v", c, want)
	}
}

func TestNearLimitIsCountedAsByEnvoyproxyRatelimit(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 10}}
`)
	for _, n := range []uint64{7, 2, 3, 4} { // uses 7, 9, 12, 16 of 10; near above 8
		f.ask(withHits(desc("user=a"), n))
	}
	c := f.stats.Rules()[0].Counts()
	c.LastDenied = time.Time{}
	if wanted := (stats.Counts{WithinLimit: 9, DeniedHits: 7, OverLimit: 2 + 4, NearLimit: 1 + 1, Allowed: 2, Denied: 2}); c != wanted {
		t.Errorf("counted %+v\nwant    %+v", c, wanted)
	}
	if c.TotalHits() != 16 {
		t.Errorf("%d hits in all, want 16", c.TotalHits())
	}
}

// TestNearLimitRatioIsEnvoyproxys: envoyproxy/ratelimit multiplies in single precision.
func TestNearLimitRatioIsEnvoyproxys(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {unit: hour, requests_per_unit: 100}}\n",
		func(o *limiter.Options) { o.NearLimitRatio = 0.29 })
	f.ask(withHits(desc("user=a"), 29))
	if n := f.stats.Rules()[0].Counts().NearLimit; n != 0 {
		t.Errorf("%d of 29 hits are near, want none", n)
	}
	f.ask(withHits(desc("user=a"), 2))
	if n := f.stats.Rules()[0].Counts().NearLimit; n != 2 {
		t.Errorf("%d hits are near, want the 2 above 29", n)
	}
}

func TestCountersSurviveAReload(t *testing.T) {
	f := serve(t, perUser)
	f.admitted(2, desc("user=a"))
	f.load(strings.Replace(perUser, "requests_per_unit: 2", "requests_per_unit: 5", 1))
	if got := f.admitted(9, desc("user=a")); got != 3 {
		t.Errorf("admitted %d more after the limit rose from 2 to 5, want 3", got)
	}
	if c := f.stats.Rules()[0].Counts(); c.Allowed != 5 {
		t.Errorf("statistics begin anew: %+v", c)
	}
}

func TestReloadUnderLoad(t *testing.T) {
	f := serve(t, perUser)
	stop := make(chan struct{})
	started := make(chan struct{}, 8) // of each client when it has its first answer, and when it ends
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			defer func() { started <- struct{}{} }()
			for asked := 0; ; asked++ {
				select {
				case <-stop:
					return
				default:
				}
				if asked == 1 {
					started <- struct{}{}
				}
				resp, err := f.decide(context.Background(), "edge", desc("user=a"), desc("path=/"))
				if err != nil || len(resp.Statuses) != 2 {
					t.Errorf("got %v, %v", resp, err)
					return
				}
			}
		})
	}
	for range 4 {
		<-started
	}
	with, without := rules(t, perUser+"  - {key: path, rate_limit: {unit: second, requests_per_unit: 1}}\n"), rules(t, perUser)
	for range 200 {
		for _, r := range []*config.Rules{with, without} {
			if err := f.SetRules(r); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	clients.Wait()
}
