package server_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/distlimiter/ratelimit/internal/server"
)

const fuzzedRules = `domain: edge
descriptors:
  - {key: user, rate_limit: {unit: minute, requests_per_unit: 3}, descriptors: [{key: path, value: /*, share_threshold: true, rate_limit: {algorithm: token_bucket, unit: second, requests_per_unit: 2}}]}
  - {key: tenant, detailed_metric: true, rate_limits: [{name: fast, algorithm: sliding_log, unit: second, requests_per_unit: 2}, {algorithm: hybrid, unit: hour, requests_per_unit: 5}]}
  - {key: post, rate_limit: {unit: minute, requests_per_unit: 3, replaces: [{name: fast}]}}
  - {key: free, rate_limit: {unlimited: true}}
`

// FuzzJSON posts anything to /json. The answer is the decision that gRPC gives to the same
// request, or a refusal of the body.
func FuzzJSON(f *testing.F) {
	for _, body := range []string{
		"", "null", "{}", "[]", `{"domain": "edge"}`, `{"domain": "edge", "descriptors": [null]}`, `{"domain": "edge", "descriptors": [{"entries": [null]}]}`,
		`{"domain": "edge", "descriptors": [{"entries": [{"key": "user", "value": "alice"}, {"key": "path", "value": "/x"}]}]}`,
		`{"domain": "edge", "descriptors": [{"entries": [{"key": "tenant", "value": "a\u0000\n\u001b[31m"}], "hitsAddend": "18446744073709551615"}], "hitsAddend": 4294967295}`,
		`{"domain": "edge", "descriptors": [{"entries": [{"key": "user"}], "limit": {"requestsPerUnit": 1, "unit": "YEAR"}}, {"entries": [{"key": "post"}], "isNegativeHits": true}]}`,
		`{"domain": "edge", "descriptors": [{"entries": [{"key": "user"}], "limit": {"unit": 99}}]}`,
		`{"domain": "other", "descriptors": [{}], "hitsAddend": -1}`, `{"domain": "edge", "descriptors": [{"hits_addend": 0}]}`,
		`{"domain": "\ud800", "descriptors": [{"entries": [{"key": "free"}]}]}`, `{"domain": "edge", "domain": "edge"}`, strings.Repeat(`{"a":`, 20000),
	} {
		f.Add(body)
	}
	overHTTP, overGRPC := serve(f, fuzzedRules), serve(f, fuzzedRules)
	handler := server.JSON(overHTTP)
	f.Fuzz(func(t *testing.T, body string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/json", strings.NewReader(body)))

		var request pb.RateLimitRequest
		if err := protojson.Unmarshal([]byte(body), &request); err != nil {
			if w.Code != http.StatusBadRequest {
				t.Fatalf("%d: %s, but it is no request: %v", w.Code, w.Body, err)
			}
			return
		}
		wire, err := proto.Marshal(&request)
		if err != nil {
			t.Fatal(err)
		}
		request.Reset()
		if err := proto.Unmarshal(wire, &request); err != nil {
			t.Fatal(err)
		}
		want, err := overGRPC.ShouldRateLimit(t.Context(), &request)
		if err != nil {
			if w.Code != http.StatusBadRequest || status.Code(err) != codes.InvalidArgument || strings.TrimSuffix(w.Body.String(), "\n") != status.Convert(err).Message() {
				t.Fatalf("%d: %s, but by gRPC %v", w.Code, w.Body, err)
			}
			return
		}
		code := http.StatusOK
		if want.OverallCode == pb.RateLimitResponse_OVER_LIMIT {
			code = http.StatusTooManyRequests
		}
		var got pb.RateLimitResponse
		if err := protojson.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != code || !proto.Equal(&got, want) {
			t.Fatalf("%d: %s (%v), but by gRPC %v", w.Code, w.Body, err, want)
		}
	})
}
