// Package admintest owns the fuzz target of the admin address. It is separate from
// the other tests of admin because fuzzing instruments all imported packages, which
// takes minutes for the validator of the specification.
package admintest

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc/health"

	"github.com/distlimiter/ratelimit/internal/admin"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/rulestore"
	"github.com/distlimiter/ratelimit/internal/scrape"
	"github.com/distlimiter/ratelimit/internal/stats"
)

const rules = `domain: edge
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 10}
    descriptors:
      - {key: path, value: /x, shadow_mode: true, rate_limit: {algorithm: token_bucket, unit: second, requests_per_unit: 5, burst: 7}}
`

const slower = "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: hour, requests_per_unit: 3}}]\n"

// fixture is the handler over the real parts.
type fixture struct {
	handler http.Handler
	store   *rulestore.File
	rules   *reload.Coordinator
}

func newFixture(f *testing.F) *fixture {
	f.Helper()
	dir := f.TempDir()
	file := filepath.Join(dir, "edge.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		f.Fatal(err)
	}
	store, err := rulestore.NewFile(filepath.Join(dir, "admin.json"))
	if err != nil {
		f.Fatal(err)
	}
	counters := memory.New(memory.Options{})
	f.Cleanup(func() { _ = counters.Close() }) // it never fails
	counts := stats.New(0)
	limits := limiter.New(limiter.Options{Backend: counters, Log: zap.NewNop(), Stats: counts})
	provider := &rulestore.Provider{Store: store, Log: zap.NewNop()}
	coordinator := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{
		&reload.Files{Paths: []string{file}}, provider,
	}})
	provider.Check = func(sources []rulefile.Source) (*config.Rules, error) {
		return coordinator.Check(config.FromAdmin, sources)
	}
	coordinator.Subscribe(limits.SetRules)
	if err := coordinator.Reload(f.Context()); err != nil {
		f.Fatal(err)
	}
	return &fixture{store: store, rules: coordinator, handler: admin.New(admin.Options{
		Replica: admin.Replica{StoreHealthy: func() bool { return true }},
		Rules:   coordinator.Rules, Reloads: coordinator.Status, Reload: coordinator.Reload, Store: provider, Limiter: limits,
		Counters: resetter{counters}, Stats: counts, Metrics: scrape.New(prometheus.NewRegistry()), Health: health.NewServer(), Audit: zap.NewNop(),
	})}
}

// resetter is an admin.Resetter of the store in memory.
type resetter struct{ *memory.Store }

func (s resetter) Reset(ctx context.Context, checks []backend.Check) (n int, err error) {
	for _, c := range checks {
		if used, _ := s.Store.Reset(ctx, c); used {
			n++
		}
	}
	return n, nil
}

func (s resetter) ResetAll(ctx context.Context, goes func([]byte) bool) (n int, err error) {
	var checks []backend.Check
	for key := range s.Keys() {
		if goes(key) {
			checks = append(checks, backend.Check{Key: bytes.Clone(key)})
		}
	}
	return s.Reset(ctx, checks)
}

// problem and writeResult are answers as a client reads them.
type problem struct {
	Title  string
	Status int
}

type writeResult struct {
	InForce bool `json:"in_force"`
	Changes []struct{ Change, Key, Domain, Path string }
}

// FuzzBodies sends bodies of any bytes to the handler. The answer is always JSON that a
// terminal can show, and its status never blames the server. A refused body or a dry run
// changes nothing. An accepted body is in force, and a restart would read the same rules.
func FuzzBodies(f *testing.F) {
	const yaml, inJSON = false, true
	for _, seed := range []struct {
		path   string
		isJSON bool
		body   string
	}{
		{"/admin/rules", yaml, slower},
		{"/admin/rules", yaml, rules},
		{"/admin/rules", yaml, "domain: edge\ndescriptors: &a [{key: a, descriptors: *a}]"},
		{"/admin/rules", yaml, "domain: edge\ndescriptors: [{key: \"a\\e[31m\\n\\u202e\", rate_limit: {unlimited: true}}]"},
		{"/admin/rules", yaml, "domain: edge\n---\ndomain: other"},
		{"/admin/rules", inJSON, `{"domain": "edge", "consume": "all_or_nothing", "descriptors": [{"key": "a", "value": "*", "rate_limits": [{"unit": "day", "requests_per_unit": 1e9}]}]}`},
		{"/admin/rules", inJSON, `{"domain": "edge", "descriptors": [{"key": "\u0000", "rate_limit": {"window": "1h", "requests_per_unit": 18446744073709551616}}]}`},
		{"/admin/rules", inJSON, strings.Repeat(`{"descriptors":[`, 2000)},
		{"/admin/reset", inJSON, `{"rule": "x"}`},
		{"/admin/reset", inJSON, `{"domain": "edge", "entries": [{"key": "user", "value": "alice"}]}`},
		{"/admin/credit", inJSON, `{"domain": "edge", "entries": [{"key": "user", "value": "alice"}], "hits": 5, "limit": "user"}`},
		{"/admin/reset", inJSON, `{"domain": "edge", "entries": null, "rule": ""} {}`},
		{"/admin/explain", inJSON, `{"domain": "edge", "entries": [{"key": "user", "value": "\u001b[31m\n"}, {"key": "path", "value": "/x"}]}`},
		{"/admin/explain", inJSON, `{"domain": "edge", "entries": [{"key": ""}, {}]}`},
		{"/admin/explain", inJSON, `[[[[`},
	} {
		f.Add(slices.Index(bodyPaths, seed.path), seed.isJSON, []byte(seed.body))
	}
	fix := newFixture(f)
	f.Fuzz(func(t *testing.T, which int, isJSON bool, body []byte) {
		path := bodyPaths[uint(which)%uint(len(bodyPaths))]
		post := func(query string) (int, []byte) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1"+path+query, strings.NewReader(string(body)))
			r.Header.Set("Content-Type", "application/yaml")
			if isJSON {
				r.Header.Set("Content-Type", "application/json")
			}
			w := httptest.NewRecorder()
			fix.handler.ServeHTTP(w, r)
			checkAnswer(t, w, body)
			return w.Code, w.Body.Bytes()
		}
		before, _ := fix.store.Load(t.Context())
		inForce := fix.rules.Rules()
		status, answer := post("?dry_run=1")
		if after, err := fix.store.Load(t.Context()); err != nil || after.Token() != before.Token() || fix.rules.Rules() != inForce {
			t.Fatalf("%q: answered %d, and something has changed (%v)", body, status, err)
		}
		if path != "/admin/rules" || status != http.StatusOK {
			return
		}
		var dry writeResult
		if err := json.Unmarshal(answer, &dry); err != nil {
			t.Fatal(err)
		}
		for _, c := range dry.Changes {
			if c.Domain != "edge" {
				return // so that the store stays small
			}
		}
		status, answer = post("?replace=1")
		var result writeResult
		if err := json.Unmarshal(answer, &result); err != nil || status != http.StatusOK || !result.InForce {
			t.Fatalf("a dry run of %q was fine, but then: %d: %s", body, status, answer)
		}
		stored, err := fix.store.Load(t.Context())
		if err != nil {
			t.Fatalf("%q is stored as what can't be read: %v", body, err)
		}
		text, err := json.Marshal(stored)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range result.Changes {
			found := false
			for rule := range fix.rules.Rules().All() {
				found = found || rule.ID() == c.Key && rule.Descriptor().Origin == config.FromAdmin
			}
			if gone := c.Change == "deleted"; found == gone {
				t.Fatalf("%q: %s %s, but in force is %v of\n%s", body, c.Change, c.Path, found, text)
			}
		}
	})
}

var bodyPaths = []string{"/admin/rules", "/admin/reset", "/admin/explain"}

// refusalsOfBodies are the statuses that a body can cause.
var refusalsOfBodies = []int{http.StatusBadRequest, http.StatusNotFound, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity}

func checkAnswer(t *testing.T, w *httptest.ResponseRecorder, body []byte) {
	t.Helper()
	var p problem
	switch err := json.Unmarshal(w.Body.Bytes(), &p); {
	case err != nil || !utf8.Valid(w.Body.Bytes()):
		t.Fatalf("%q: %d: %q is no JSON: %v", body, w.Code, w.Body, err)
	case w.Code == http.StatusOK:
	case !slices.Contains(refusalsOfBodies, w.Code):
		t.Fatalf("%q: %d: %s", body, w.Code, w.Body)
	case p.Status != w.Code || p.Title == "" || w.Header().Get("Content-Type") != "application/problem+json":
		t.Fatalf("%q: %d: %s is no problem", body, w.Code, w.Body)
	}
	if i := strings.IndexFunc(strings.TrimSuffix(w.Body.String(), "\n"), func(r rune) bool { return r < ' ' && !unicode.IsPrint(r) }); i >= 0 {
		t.Fatalf("%q: there is a control character in %q", body, w.Body)
	}
}
