// Package clients asks the service over gRPC from other languages than Go: over HTTP/2 and
// protobuf implementations that share no code with the server's. The clients are in
// directories that are named after their language. They get the questions as JSON, learn the
// messages from the server's reflection, and print the answers as JSON.
package clients

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/test/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.MainAsShipped(m)) }

// sources are the clients, by the program that runs them.
var sources = map[string]string{"grpc-python": "python/client.py", "grpc-node": "node/client.js"}

// rateLimit is the service that Envoy calls.
const rateLimit = "envoy.service.ratelimit.v3.RateLimitService"

// asked is what a client is asked to do.
type asked struct {
	Address string   `json:"address"`
	Health  []string `json:"health"` // of which services
	Calls   []call   `json:"calls"`  // one after the other
}

// call is a request of ShouldRateLimit, as JSON of protobuf.
type call struct {
	Request json.RawMessage `json:"request"`
	Times   int             `json:"times,omitempty"` // at once; 0 for one
	Gzip    bool            `json:"gzip,omitempty"`  // compressed
}

// told is what a client has seen.
type told struct {
	Health   map[string]string `json:"health"`
	Watched  string            `json:"watched"` // the first message of a health stream
	Services []string          `json:"services"`
	Answers  []answer          `json:"answers"`
}

type answer struct {
	Codes    map[string]int `json:"codes"`    // how many of each overall code or error
	Statuses []status       `json:"statuses"` // of the descriptors; none of calls at once
}

type status struct {
	Code      string `json:"code"`
	Limit     int    `json:"limit"`
	Unit      string `json:"unit"`
	Remaining int    `json:"remaining"`
	Resets    bool   `json:"resets"`
}

const rules = `
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: year, requests_per_unit: 3}}
  - {key: tenant, rate_limit: {unit: year, requests_per_unit: 1000}}
  - {key: quiet, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 0}}
  - key: path
    value: /größe/*
    rate_limit: {unit: day, requests_per_unit: 7}
`

// large is a request of many frames of HTTP/2, and of more bytes than a client may send
// ahead. It has descriptors descriptors.
func large() json.RawMessage {
	var all []string
	for i := range descriptors {
		all = append(all, fmt.Sprintf(`{"entries": [{"key": "user", "value": "%d%s"}]}`, i, strings.Repeat("x", 4000)))
	}
	return json.RawMessage(`{"domain": "shop", "descriptors": [` + strings.Join(all, ", ") + `]}`)
}

const descriptors = 60

var calls = []struct {
	call
	want answer
}{
	{call{Request: json.RawMessage(`{"domain": "shop", "descriptors": [{"entries": [{"key": "user", "value": "alice"}]}]}`)},
		answer{map[string]int{"OK": 1}, []status{{"OK", 3, "YEAR", 2, true}}}},
	{call{Request: json.RawMessage(`{"domain": "shop", "hits_addend": 2, "descriptors": [{"entries": [{"key": "user", "value": "alice"}]}]}`)},
		answer{map[string]int{"OK": 1}, []status{{"OK", 3, "YEAR", 0, true}}}},
	{call{Request: json.RawMessage(`{"domain": "shop", "descriptors": [{"entries": [{"key": "user", "value": "alice"}]}]}`)},
		answer{map[string]int{"OVER_LIMIT": 1}, []status{{"OVER_LIMIT", 3, "YEAR", 0, true}}}},
	// A cost of its own for each descriptor, one of them beyond ASCII, and one without a limit.
	{call{Request: json.RawMessage(`{"domain": "shop", "descriptors": [
			{"hits_addend": 3, "entries": [{"key": "user", "value": "bob"}]},
			{"hits_addend": 5, "entries": [{"key": "path", "value": "/größe/✓"}]},
			{"entries": [{"key": "nothing", "value": "limits this"}]}]}`)},
		answer{map[string]int{"OK": 1}, []status{{"OK", 3, "YEAR", 0, true}, {"OK", 7, "DAY", 2, true}, {"OK", 0, "", 0, false}}}},
	// The request brings its limit.
	{call{Request: json.RawMessage(`{"domain": "shop", "descriptors": [{"entries": [{"key": "user", "value": "carol"}], "limit": {"requests_per_unit": 20, "unit": "MONTH"}}]}`)},
		answer{map[string]int{"OK": 1}, []status{{"OK", 20, "MONTH", 19, true}}}},
	{call{Request: json.RawMessage(`{"domain": "shop", "descriptors": [{"entries": [{"key": "quiet", "value": "x"}]}]}`)},
		answer{map[string]int{"OK": 1}, []status{{"OK", 0, "YEAR", 0, true}}}},
	{call{Request: large(), Gzip: true},
		answer{map[string]int{"OK": 1}, slices.Repeat([]status{{"OK", 3, "YEAR", 2, true}}, descriptors)}},
	{call{Request: large()},
		answer{map[string]int{"OK": 1}, slices.Repeat([]status{{"OK", 3, "YEAR", 1, true}}, descriptors)}},
	// More streams at once on one connection than there is room for, and than a connection may have.
	{call{Request: json.RawMessage(`{"domain": "shop", "descriptors": [{"entries": [{"key": "tenant", "value": "acme"}]}]}`), Times: 1500},
		answer{map[string]int{"OK": 1000, "OVER_LIMIT": 500}, []status{}}},
	{call{Request: json.RawMessage(`{"descriptors": [{"entries": [{"key": "user", "value": "alice"}]}]}`)},
		answer{map[string]int{"INVALID_ARGUMENT": 1}, []status{}}},
}

// TestClients checks that each language sees the same answers of both gRPC fronts. CI has
// Python only; `make test-clients` has all.
func TestClients(t *testing.T) {
	question := asked{Health: []string{"", rateLimit, "unknown"}}
	want := told{
		Health:  map[string]string{"": "SERVING", rateLimit: "SERVING", "unknown": "NOT_FOUND"},
		Watched: "SERVING",
		Services: []string{rateLimit, "grpc.health.v1.Health",
			"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"},
	}
	for _, c := range calls {
		question.Calls = append(question.Calls, c.call)
		want.Answers = append(want.Answers, c.want)
	}
	for program := range strings.FieldsSeq(cmp.Or(os.Getenv("GRPC_CLIENTS"), "grpc-python")) {
		for _, front := range []string{"grpc-go", "lean"} {
			t.Run(program+"/"+front, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "rules.yaml")
				if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
					t.Fatal(err)
				}
				question := question
				question.Address = harness.StartService(t, file, "--grpc-front", front).GRPC
				question.ask(t, program, &want)
			})
		}
	}
}

// ask asks the question through a client and compares the answer.
func (question *asked) ask(t *testing.T, program string, want *told) {
	source, known := sources[program]
	if !known {
		t.Fatalf("there is no client for %s", program)
	}
	input, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	client := exec.Command(harness.Tool(t, program), source)
	client.Stdin = bytes.NewReader(input)
	client.Stderr = os.Stderr
	out, err := client.Output()
	if err != nil {
		t.Fatalf("%v: %v", client, err)
	}
	var got told
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(got.Answers) != len(want.Answers) {
		t.Fatalf("%d answers to %d calls", len(got.Answers), len(want.Answers))
	}
	for i, a := range got.Answers {
		if !reflect.DeepEqual(a, want.Answers[i]) {
			t.Errorf("%.200s: %+v, want %+v", question.Calls[i].Request, a, want.Answers[i])
		}
	}
	got.Answers = want.Answers
	if !reflect.DeepEqual(got, *want) {
		t.Errorf("%+v, want %+v", got, *want)
	}
}
