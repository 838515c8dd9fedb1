package limiter_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/live"
)

const observed = `
domain: edge
descriptors:
  - key: user
    rate_limit: {name: per_user, unit: year, requests_per_unit: 1}
  - key: trial
    shadow_mode: true
    rate_limit: {unit: year, requests_per_unit: 1}
  - key: both
    rate_limits:
      - {unit: year, requests_per_unit: 5}
      - {name: cand, unit: year, requests_per_unit: 1, shadow_mode: true}
  - key: staff
    rate_limit: {unlimited: true}
`

// watched returns a feed with one watcher, and a function that reads one decision and
// clears its times.
func watched(t *testing.T) (*live.Feed, func() string) {
	feed := new(live.Feed)
	w, err := feed.Watch(live.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return feed, func() string {
		t.Helper()
		select {
		case e := <-w.Events():
			fields := map[string]any{}
			text, err := json.Marshal(e)
			if err == nil {
				err = json.Unmarshal(text, &fields)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"time", "reset_seconds", "retry_seconds"} {
				delete(fields, name)
			}
			text, err = json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		default:
			return "nothing"
		}
	}
}

// TestDecisionsAreSeenAsTheyAreAnswered: watchers see one for each descriptor.
func TestDecisionsAreSeenAsTheyAreAnswered(t *testing.T) {
	feed, next := watched(t)
	f := serve(t, observed, func(o *limiter.Options) { o.Live = feed })
	for _, c := range []struct {
		domain string
		d      *ask
		want   string
	}{
		{"edge", desc("user=al"), `{"domain":"edge","entries":[{"key":"user","value":"al"}],"hits":1,"left":0,"limit":"per_user: fixed_window, 1 per year","name":"per_user","rule":"user","sampled":1,"verdict":"ok"}`},
		{"edge", desc("user=al"), `{"domain":"edge","entries":[{"key":"user","value":"al"}],"hits":1,"left":0,"limit":"per_user: fixed_window, 1 per year","name":"per_user","rule":"user","sampled":1,"verdict":"over"}`},
		{"edge", desc("trial=1"), `{"domain":"edge","entries":[{"key":"trial","value":"1"}],"hits":1,"left":0,"limit":"fixed_window, 1 per year","rule":"trial","sampled":1,"verdict":"ok"}`},
		{"edge", desc("trial=1"), `{"domain":"edge","entries":[{"key":"trial","value":"1"}],"hits":1,"left":0,"limit":"fixed_window, 1 per year","rule":"trial","sampled":1,"verdict":"shadow"}`},
		{"edge", desc("both=1"), `{"domain":"edge","entries":[{"key":"both","value":"1"}],"hits":1,"left":4,"limit":"fixed_window, 5 per year","rule":"both","sampled":1,"verdict":"ok"}`},
		{"edge", desc("both=1"), `{"domain":"edge","entries":[{"key":"both","value":"1"}],"hits":1,"left":0,"limit":"cand: fixed_window, 1 per year, denied_hits drop, shadow_mode","name":"cand","rule":"both","sampled":1,"verdict":"shadow"}`},
		{"edge", desc("staff=1"), `{"domain":"edge","entries":[{"key":"staff","value":"1"}],"hits":1,"limit":"unlimited","rule":"staff","sampled":1,"verdict":"ok"}`},
		{"edge", override(desc("user=bob"), 7, config.Hour), `{"brought":true,"domain":"edge","entries":[{"key":"user","value":"bob"}],"hits":1,"left":6,"limit":"fixed_window, 7 per hour, denied_hits count","rule":"user","sampled":1,"verdict":"ok"}`},
		{"edge", desc("nobody=1"), `{"domain":"edge","entries":[{"key":"nobody","value":"1"}],"hits":1,"sampled":1,"verdict":"unmatched"}`},
		{"nosuch", desc("user=al"), `{"domain":"nosuch","entries":[{"key":"user","value":"al"}],"hits":1,"sampled":1,"verdict":"unmatched"}`},
	} {
		if _, err := f.decide(context.Background(), c.domain, c.d); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	if got := next(); got != "nothing" {
		t.Errorf("too much: %s", got)
	}
}

// TestDecisionsOnSetsAreSeen: one for each rule that a descriptor meets, with its reason
// and its place in metrics; a descriptor that meets only rules on sets is not unmatched.
func TestDecisionsOnSetsAreSeen(t *testing.T) {
	feed, next := watched(t)
	f := serve(t, `
domain: edge
limits:
  - {name: writes, match: {method: POST, user: {}}, count_by: [user], detailed_metric: true, rate_limit: {unit: year, requests_per_unit: 1}}
descriptors:
  - {key: user, rate_limit: {unit: year, requests_per_unit: 5}}
`, func(o *limiter.Options) { o.Live = feed })
	const (
		tree = `{"domain":"edge","entries":[{"key":"user","value":"al"}],"hits":1,"left":4,"limit":"fixed_window, 5 per year","rule":"user","sampled":1,"verdict":"ok"}`
		set  = `{"domain":"edge","entries":[{"key":"method","value":"POST"},{"key":"user","value":"al"}],"hits":1,"left":0,"limit":"fixed_window, 1 per year, denied_hits drop","rule":"limits.writes","sampled":1,"verdict":"`
	)
	for _, c := range []struct {
		d       *ask
		want    string
		reasons string
	}{
		{desc("user=al"), tree, ""},
		{desc("method=POST,user=al"), set + `ok"}`, ""},
		{desc("method=POST,user=al"), set + `over"}`, "limits.writes: fixed_window, 1 per year, denied_hits drop"},
	} {
		r := &limiter.Request{Domain: "edge"}
		r.AddDescriptor(c.d.entries...)
		if err := f.Decide(context.Background(), r, time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		var reasons []string
		for why := range f.Reasons(r) {
			reasons = append(reasons, why.Rule+": "+why.Limit)
		}
		if got := strings.Join(reasons, "; "); got != c.reasons {
			t.Errorf("reasons %q, want %q", got, c.reasons)
		}
		if c.reasons != "" && r.RuleOf(r.Minimum) != "limits.writes" {
			t.Errorf("the rule that decided is %q", r.RuleOf(r.Minimum))
		}
	}
	if _, known := f.stats.Unmatched(); len(known) != 0 {
		t.Errorf("unmatched: %v", known)
	}
	if got := labelsOf(t, f.stats, "ratelimit_service_rate_limit_total_hits"); len(got) == 0 || !strings.Contains(strings.Join(got, " "), "key2=writes_user_al") {
		t.Errorf("labels %q", got)
	}
}

// TestALimitOnAllRequestsLeavesNoDescriptorUnmatched, though the first alone charges it.
func TestALimitOnAllRequestsLeavesNoDescriptorUnmatched(t *testing.T) {
	feed, next := watched(t)
	f := serve(t, "domain: edge\nlimits: [{name: all, rate_limit: {unit: year, requests_per_unit: 9}}]\n", func(o *limiter.Options) { o.Live = feed })
	if _, err := f.decide(context.Background(), "edge", desc("a=1"), desc("b=2")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"left":8`, `"verdict":"ok"`} {
		if got := next(); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if _, known := f.stats.Unmatched(); len(known) != 0 {
		t.Errorf("unmatched: %v", known)
	}
}

// TestServiceWideShadowIsSeen: a request that shadow mode for all lets through is not a
// refusal.
func TestServiceWideShadowIsSeen(t *testing.T) {
	feed, next := watched(t)
	f := serve(t, observed, func(o *limiter.Options) { o.Live, o.ShadowMode = feed, true })
	if _, err := f.decide(context.Background(), "edge", desc("user=al"), desc("user=al")); err != nil {
		t.Fatal(err)
	}
	if first, second := next(), next(); !strings.Contains(first, `"ok"`) || !strings.Contains(second, `"shadow"`) {
		t.Errorf("%s\n%s", first, second)
	}
}

type failing struct{}

func (failing) Decide(context.Context, *backend.Request, []algo.Decision) error {
	return errors.New("away")
}

func TestErrorsAreSeen(t *testing.T) {
	feed, next := watched(t)
	f := serve(t, observed, func(o *limiter.Options) { o.Live, o.Backend = feed, failing{} })
	if _, err := f.decide(context.Background(), "edge", desc("user=al")); err == nil {
		t.Fatal("no error")
	}
	if got := next(); !strings.Contains(got, `"verdict":"error"`) || !strings.Contains(got, `"error":"the rate limit backend did not decide: away"`) || !strings.Contains(got, `"rule":"user"`) {
		t.Error(got)
	}
}

// TestDebugLogShowsEachRequest with the rules of its descriptors, the keys of their
// counters and the verdicts. At info level the log does not mention requests.
func TestDebugLogShowsEachRequest(t *testing.T) {
	for _, level := range []zapcore.Level{zap.DebugLevel, zap.InfoLevel} {
		core, lines := observer.New(level)
		f := serve(t, observed, func(o *limiter.Options) { o.Log = zap.New(core) })
		if _, err := f.decide(context.Background(), "edge", desc("user=al"), desc("usr=al")); err != nil {
			t.Fatal(err)
		}
		got := lines.FilterMessage("request").All()
		if level == zap.InfoLevel {
			if len(got) != 0 {
				t.Errorf("%d lines at info", len(got))
			}
			continue
		}
		if len(got) != 1 {
			t.Fatalf("%d lines for a request", len(got))
		}
		fields := got[0].ContextMap()
		descriptors, ok := fields["descriptors"].([]any)
		if !ok || len(descriptors) != 2 || fields["domain"] != "edge" {
			t.Fatalf("%v", fields)
		}
		first, _ := descriptors[0].(map[string]any)
		second, _ := descriptors[1].(map[string]any)
		keys, _ := first["keys"].([]any)
		if first["entries"] != "user=al" || first["rule"] != "user" || first["verdict"] != "ok" || first["left"] != int64(0) || len(keys) != 1 {
			t.Errorf("%v", first)
		}
		if reason, _ := second["reason"].(string); second["verdict"] != "unmatched" || !strings.Contains(reason, "nearest: user") {
			t.Errorf("%v", second)
		}
	}
}
