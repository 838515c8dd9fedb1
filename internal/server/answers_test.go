package server_test

import (
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
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/distlimiter/ratelimit/internal/server"
)

var allHeaders = server.Headers{Limit: "Limit", Remaining: "Remaining", Reset: "Reset", RetryAfter: "Retry-After", Draft: true}

func withHeaders(o *options) { o.Headers = allHeaders }

// headers returns the headers of an answer as name=value.
func headers(resp *pb.RateLimitResponse) string {
	var all []string
	for _, h := range resp.ResponseHeadersToAdd {
		all = append(all, h.Key+"="+h.Value)
	}
	return strings.Join(all, " ")
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
	srv := httptest.NewServer(server.JSON(f))
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

// TestOverLimitStatusSaysWhenTheSameRequestPasses, while our own headers say when the
// counter is whole again. A client that waits until then is not refused again.
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
				// The tests of the algorithms check the fading count.
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
				t.Errorf("%v a second before the time in the answer", got.OverallCode)
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
	// The one never lets it pass, and the other not before 2 hits have come back.
	if got := f.ask(withHits(desc("user=a"), 7)).Statuses[0].DurationUntilReset.Seconds; got != 7*450 {
		t.Errorf("%d s, want %d", got, 7*450)
	}
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
		for _, at := range []int{0, 2} { // their own statuses report them, as with envoyproxy/ratelimit
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
	f := serve(t, perUser, withHeaders, func(o *options) { o.ShadowMode = true })
	for range 3 {
		if got := headers(f.ask(desc("user=a"))); got != "" {
			t.Errorf("headers %s", got)
		}
	}
}

// TestRequestHeadersAreSentUpstream with answers that let a request pass, beside those
// for the client.
func TestRequestHeadersAreSentUpstream(t *testing.T) {
	f := serve(t, `
domain: edge
descriptors:
  - key: user
    rate_limits:
      - {unit: hour, requests_per_unit: 2}
      - {unit: hour, requests_per_unit: 1, shadow_mode: true, request_headers: {x-over-limit: hourly, priority: "u=7"}}
`, withHeaders)
	for i, want := range []string{"", "priority=u=7 x-over-limit=hourly", ""} {
		resp := f.ask(desc("user=a"))
		var got []string
		for _, h := range resp.RequestHeadersToAdd {
			got = append(got, h.Key+"="+h.Value)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("request %d: headers %v, want %s", i+1, got, want)
		}
		if len(resp.ResponseHeadersToAdd) == 0 {
			t.Errorf("request %d: no headers for the client", i+1)
		}
	}
}
