package limiter_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/limiter"
)

// marks decides a request and returns the headers that mark it.
func (f *fixture) marks(descriptors ...*ask) string {
	f.t.Helper()
	r := &limiter.Request{Domain: "edge"}
	for _, d := range descriptors {
		r.AddDescriptor(d.entries...)
	}
	if err := f.Decide(context.Background(), r, time.Now()); err != nil {
		f.t.Fatal(err)
	}
	var all []string
	for _, h := range r.RequestHeaders() {
		all = append(all, h.Name+"="+h.Value)
	}
	return strings.Join(all, " ")
}

// TestRequestIsMarkedWhenItIsOverALimitAndPasses asks for user=a three times, of which
// the limits have room for two.
func TestRequestIsMarkedWhenItIsOverALimitAndPasses(t *testing.T) {
	const limit = "unit: day, requests_per_unit: 2, request_headers: {x-over: daily}"
	wide := desc("user=a,plan=b")
	for _, tt := range []struct {
		name, rules, want string
		set               func(*limiter.Options)
	}{
		{"a limit that refuses", "descriptors: [{key: user, rate_limit: {" + limit + "}}]", "", nil},
		{"a rule in shadow mode", "descriptors: [{key: user, shadow_mode: true, rate_limit: {" + limit + "}}]", "x-over=daily", nil},
		{"a limit in shadow mode", "descriptors: [{key: user, rate_limit: {" + limit + ", shadow_mode: true}}]", "x-over=daily", nil},
		{"a candidate", "descriptors: [{key: user, rate_limits: [{unit: day, requests_per_unit: 9}, {" + limit + ", shadow_mode: true}]}]", "x-over=daily", nil},
		{"a candidate beside one that refuses", "descriptors: [{key: user, rate_limits: [{unit: day, requests_per_unit: 2}, {" + limit + ", shadow_mode: true}]}]", "", nil},
		{"a set", "limits: [{name: all, match: {user: {}}, rate_limit: {" + limit + ", shadow_mode: true}}]", "x-over=daily", nil},
		{"a set and a node", "descriptors: [{key: user, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 2, request_headers: {x-over: node}}}]\n" +
			"limits: [{name: all, rate_limit: {" + limit + ", shadow_mode: true}}]", "x-over=node x-over=daily", nil},
		{"the service in shadow mode", "descriptors: [{key: user, rate_limit: {" + limit + "}}]", "x-over=daily", func(o *limiter.Options) { o.ShadowMode = true }},
		{"the last quota", "descriptors: [{key: user, quota_mode: true, rate_limit: {" + limit + "}}]", "", nil},
		{"without headers", "descriptors: [{key: user, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}]", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var set []func(*limiter.Options)
			if tt.set != nil {
				set = append(set, tt.set)
			}
			f := serve(t, "domain: edge\n"+tt.rules+"\n", set...)
			for i, want := range []string{"", "", tt.want} {
				if got := f.marks(desc("user=a")); got != want {
					t.Errorf("request %d is marked %q, want %q", i+1, got, want)
				}
			}
		})
	}
	t.Run("a quota of which another has room", func(t *testing.T) {
		f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, quota_mode: true, rate_limit: {"+limit+"}}\n  - {key: spare, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 3}}\n")
		for i, want := range []string{"", "", "x-over=daily", ""} {
			if got := f.marks(desc("user=a"), desc("spare=a")); got != want {
				t.Errorf("request %d is marked %q, want %q", i+1, got, want)
			}
		}
	})
	t.Run("a descriptor that meets no rule", func(t *testing.T) {
		f := serve(t, "domain: edge\ndescriptors: [{key: user, shadow_mode: true, rate_limit: {"+limit+"}}]\n")
		for range 3 {
			if got := f.marks(wide); got != "" {
				t.Errorf("marked %q", got)
			}
		}
	})
}

// TestMarksAreBounded: equal ones come once, and there are no more than the bound.
func TestMarksAreBounded(t *testing.T) {
	var rules strings.Builder
	rules.WriteString("domain: edge\nlimits:\n")
	for i := range 2 * limiter.MaxRequestHeaders {
		fmt.Fprintf(&rules, "  - {name: l%02d, rate_limit: {unit: day, requests_per_unit: 0, shadow_mode: true, request_headers: {x-over: l%02d, x-same: s}}}\n", i, i)
	}
	got := strings.Fields(serve(t, rules.String()).marks(desc("user=a")))
	if len(got) != limiter.MaxRequestHeaders || got[0] != "x-over=l00" || got[1] != "x-same=s" || got[2] != "x-over=l01" || got[3] != "x-over=l02" {
		t.Errorf("marked %v", got)
	}
}

// TestARequestThatIsUsedAgainIsNotMarked by its earlier decisions.
func TestARequestThatIsUsedAgainIsNotMarked(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors:\n  - {key: soft, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 0, request_headers: {x-over: soft}}}\n  - {key: user, rate_limit: {unit: day, requests_per_unit: 5}}\n")
	r := &limiter.Request{}
	for _, tt := range []struct {
		ask  *ask
		want int
	}{{desc("soft=a"), 1}, {desc("user=a"), 0}, {desc("soft=a"), 1}} {
		r.Reset()
		r.Domain = "edge"
		r.AddDescriptor(tt.ask.entries...)
		if err := f.Decide(context.Background(), r, time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := r.RequestHeaders(); len(got) != tt.want {
			t.Errorf("marked %v, want %d", got, tt.want)
		}
	}
}
