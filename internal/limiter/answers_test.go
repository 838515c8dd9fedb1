package limiter_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/stats"
)

var allHeaders = limiter.Headers{Limit: "Limit", Remaining: "Remaining", Reset: "Reset", RetryAfter: "Retry-After", Draft: true}

func withHeaders(o *limiter.Options) { o.Headers = allHeaders }

// headers returns the headers of an answer as name=value.
func headers(resp *pb.RateLimitResponse) string {
	var all []string
	for _, h := range resp.ResponseHeadersToAdd {
		all = append(all, h.Key+"="+h.Value)
	}
	return strings.Join(all, " ")
}

// left returns how many hits the look-up of a descriptor finds in its first counter.
func (f *fixture) left(text string) int64 {
	f.t.Helper()
	var entries []descriptor.Entry
	for _, e := range desc(text).Entries {
		entries = append(entries, descriptor.Entry{Key: e.Key, Value: e.Value})
	}
	_, counters, err := f.Look(context.Background(), "edge", entries)
	if err != nil || len(counters) == 0 {
		f.t.Fatalf("%s: %d counters, %v", text, len(counters), err)
	}
	return counters[0].Decision.Remaining
}

// counts returns the counts of a rule, or of a candidate of it.
func (f *fixture) counts(path, limit string) stats.Counts {
	f.t.Helper()
	all := f.stats.Rules()
	if limit != "" {
		all = f.stats.Candidates()
	}
	for _, r := range all {
		if r.Name.Path == path && r.Name.Limit == limit {
			c := r.Counts()
			c.LastDenied = time.Time{}
			return c
		}
	}
	f.t.Fatalf("nothing counts %s %s", path, limit)
	return stats.Counts{}
}

func times(d *common.RateLimitDescriptor, multiplier uint32) *common.RateLimitDescriptor {
	d.Limit.UnitMultiplier = wrapperspb.UInt32(multiplier)
	return d
}

func TestOverrideHonoursUnitMultiplier(t *testing.T) {
	f := serve(t, perUser)
	two := func() *common.RateLimitDescriptor {
		return times(override(desc("user=a"), 2, typev3.RateLimitUnit_SECOND), 30)
	}
	for i, code := range []pb.RateLimitResponse_Code{ok, ok, over, over} {
		if i == 3 {
			f.advance(1100 * time.Millisecond)
		}
		st := f.ask(two()).Statuses[0]
		if st.Code != code {
			t.Errorf("call %d: %v, want %v", i, st.Code, code)
		}
		want(t, st.CurrentLimit, &pb.RateLimitResponse_RateLimit{
			RequestsPerUnit: 2, Unit: pb.RateLimitResponse_RateLimit_SECOND, UnitMultiplier: wrapperspb.UInt32(30),
		})
	}
	f.advance(30 * time.Second)
	if code := f.ask(two()).OverallCode; code != ok {
		t.Errorf("%v in the next 30 seconds", code)
	}
	if code := f.ask(times(override(desc("user=b"), 1, typev3.RateLimitUnit_DAY), 366)).OverallCode; code != ok {
		t.Errorf("366 days: %v", code)
	}
}

func TestOverrideHonoursUnitMultiplierInJSON(t *testing.T) {
	f := serve(t, perUser)
	srv := httptest.NewServer(limiter.JSON(f))
	defer srv.Close()
	ask := func(multiplier string) (int, string) {
		t.Helper()
		resp, err := http.Post(srv.URL, "application/json", strings.NewReader(`{"domain": "edge", "descriptors": [{"entries": [{"key": "user", "value": "a"}],
			"limit": {"requestsPerUnit": 2, "unit": "SECOND", "unitMultiplier": `+multiplier+`}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, strings.ReplaceAll(string(body), ": ", ":")
	}
	for i, code := range []int{200, 200, 429, 429} {
		if i == 3 {
			f.advance(1100 * time.Millisecond)
		}
		if got, body := ask("30"); got != code || !strings.Contains(body, `"unitMultiplier":30`) {
			t.Errorf("call %d: %d %s, want %d", i, got, body, code)
		}
	}
	if got, body := ask("0"); got != 400 || !strings.Contains(body, "descriptors[0].limit.unit_multiplier:0") {
		t.Errorf("0: %d %s", got, body)
	}
}

func TestOverrideWithAWindowThatCannotBe(t *testing.T) {
	f := serve(t, perUser)
	for _, tt := range []struct {
		limit *common.RateLimitDescriptor
		says  string
	}{
		{times(override(desc("user=a"), 1, typev3.RateLimitUnit_HOUR), 0), "descriptors[1].limit.unit_multiplier: 0: use at least 1"},
		{times(override(desc("user=a"), 1, typev3.RateLimitUnit_DAY), 367), "descriptors[1].limit.unit_multiplier: 367 times DAY is longer than 366 days: use at most 366"},
		{times(override(desc("user=a"), 1, typev3.RateLimitUnit_SECOND), 1<<32-1), "use at most 31622400"},
		{override(desc("user=a"), 1, typev3.RateLimitUnit_UNKNOWN), "descriptors[1].limit.unit: UNKNOWN: use SECOND"},
		{times(override(desc("user=a"), 1, 99), 2), "descriptors[1].limit.unit: 99: use SECOND"},
	} {
		_, err := f.ShouldRateLimit(context.Background(), &pb.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{desc("user=a"), tt.limit}})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("got %v, want InvalidArgument with %q", err, tt.says)
		}
	}
	if got := f.left("user=a"); got != 2 {
		t.Errorf("a request that can't be decided was charged: %d left", got)
	}
}

// TestOverrideKeepsProportions of what a rule says beside its limit.
func TestOverrideKeepsProportions(t *testing.T) {
	for _, tt := range []struct {
		name, rule string
		limit      uint32
		unit       typev3.RateLimitUnit
		admitted   int           // at once
		after      time.Duration // a second one
		more       int
	}{
		{"a tenth", "algorithm: token_bucket, unit: hour, requests_per_unit: 50, burst: 5", 500, typev3.RateLimitUnit_HOUR, 50, 72 * time.Second, 10},
		{"rounded up", "algorithm: token_bucket, unit: hour, requests_per_unit: 50, burst: 5", 51, typev3.RateLimitUnit_HOUR, 6, 0, 0},
		{"at least 1", "algorithm: token_bucket, unit: hour, requests_per_unit: 1000, burst: 5", 2, typev3.RateLimitUnit_MINUTE, 1, 30 * time.Second, 1},
		{"the whole limit by default", "algorithm: token_bucket, unit: hour, requests_per_unit: 5", 20, typev3.RateLimitUnit_HOUR, 20, 0, 0},
		{"more than the limit", "algorithm: token_bucket, unit: hour, requests_per_unit: 5, burst: 10", 7, typev3.RateLimitUnit_HOUR, 14, 0, 0},
		{"a queue", "algorithm: leaky_bucket, unit: hour, requests_per_unit: 60, burst: 3", 120, typev3.RateLimitUnit_HOUR, 6, 0, 0},
		{"no queue", "algorithm: leaky_bucket, unit: hour, requests_per_unit: 60", 3600, typev3.RateLimitUnit_HOUR, 1, time.Second, 1},
		{"no queue, written out", "algorithm: leaky_bucket, unit: hour, requests_per_unit: 60, burst: 1", 3600, typev3.RateLimitUnit_HOUR, 1, time.Second, 1},
		{"no proportion to 0", "algorithm: token_bucket, unit: hour, requests_per_unit: 0, burst: 4", 3, typev3.RateLimitUnit_HOUR, 3, 0, 0},
		// 100/min with a bucket of 10 at 2/s, which is 1.2 times the limit: 500/h with one of 50 at 600/h.
		{"the refill", "algorithm: hybrid, sliding_window: {unit: minute, requests_per_unit: 100}, token_bucket: {capacity: 10, refill_rate: 2/s}", 500, typev3.RateLimitUnit_HOUR, 50, time.Minute, 10},
		{"a slow refill", "algorithm: hybrid, sliding_window: {unit: hour, requests_per_unit: 1000}, token_bucket: {capacity: 1000, refill_rate: 1/h}", 10, typev3.RateLimitUnit_HOUR, 10, 100 * time.Hour, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {"+tt.rule+"}}\n")
			o := func() *common.RateLimitDescriptor { return override(desc("user=a"), tt.limit, tt.unit) }
			if got := f.admitted(tt.admitted+2, o()); got != tt.admitted {
				t.Errorf("%d admitted at once, want %d", got, tt.admitted)
			}
			f.advance(tt.after)
			if got := f.admitted(tt.more+2, o()); got != tt.more {
				t.Errorf("%d admitted after %v, want %d", got, tt.after, tt.more)
			}
		})
	}
}

func TestOverrideStaysStrict(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {algorithm: sliding_window, unit: minute, requests_per_unit: 9, strict: true, sub_windows: 2}}
`)
	o := func() *common.RateLimitDescriptor { return override(desc("user=a"), 2, typev3.RateLimitUnit_MINUTE) }
	f.admitted(2, o())
	for _, tt := range []struct {
		after time.Duration
		want  int
	}{{59 * time.Second, 0}, {30 * time.Second, 0}, {time.Second, 2}} { // parts of 30 s: whole until 90 s
		f.advance(tt.after)
		if got := f.admitted(3, o()); got != tt.want {
			t.Errorf("%d admitted %v later, want %d", got, tt.after, tt.want)
		}
	}
}

// TestOverrideOfAllOrNothingDropsDeniedHits where no rule says what they do.
func TestOverrideOfAllOrNothingDropsDeniedHits(t *testing.T) {
	f := serve(t, "domain: edge\nconsume: all_or_nothing\ndescriptors:\n  - {key: user, rate_limit: {unit: hour, requests_per_unit: 1}}\n")
	o := func(hits uint64) *common.RateLimitDescriptor {
		return withHits(override(desc("none=a"), 3, typev3.RateLimitUnit_HOUR), hits)
	}
	f.ask(o(4))
	if got := f.ask(o(0)).Statuses[0].LimitRemaining; got != 3 {
		t.Errorf("%d left after a refused call, want 3", got)
	}
}

// TestOverLimitStatusSaysWhenTheSameRequestPasses, while our own headers say when the
// counter is as good as new. Who waits as long as it is told is not refused again.
func TestOverLimitStatusSaysWhenTheSameRequestPasses(t *testing.T) {
	for _, tt := range []struct {
		name, limit string
		hits        uint64
		wait, reset int64 // s
	}{
		{"fixed_window", "unit: hour, requests_per_unit: 360", 1, 3600, 3600},
		{"sliding_window", "algorithm: sliding_window, unit: hour, requests_per_unit: 360", 1, 3611, 7180},
		{"strict", "algorithm: sliding_window, strict: true, unit: hour, requests_per_unit: 360", 1, 3960, 3960},
		{"sliding_log", "algorithm: sliding_log, unit: hour, requests_per_unit: 360", 1, 3600, 3600},
		{"token_bucket", "algorithm: token_bucket, unit: hour, requests_per_unit: 360", 1, 10, 3600},
		{"token_bucket, 30 hits", "algorithm: token_bucket, unit: hour, requests_per_unit: 360", 30, 300, 3600},
		{"token_bucket, a fraction", "algorithm: token_bucket, unit: hour, requests_per_unit: 7000, burst: 360", 1, 1, 186},
		{"leaky_bucket", "algorithm: leaky_bucket, unit: hour, requests_per_unit: 360, burst: 360", 1, 10, 3600},
		{"hybrid", "algorithm: hybrid, unit: hour, requests_per_unit: 3600, burst: 360", 1, 1, 7000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {name: l, "+tt.limit+"}}\n", withHeaders)
			f.ask(withHits(desc("user=a"), 360))
			resp := f.ask(withHits(desc("user=a"), tt.hits))
			if tt.name == "sliding_window" || tt.name == "hybrid" {
				// What these say of the fading count is for the algorithms' own tests.
				tt.wait, tt.reset = resp.Statuses[0].DurationUntilReset.Seconds, resetOf(t, resp)
			}
			if got := resp.Statuses[0]; got.Code != over || got.DurationUntilReset.Seconds != tt.wait || got.DurationUntilReset.Nanos != 0 {
				t.Errorf("the status is %v, want OVER_LIMIT for %d s", got, tt.wait)
			}
			if got := headers(resp); !strings.Contains(got, fmt.Sprintf("Reset=%d Retry-After=%d ", tt.reset, tt.wait)) || !strings.HasSuffix(got, fmt.Sprintf(";t=%d", tt.reset)) {
				t.Errorf("headers %s, want a reset of %d s and a wait of %d s", got, tt.reset, tt.wait)
			}
			f.advance(time.Duration(tt.wait)*time.Second - time.Second)
			if got := f.ask(withHits(desc("user=a"), tt.hits)); tt.wait > 1 && got.OverallCode != over {
				t.Errorf("%v a second before it is told", got.OverallCode)
			}
			f.advance(time.Second)
			if got := f.ask(withHits(desc("user=a"), tt.hits)); got.OverallCode != ok {
				t.Errorf("refused again after the wait: %v", got)
			}
		})
	}
}

// resetOf returns the seconds in our own header.
func resetOf(t *testing.T, resp *pb.RateLimitResponse) (s int64) {
	t.Helper()
	for _, h := range resp.ResponseHeadersToAdd {
		if h.Key == allHeaders.Reset {
			if _, err := fmt.Sscan(h.Value, &s); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func TestStatusOfWhatNeverPassesSaysWhenTheCounterIsNew(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 360}}\n", withHeaders)
	f.ask(withHits(desc("user=a"), 36))
	resp := f.ask(withHits(desc("user=a"), 361))
	if got := resp.Statuses[0].DurationUntilReset.Seconds; got != 360 {
		t.Errorf("%d s, want 360", got)
	}
	if got := headers(resp); strings.Contains(got, "Retry-After") || !strings.Contains(got, "Reset=360") {
		t.Errorf("headers %s", got)
	}
}

func TestOKStatusSaysWhenTheCounterIsNew(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 360}}\n")
	if got := f.ask(withHits(desc("user=a"), 36)).Statuses[0].DurationUntilReset.Seconds; got != 360 {
		t.Errorf("%d s, want 360", got)
	}
}

// TestSeveralRefusalsReportTheLeastRoomAndTheLongestWait: only then would the same
// request pass.
func TestSeveralRefusalsReportTheLeastRoomAndTheLongestWait(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limits:
      - {name: few, algorithm: token_bucket, unit: minute, requests_per_unit: 6}
      - {name: slow, algorithm: token_bucket, unit: hour, requests_per_unit: 8}
      - {name: wide, unit: day, requests_per_unit: 1000}
`, withHeaders)
	f.ask(withHits(desc("user=a"), 4)) // few 2 left and 10 s a hit, slow 4 and 450 s
	resp := f.ask(withHits(desc("user=a"), 6))
	st := resp.Statuses[0]
	if st.CurrentLimit.Name != "few" || st.LimitRemaining != 2 || st.DurationUntilReset.Seconds != 900 {
		t.Errorf("got %v, want few with 2 left, for 900 s", st)
	}
	if got := headers(resp); !strings.Contains(got, "Limit=6 Remaining=2 Reset=40 Retry-After=900") {
		t.Errorf("headers %s", got)
	}
	f.advance(900 * time.Second)
	if got := f.ask(withHits(desc("user=a"), 6)).OverallCode; got != ok {
		t.Errorf("%v after the wait", got)
	}
	// Never by the one, and by the other not before 2 hits have come back.
	if got := f.ask(withHits(desc("user=a"), 7)).Statuses[0].DurationUntilReset.Seconds; got != 7*450 {
		t.Errorf("%d s, want %d", got, 7*450)
	}
}

// TestRefusalsOutOfMemorySayTheSame as the store has said.
func TestRefusalsOutOfMemorySayTheSame(t *testing.T) {
	f := serve(t, "domain: edge\ndescriptors:\n  - {key: user, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 360}}\n", withHeaders,
		func(o *limiter.Options) { o.Backend = &remembering{o.Backend, map[string]algo.Decision{}} })
	f.ask(withHits(desc("user=a"), 360))
	stored, remembered := f.ask(desc("user=a")), f.ask(desc("user=a"))
	if f.counts("user", "").OverLimitWithLocalCache != 1 {
		t.Fatal("it was not remembered")
	}
	want(t, remembered, stored)
}

func TestHeadersReportTheTightestLimitThatIsEnforced(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - {key: real, rate_limit: {unit: hour, requests_per_unit: 5}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: try, rate_limit: {unit: hour, requests_per_unit: 2, shadow_mode: true}}
`, withHeaders)
	for i, left := range []int{4, 3, 2, 1, 0} {
		resp := f.ask(desc("trial=a"), desc("real=a"), desc("try=a"))
		if got := headers(resp); resp.OverallCode != ok || !strings.HasPrefix(got, fmt.Sprintf("Limit=5 Remaining=%d ", left)) {
			t.Errorf("request %d: %v, headers %s", i, resp.OverallCode, got)
		}
		for _, at := range []int{0, 2} { // their own statuses tell of them, as with envoyproxy/ratelimit
			if st := resp.Statuses[at]; st.Code != ok || st.LimitRemaining != uint32(max(0, 1-i)) || st.CurrentLimit.RequestsPerUnit != 2 {
				t.Errorf("request %d: the status in shadow mode is %v", i, st)
			}
		}
	}
	if got := headers(f.ask(desc("trial=a"))); got != "" {
		t.Errorf("in shadow mode alone: headers %s", got)
	}
}

func TestHeadersReportNoLimitWhenAllAreInShadowMode(t *testing.T) {
	f := serve(t, perUser, withHeaders, func(o *limiter.Options) { o.ShadowMode = true })
	for range 3 {
		if got := headers(f.ask(desc("user=a"))); got != "" {
			t.Errorf("headers %s", got)
		}
	}
}

func TestReplacedLimitIsNoQuota(t *testing.T) {
	for _, consume := range []string{"each", "all_or_nothing"} {
		t.Run(consume, func(t *testing.T) {
			f := serve(t, "domain: edge\nconsume: "+consume+`
descriptors:
  - {key: a, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 0}}
  - {key: b, quota_mode: true, rate_limit: {name: bb, unit: year, requests_per_unit: 5}}
  - {key: c, rate_limit: {unit: year, requests_per_unit: 5, replaces: [{name: bb}]}}
  - {key: free, quota_mode: true, rate_limit: {unlimited: true}}
`)
			if got := f.ask(desc("a=x"), desc("b=x"), desc("c=x")).OverallCode; got != over {
				t.Errorf("%v, want OVER_LIMIT: the only quota that is left is used up", got)
			}
			if got := f.ask(desc("a=x"), desc("free=x")).OverallCode; got != over {
				t.Errorf("%v beside unlimited, which is no quota", got)
			}
			if got := f.ask(desc("a=x"), desc("b=x")).OverallCode; got != ok {
				t.Errorf("%v with a quota that is not replaced", got)
			}
			left := int64(4)
			if consume == "all_or_nothing" {
				left = 5
			}
			if got := f.left("c=x"); got != left {
				t.Errorf("%d left of c, want %d", got, left)
			}
		})
	}
}

// TestGlobalQuotaModeCountsReplacedAndUnmatchedAsPassing, as envoyproxy/ratelimit
// does, in the store as in the answer.
func TestGlobalQuotaModeCountsReplacedAndUnmatchedAsPassing(t *testing.T) {
	for _, consume := range []string{"each", "all_or_nothing"} {
		f := serve(t, "domain: edge\nconsume: "+consume+`
descriptors:
  - {key: a, rate_limit: {unit: year, requests_per_unit: 0}}
  - {key: b, rate_limit: {name: bb, unit: year, requests_per_unit: 5}}
  - {key: c, rate_limit: {unit: year, requests_per_unit: 1, replaces: [{name: bb}]}}
  - {key: free, rate_limit: {unlimited: true}}
`, func(o *limiter.Options) { o.QuotaMode = true })
		for i := range 3 {
			if got := f.ask(desc("a=x"), desc("b=x"), desc("c=x")).OverallCode; got != ok {
				t.Errorf("%s: request %d: %v with a quota that is replaced", consume, i, got)
			}
		}
		if got := f.left("c=x"); got > 0 {
			t.Errorf("%s: what passes was not charged: %d left", consume, got)
		}
		if got := f.ask(desc("a=x"), desc("none=x")).OverallCode; got != ok {
			t.Errorf("%s: %v with a descriptor that no rule is for", consume, got)
		}
		if got := f.ask(desc("a=x"), desc("free=x")).OverallCode; got != over {
			t.Errorf("%s: %v with unlimited, which is no quota", consume, got)
		}
	}
}

// TestServiceAndStoreAgreeOnWhatIsRefused as a whole: a refusal has charged nothing,
// and what passes was charged, whatever the modes.
func TestServiceAndStoreAgreeOnWhatIsRefused(t *testing.T) {
	const yaml = `
domain: edge
consume: all_or_nothing
descriptors:
  - {key: required, rate_limit: {unit: year, requests_per_unit: 4, name: required}}
  - {key: quota, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 1, name: quota}}
  - {key: other, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: both, quota_mode: true, rate_limits: [{unit: year, requests_per_unit: 3}, {unit: year, requests_per_unit: 4, name: quota}]}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: free, quota_mode: true, rate_limit: {unlimited: true}}
  - {key: replaces, rate_limit: {unit: year, requests_per_unit: 5, replaces: [{name: quota}, {name: required}]}}
`
	limited := []string{"required=x", "quota=x", "other=x", "both=x", "shadow=x", "replaces=x"}
	rapid.Check(t, func(r *rapid.T) {
		global := rapid.Bool().Draw(r, "quota mode for all")
		f := serve(t, yaml, func(o *limiter.Options) { o.QuotaMode = global })
		for range 12 {
			texts := rapid.SliceOfNDistinct(rapid.SampledFrom(append([]string{"free=x", "none=x"}, limited...)), 1, 5, rapid.ID).Draw(r, "descriptors")
			before := map[string]int64{}
			for _, text := range limited {
				before[text] = f.left(text)
			}
			var ds []*common.RateLimitDescriptor
			for _, text := range texts {
				ds = append(ds, desc(text))
			}
			resp := f.ask(ds...)
			for i, text := range texts {
				if resp.Statuses[i].CurrentLimit == nil {
					continue
				}
				charged, passes := before[text]-f.left(text), before[text] > 0
				if wanted := passes && resp.OverallCode == ok; (charged == 1) != wanted || charged != 0 && charged != 1 {
					r.Fatalf("%v of %v: %s is charged %d with %d left before", resp.OverallCode, texts, text, charged, before[text])
				}
			}
		}
	})
}

func TestStatisticsCountWhatWasCharged(t *testing.T) {
	f := serve(t, `
domain: edge
consume: all_or_nothing
descriptors:
  - {key: site, rate_limit: {unit: hour, requests_per_unit: 10}}
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 9}}
  - {key: free, rate_limit: {unlimited: true}}
`)
	f.admitted(109, desc("site=a"), desc("user=a"), desc("free=a"))
	for path, wanted := range map[string]stats.Counts{
		// Its own decision allowed all of them, but 100 were charged nothing.
		"site": {WithinLimit: 9, NearLimit: 1, DeniedHits: 100, Allowed: 109},
		"user": {WithinLimit: 9, NearLimit: 2, DeniedHits: 100, OverLimit: 100, Allowed: 9, Denied: 100},
		"free": {WithinLimit: 9, DeniedHits: 100, Allowed: 109},
	} {
		got := f.counts(path, "")
		if got != wanted || got.TotalHits() != 109 {
			t.Errorf("%s: %+v, want %+v", path, got, wanted)
		}
	}
}

// TestStatisticsCountDeniedHitsThatAreCharged, though the request is refused as a
// whole.
func TestStatisticsCountDeniedHitsThatAreCharged(t *testing.T) {
	f := serve(t, `
domain: edge
consume: all_or_nothing
descriptors:
  - {key: site, rate_limit: {unit: hour, requests_per_unit: 10, denied_hits: count}}
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 1}}
`)
	f.admitted(3, desc("site=a"), desc("user=a"))
	if got, wanted := f.counts("site", ""), (stats.Counts{WithinLimit: 3, Allowed: 3}); got != wanted || f.left("site=a") != 7 {
		t.Errorf("%+v with %d left, want %+v", got, f.left("site=a"), wanted)
	}
}

// TestRefusedRequestsChargeNothing where the whole service is set so, by one step of
// the store or by giving back.
func TestRefusedRequestsChargeNothing(t *testing.T) {
	for _, spread := range []bool{false, true} {
		t.Run(fmt.Sprintf("spread %v", spread), func(t *testing.T) {
			f := serve(t, `
domain: edge
descriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 1, denied_hits: drop}}
  - {key: tenant, rate_limit: {unit: hour, requests_per_unit: 10, denied_hits: drop}}
  - {key: counts, rate_limit: {unit: hour, requests_per_unit: 10, denied_hits: count}}
  - {key: bucket, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 10}}
  - {key: quota, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 1, denied_hits: drop}}
`, func(o *limiter.Options) { o.DropRefused, o.Spread = true, spread })
			for i := range 6 {
				resp := f.ask(desc("tenant=a"), desc("user=a"), desc("counts=a"), desc("bucket=a"))
				if (resp.OverallCode == ok) != (i == 0) {
					t.Errorf("request %d: %v", i, resp.OverallCode)
				}
				for at, left := range map[int]uint32{0: 9, 2: uint32(9 - i), 3: 9} {
					if st := resp.Statuses[at]; st.LimitRemaining != left || st.Code != ok {
						t.Errorf("request %d: %v, want %d left", i, st, left)
					}
				}
			}
			if got, wanted := f.counts("tenant", ""), (stats.Counts{WithinLimit: 1, DeniedHits: 5, Allowed: 6}); got != wanted {
				t.Errorf("counted %+v, want %+v", got, wanted)
			}
			f.ask(desc("quota=a"), desc("tenant=b"))
			f.ask(desc("quota=a"), desc("tenant=b"))
			if got := f.left("tenant=b"); got != 9 {
				t.Errorf("all quotas refuse: %d left, want 9", got)
			}
			f.ask(desc("user=b"), withHits(desc("tenant=c"), 11))
			if got := f.left("user=b"); got != 1 {
				t.Errorf("the first descriptor is charged for what the second refuses: %d left", got)
			}
		})
	}
}
