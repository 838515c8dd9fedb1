package server_test

import (
	"encoding/json"
	"strings"
	"testing"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/distlimiter/ratelimit/internal/server"
)

const forReasons = `
domain: edge
descriptors:
  - key: user
    rate_limit: {name: per_user, unit: hour, requests_per_unit: 1}
  - key: trial
    shadow_mode: true
    rate_limit: {unit: hour, requests_per_unit: 1}
  - key: both
    rate_limits:
      - {unit: hour, requests_per_unit: 5}
      - {name: cand, unit: hour, requests_per_unit: 1, shadow_mode: true}
  - key: never
    rate_limit: {unit: hour, requests_per_unit: 0}
  - key: größe
    value: "a\nb"
    rate_limit: {unit: hour, requests_per_unit: 9}
`

// metadataOf returns a field of an answer's dynamic metadata as JSON; "null" if it has none.
func metadataOf(t *testing.T, resp *pb.RateLimitResponse, field string) string {
	t.Helper()
	text, err := json.Marshal(resp.GetDynamicMetadata().AsMap()[field])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func same[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestMetadataSaysWhatARequestIsOver: the first refusal and the first verdict in shadow
// mode by a path of keys, which an access log can print, and all of them in a list.
func TestMetadataSaysWhatARequestIsOver(t *testing.T) {
	f := serve(t, forReasons, func(o *options) { o.WhyMetadata = true })
	if got := f.ask(desc("user=al"), desc("trial=1"), desc("both=1"), desc("none=1")); got.DynamicMetadata != nil {
		t.Errorf("over nothing: %v", got.DynamicMetadata)
	}
	const (
		user  = `{"descriptor":"user=al","left":0,"limit":"per_user: fixed_window, 1 per hour","name":"per_user","retry_after_seconds":3600,"rule":"user","verdict":"over"}`
		trial = `{"descriptor":"trial=1","left":0,"limit":"fixed_window, 1 per hour","retry_after_seconds":3600,"rule":"trial","verdict":"shadow"}`
		cand  = `{"descriptor":"both=1","left":0,"limit":"cand: fixed_window, 1 per hour, denied_hits drop, shadow_mode","name":"cand","retry_after_seconds":3600,"rule":"both","verdict":"shadow"}`
	)
	got := metadataOf(t, f.ask(desc("trial=1"), desc("user=al"), desc("both=1")), "why")
	same(t, got, `{"all":[`+trial+`,`+user+`,`+cand+`],"over":`+user+`,"shadow":`+trial+`}`)

	// A request that never passes has no time, and an override may have no rule.
	got = metadataOf(t, f.ask(desc("never=1"), override(desc("other=1"), 0, typev3.RateLimitUnit_HOUR)), "why")
	const never = `{"descriptor":"never=1","left":0,"limit":"fixed_window, 0 per hour","rule":"never","verdict":"over"}`
	const brought = `{"descriptor":"other=1","left":0,"limit":"fixed_window, 0 per hour","verdict":"over"}`
	same(t, got, `{"all":[`+never+`,`+brought+`],"over":`+never+`}`)
}

// TestMetadataSaysShadowWhereNothingIsEnforced: with shadow mode for all rules.
func TestMetadataSaysShadowWhereNothingIsEnforced(t *testing.T) {
	f := serve(t, forReasons, func(o *options) { o.WhyMetadata, o.ShadowMode = true, true })
	resp := f.ask(desc("never=1"))
	same(t, resp.OverallCode, ok)
	if got := metadataOf(t, resp, "why"); strings.Contains(got, `"over"`) || !strings.Contains(got, `"shadow":{"descriptor":"never=1"`) {
		t.Error(got)
	}
}

// TestMetadataOfEnvoyproxyStaysAsItIs beside the reasons, and without their setting.
func TestMetadataOfEnvoyproxyStaysAsItIs(t *testing.T) {
	for _, why := range []bool{false, true} {
		f := serve(t, forReasons, func(o *options) { o.WhyMetadata, o.Options.DynamicMetadata = why, true })
		resp := f.ask(desc("never=1"))
		same(t, metadataOf(t, resp, "descriptors"), `[{"entries":["never=1"]}]`)
		same(t, metadataOf(t, resp, "domain"), `"edge"`)
		if has := metadataOf(t, resp, "why") != "null"; has != why {
			t.Errorf("why: %v, want %v", has, why)
		}
	}
}

// TestRuleHeader names the rule that the other headers report, whatever its value holds.
func TestRuleHeader(t *testing.T) {
	f := serve(t, forReasons, func(o *options) { o.Headers = server.Headers{Rule: "x-rule"} })
	for _, c := range []struct{ descriptor, want string }{
		{"user=al", "x-rule=user"}, {"never=1", "x-rule=never"}, {"none=1", ""}, {"trial=1", ""},
		{"größe=a\nb", `x-rule="gr\u00f6\u00dfe_a\nb"`},
	} {
		if got := headers(f.ask(desc(c.descriptor))); got != c.want {
			t.Errorf("%s: %s, want %s", c.descriptor, got, c.want)
		}
	}
}
