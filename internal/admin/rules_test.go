package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/rulestore"
)

// reply is an answer, read by a test.
type reply struct {
	status int
	header http.Header
	body   string
}

// send sends a request; header are alternating names and values.
func (f *fixture) send(t *testing.T, method, path, body string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, f.server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		r.Body = http.NoBody
	} else {
		r.Header.Set("Content-Type", "application/yaml")
		if strings.HasPrefix(body, "{") {
			r.Header.Set("Content-Type", "application/json")
		}
	}
	for pair := range slices.Chunk(header, 2) {
		if pair[0] == "Host" {
			r.Host = pair[1]
		}
		r.Header.Set(pair[0], pair[1])
		if pair[1] == "" {
			r.Header.Del(pair[0])
		}
	}
	answer, err := f.server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	read, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{answer.StatusCode, answer.Header, string(read)}
}

// problem returns the problem that a reply must be.
func (r reply) problem(t *testing.T, status int, kind string) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil || r.status != status || p.Status != status || p.Type != kind || p.Title == "" {
		t.Fatalf("%d: %s: error %v, want %d and type %s", r.status, r.body, err, status, kind)
	}
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("a problem is sent as %s", got)
	}
	return p
}

func (r reply) into(t *testing.T, status int, v any) {
	t.Helper()
	if r.status != status {
		t.Fatalf("%d: %s, want %d", r.status, r.body, status)
	}
	if err := json.Unmarshal([]byte(r.body), v); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
}

// listed is a rule as a client reads it.
type listed struct {
	Key, Domain, Path, Source, Location, Limits, Written string

	Rule      map[string]any
	Adjusted  []config.AdjustedBy
	Overrides *listed
}

func (f *fixture) list(t *testing.T, query string) (rules []listed, etag string) {
	t.Helper()
	var list struct{ Rules []listed }
	r := f.send(t, http.MethodGet, "/admin/rules"+query, "")
	r.into(t, http.StatusOK, &list)
	return list.Rules, r.header.Get("ETag")
}

// one returns the rule of that path.
func (f *fixture) one(t *testing.T, path string) listed {
	t.Helper()
	rules, _ := f.list(t, "")
	for _, r := range rules {
		if r.Path == path {
			return r
		}
	}
	t.Fatalf("no rule %s in %+v", path, rules)
	return listed{}
}

// apply sends rules and returns what changed: "created user, updated user.path".
func (f *fixture) apply(t *testing.T, query, body string, header ...string) string {
	t.Helper()
	var result writeResult
	f.send(t, http.MethodPost, "/admin/rules"+query, body, header...).into(t, http.StatusOK, &result)
	return result.text()
}

func (w writeResult) text() string {
	var texts []string
	for _, c := range w.Changes {
		texts = append(texts, string(c.Change)+" "+c.Path)
	}
	return strings.Join(texts, ", ")
}

const slower = "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: hour, requests_per_unit: 3}}]\n"

func TestRulesAreListed(t *testing.T) {
	f := newFixture(t)
	if rules, _ := f.list(t, ""); len(rules) != 0 {
		t.Errorf("before there are rules: %+v", rules)
	}
	if err := f.load(t, strings.Replace(rules, "{unit: hour", "{name: special, unit: hour", 1)); err != nil {
		t.Fatal(err)
	}
	f.apply(t, "", "domain: inner\ndescriptors: [{key: a, rate_limit: {unlimited: true}}]")
	for query, want := range map[string]string{
		"":               "inner a, edge user, edge user.path_/x, edge remote_address_10.0.0.1",
		"?domain=edge":   "edge user, edge user.path_/x, edge remote_address_10.0.0.1",
		"?name=special":  "edge remote_address_10.0.0.1",
		"?source=admin":  "inner a",
		"?source=file":   "edge user, edge user.path_/x, edge remote_address_10.0.0.1",
		"?source=xds":    "",
		"?domain=nobody": "",
	} {
		rules, _ := f.list(t, query)
		var got []string
		for _, r := range rules {
			got = append(got, r.Domain+" "+r.Path)
		}
		slices.Sort(got)
		sorted := strings.Split(want, ", ")
		slices.Sort(sorted)
		if strings.Join(got, ", ") != strings.Join(sorted, ", ") {
			t.Errorf("%s: got %q, want %q", query, got, sorted)
		}
	}
	f.send(t, http.MethodGet, "/admin/rules?source=somewhere", "").problem(t, http.StatusBadRequest, "about:blank")
	user := f.one(t, "user")
	if user.Source != "file" || !strings.HasSuffix(user.Location, "edge.yaml:3:5") || user.Rule["descriptors"] != nil || user.Rule["rate_limit"] == nil {
		t.Errorf("%+v", user)
	}
	var single listed
	r := f.send(t, http.MethodGet, "/admin/rules/"+user.Key, "")
	r.into(t, http.StatusOK, &single)
	_, etag := f.list(t, "")
	if single.Key != user.Key || r.header.Get("ETag") != etag {
		t.Errorf("%+v, ETag %s, want %s", single, r.header.Get("ETag"), etag)
	}
	f.send(t, http.MethodGet, "/admin/rules/nothing", "").problem(t, http.StatusNotFound, "about:blank")
	for _, known := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		if again := f.send(t, http.MethodGet, "/admin/rules", "", "If-None-Match", known); again.status != http.StatusNotModified || again.body != "" {
			t.Errorf("If-None-Match: %s: %d %s", known, again.status, again.body)
		}
	}
	for _, other := range []string{`"other"`, `"other", *`} {
		if again := f.send(t, http.MethodGet, "/admin/rules", "", "If-None-Match", other); again.status != http.StatusOK {
			t.Errorf("If-None-Match: %s: %d %s", other, again.status, again.body)
		}
	}
}

func TestAnAdminRuleOverridesAFile(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	key := f.one(t, "user").Key
	if got := f.apply(t, "", slower); got != "created user" {
		t.Errorf("changes: %s", got)
	}
	user := f.one(t, "user")
	if user.Key != key || user.Source != "admin" || user.Location != "admin" || user.Overrides == nil || user.Overrides.Source != "file" ||
		!strings.HasSuffix(user.Overrides.Location, "edge.yaml:3:5") || user.Overrides.Rule["rate_limit"] == nil {
		t.Errorf("%+v overrides %+v", user, user.Overrides)
	}
	expect(t, f.get(t, "/rlconfig"), "edge.user: unit=HOUR requests_per_unit=3", "edge.user.path_/x: unit=SECOND")
	if got := f.apply(t, "", slower); got != "unchanged user" {
		t.Errorf("the same again: %s", got)
	}
	if got := f.apply(t, "", strings.Replace(slower, "3", "4", 1)); got != "updated user" {
		t.Errorf("another: %s", got)
	}
	// A file that changes does not bring back an overridden rule.
	if err := f.load(t, strings.Replace(rules, "requests_per_unit: 10}", "requests_per_unit: 11}", 1)); err != nil {
		t.Fatal(err)
	}
	expect(t, f.get(t, "/rlconfig"), "edge.user: unit=HOUR requests_per_unit=4")
	var result writeResult
	f.send(t, http.MethodDelete, "/admin/rules/"+key, "").into(t, http.StatusOK, &result)
	if result.text() != "deleted user" || !result.InForce || result.Changes[0].After != nil {
		t.Errorf("%+v", result)
	}
	expect(t, f.get(t, "/rlconfig"), "edge.user: unit=MINUTE requests_per_unit=11")
	p := f.send(t, http.MethodDelete, "/admin/rules/"+key, "").problem(t, http.StatusConflict, notFromHere)
	if !strings.HasSuffix(p.Location, "edge.yaml:3:5") || !strings.Contains(p.Detail, "edge.yaml:3:5") {
		t.Errorf("%+v", p)
	}
	f.send(t, http.MethodDelete, "/admin/rules/aaaaaaaaaaaaaaaaaaaa", "").problem(t, http.StatusNotFound, "about:blank")
}

func TestReplaceAWholeDomain(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, "domain: edge\n"); err != nil {
		t.Fatal(err)
	}
	two := `{"domain": "inner", "descriptors": [
		{"key": "a", "rate_limit": {"unit": "second", "requests_per_unit": 1}},
		{"key": "b", "rate_limit": {"unit": "second", "requests_per_unit": 2}, "descriptors": [{"key": "c", "rate_limit": {"unlimited": true}}]}]}`
	if got := f.apply(t, "", two); got != "created a, created b, created b.c" {
		t.Errorf("changes: %s", got)
	}
	if got := f.apply(t, "?replace=1", `{"domain": "inner", "descriptors": [{"key": "b", "rate_limit": {"unit": "second", "requests_per_unit": 3}}]}`); got != "updated b, deleted a, deleted b.c" {
		t.Errorf("changes: %s", got)
	}
	if got := f.apply(t, "?replace=1", `{"domain": "inner", "descriptors": []}`); got != "deleted b" {
		t.Errorf("changes: %s", got)
	}
	if rules, _ := f.list(t, ""); len(rules) != 0 {
		t.Errorf("left: %+v", rules)
	}
	f.send(t, http.MethodPost, "/admin/rules?replace=yes", two).problem(t, http.StatusBadRequest, "about:blank")
}

// TestSeveralDocuments sends two domains at once: both change, or neither.
func TestSeveralDocuments(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, "domain: edge\n"); err != nil {
		t.Fatal(err)
	}
	const shop = "domain: shop\ndescriptors:\n- {key: a, rate_limit: {unit: second, requests_per_unit: 1}}\n"
	const bank = "domain: bank\ndescriptors:\n- {key: b, rate_limit: {unit: second, requests_per_unit: 2}}\n"
	var result writeResult
	f.send(t, http.MethodPost, "/admin/rules", shop+"---\n"+bank).into(t, http.StatusOK, &result)
	if got := result.text(); got != "created a, created b" || len(result.Warnings) > 0 {
		t.Errorf("changes: %s, warnings %v", got, result.Warnings)
	}
	if a, b := f.one(t, "a"), f.one(t, "b"); a.Domain != "shop" || b.Domain != "bank" || b.Source != "admin" {
		t.Errorf("%+v and %+v", a, b)
	}
	bad := strings.ReplaceAll(shop, "key: a", "key: c") + "---\n" + strings.Replace(bank, "second", "fortnight", 1)
	p := f.send(t, http.MethodPost, "/admin/rules", bad).problem(t, http.StatusUnprocessableEntity, invalidRules)
	if len(p.Problems) != 1 || p.Problems[0].Line != 7 {
		t.Errorf("problem %+v", p)
	}
	if rules, _ := f.list(t, ""); len(rules) != 2 {
		t.Errorf("left: %+v", rules)
	}
	if got := f.apply(t, "?replace=1", "domain: shop\ndescriptors: []\n---\ndomain: bank\ndescriptors: []\n"); got != "deleted a, deleted b" {
		t.Errorf("changes: %s", got)
	}
}

func TestDryRun(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	before, etag := f.list(t, "")
	if got := f.apply(t, "?dry_run=1", slower); got != "created user" {
		t.Errorf("changes: %s", got)
	}
	after, tag := f.list(t, "")
	if fmt.Sprint(before) != fmt.Sprint(after) || tag != etag {
		t.Errorf("a dry run changed rules: %+v", after)
	}
	f.apply(t, "", slower)
	var result writeResult
	f.send(t, http.MethodDelete, "/admin/rules/"+f.one(t, "user").Key+"?dry_run=1", "").into(t, http.StatusOK, &result)
	if !result.DryRun || result.InForce || result.Revision != 1 || result.text() != "deleted user" || f.one(t, "user").Source != "admin" {
		t.Errorf("%+v", result)
	}
	if n := f.audit.FilterMessage("admin write").Len(); n != 1 {
		t.Errorf("%d writes in the audit log, want 1", n)
	}
}

func TestProblemsHaveTheirPlace(t *testing.T) {
	f := newFixture(t)
	p := f.send(t, http.MethodPost, "/admin/rules", "domain: edge\ndescriptors:\n  - key: user\n    rate_limit: {unit: fortnight, requests_per_unit: -1}\n").
		problem(t, http.StatusUnprocessableEntity, invalidRules)
	if len(p.Problems) != 2 || p.Problems[0] != (config.Problem{Path: "descriptors[0].rate_limit.unit", Pos: config.Pos{Line: 4, Column: 24}, What: `unknown unit "fortnight"`, Remedy: "write second, minute, hour, day, week, month or year"}) {
		t.Errorf("%+v", p.Problems)
	}
	for body, want := range map[string]string{
		"[]":                        "want a mapping",
		"domain: [":                 "not YAML",
		`{"domain": "a"`:            "not YAML",
		"descriptors: []":           "domain",
		"domain: edge\nrules: [{}]": "rules",
	} {
		if p := f.send(t, http.MethodPost, "/admin/rules", body).problem(t, http.StatusUnprocessableEntity, invalidRules); !strings.Contains(p.Detail, want) {
			t.Errorf("%s: %+v, want %q", body, p, want)
		}
	}
	f.send(t, http.MethodPost, "/admin/rules", slower, "Content-Type", "text/plain").problem(t, http.StatusUnsupportedMediaType, "about:blank")
	f.send(t, http.MethodPost, "/admin/rules", slower, "Content-Type", "").problem(t, http.StatusUnsupportedMediaType, "about:blank")
	f.send(t, http.MethodPost, "/admin/rules", "#"+strings.Repeat("x", maxRules)).problem(t, http.StatusRequestEntityTooLarge, "about:blank")
	f.send(t, http.MethodPut, "/admin/rules", "").problem(t, http.StatusMethodNotAllowed, "about:blank")
	f.send(t, http.MethodGet, "/admin/nothing", "").problem(t, http.StatusNotFound, "about:blank")
}

// TestWarnings: a rule may refer to others in force without a warning.
func TestWarnings(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, "domain: edge\ndescriptors: [{key: user, rate_limit: {name: base, unit: hour, requests_per_unit: 3}}]\n"); err != nil {
		t.Fatal(err)
	}
	const body = "domain: edge\ndescriptors: [{key: vip, rate_limit: {unlimited: true, replaces: [{name: %s}]}}]\n"
	var result writeResult
	f.send(t, http.MethodPost, "/admin/rules", fmt.Sprintf(body, "base")).into(t, http.StatusOK, &result)
	if len(result.Warnings) != 0 {
		t.Errorf("%+v", result.Warnings)
	}
	result = writeResult{}
	f.send(t, http.MethodPost, "/admin/rules", fmt.Sprintf(body, "bass")).into(t, http.StatusOK, &result)
	if len(result.Warnings) != 1 || result.Warnings[0].Line != 2 || !strings.Contains(result.Warnings[0].What, "bass") {
		t.Errorf("%+v", result.Warnings)
	}
}

func TestIfMatch(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	_, first := f.list(t, "")
	r := f.send(t, http.MethodPost, "/admin/rules", slower, "If-Match", first)
	if second := r.header.Get("ETag"); r.status != http.StatusOK || second == first || second == "" {
		t.Fatalf("%d: ETag %s after %s", r.status, second, first)
	}
	f.send(t, http.MethodPost, "/admin/rules", slower, "If-Match", first).problem(t, http.StatusPreconditionFailed, changedMeanwhile)
	key := f.one(t, "user").Key
	f.send(t, http.MethodDelete, "/admin/rules/"+key, "", "If-Match", first).problem(t, http.StatusPreconditionFailed, changedMeanwhile)
	_, second := f.list(t, "")
	if second != r.header.Get("ETag") {
		t.Errorf("ETag %s, but %s was answered", second, r.header.Get("ETag"))
	}
	// A file that has changed is a change too.
	if err := f.load(t, strings.Replace(rules, "requests_per_unit: 10}", "requests_per_unit: 11}", 1)); err != nil {
		t.Fatal(err)
	}
	f.send(t, http.MethodDelete, "/admin/rules/"+key, "", "If-Match", second).problem(t, http.StatusPreconditionFailed, changedMeanwhile)
	_, third := f.list(t, "")
	if r := f.send(t, http.MethodDelete, "/admin/rules/"+key, "", "If-Match", third); r.status != http.StatusOK {
		t.Errorf("%d: %s", r.status, r.body)
	}
}

// TestIfMatchComparesStrongly sends the tag in force in several forms: RFC 9110 has a weak
// tag match nothing in If-Match.
func TestIfMatchComparesStrongly(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		form string // of the header; %s is the tag
		want int
	}{
		{"W/%s", http.StatusPreconditionFailed},
		{`"other", W/%s`, http.StatusPreconditionFailed},
		{`%s, *`, http.StatusOK}, // the tag is in it
		{`"other", *`, http.StatusPreconditionFailed},
		{`"other", %s`, http.StatusOK},
		{"*", http.StatusOK},
	} {
		_, tag := f.list(t, "")
		header := strings.Replace(tt.form, "%s", tag, 1)
		if r := f.send(t, http.MethodPost, "/admin/rules", slower, "If-Match", header); r.status != tt.want {
			t.Errorf("If-Match: %s: %d %s", tt.form, r.status, r.body)
		}
	}
}

// TestConcurrentWrites creates rules from many clients at once: all of them are kept.
func TestConcurrentWrites(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, "domain: edge\n"); err != nil {
		t.Fatal(err)
	}
	const clients = 40
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			body := fmt.Sprintf("domain: edge\ndescriptors: [{key: k%d, rate_limit: {unlimited: true}}]\n", i)
			if got := f.apply(t, "", body); got != fmt.Sprintf("created k%d", i) {
				t.Errorf("changes: %s", got)
			}
		})
	}
	all.Wait()
	if rules, _ := f.list(t, ""); len(rules) != clients {
		t.Errorf("rules: %+v", rules)
	}
}

// TestABrokenFileStopsNoAdminRule changes rules while a file is broken.
func TestABrokenFileStopsNoAdminRule(t *testing.T) {
	f := newFixture(t)
	f.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	if got := f.get(t, "/healthcheck"); got != "OK" {
		t.Errorf("healthy: %q", got)
	}
	if err := f.load(t, "domain: ["); err == nil {
		t.Fatal("a broken file was loaded")
	}
	var result writeResult
	f.send(t, http.MethodPost, "/admin/rules", slower).into(t, http.StatusOK, &result)
	if !result.InForce || result.Revision != 1 || len(result.Problems) != 0 {
		t.Errorf("%+v", result)
	}
	if got := f.one(t, "user"); got.Source != "admin" || got.Overrides == nil {
		t.Errorf("in force is %+v", got)
	}
	expect(t, f.get(t, "/healthcheck"), "OK\nrules from file: bad, the last good ones stay")
	expect(t, f.get(t, "/metrics"), `ratelimit_config_source_last_load_successful{source="file"} 0`,
		`ratelimit_config_source_last_load_successful{source="admin"} 1`, `ratelimit_config_source_failures_total{source="file"} 2`,
		"ratelimit_config_last_reload_successful 0")
	expect(t, f.get(t, "/admin/reloads"), `"outcome":"partly"`, `"source":"file","state":"bad","in_force":true`, "edge.yaml:2:1: not YAML")
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	if got := f.get(t, "/healthcheck"); got != "OK" {
		t.Errorf("healthy again: %q", got)
	}
}

// TestStoredButNotInForce makes the limiter refuse the rules.
func TestStoredButNotInForce(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	full := true
	f.rules.Subscribe(func(*config.Rules) error {
		if full {
			return errors.New("no room")
		}
		return nil
	})
	var result writeResult
	f.send(t, http.MethodPost, "/admin/rules", slower).into(t, http.StatusAccepted, &result)
	if result.InForce || result.Revision != 1 || len(result.Problems) != 1 || result.Problems[0] != "no room" {
		t.Errorf("%+v", result)
	}
	if got := f.one(t, "user").Source; got != "file" {
		t.Errorf("in force is the rule of %s", got)
	}
	full = false
	if err := f.rules.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.one(t, "user").Source; got != "admin" {
		t.Errorf("in force is the rule of %s", got)
	}
}

// TestAChangeMayTakeLongerThanTheTimeToWrite reloads for longer than the HTTP server gives
// an answer.
func TestAChangeMayTakeLongerThanTheTimeToWrite(t *testing.T) {
	const timeout = 50 * time.Millisecond
	f := newFixture(t, func(o *Options) {
		reload := o.Reload
		o.Reload = func(ctx context.Context) error {
			<-time.After(2 * timeout)
			return reload(ctx)
		}
	})
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	slow := httptest.NewUnstartedServer(f.server.Config.Handler)
	slow.Config.WriteTimeout = timeout
	slow.Start()
	t.Cleanup(slow.Close)
	slow.Client().Transport = f.server.Client().Transport
	f.server.Close()
	f.server = slow
	var result writeResult
	f.send(t, http.MethodPost, "/admin/rules", slower).into(t, http.StatusOK, &result)
	if !result.InForce {
		t.Errorf("%+v", result)
	}
}

func TestNoPlaceToKeepRules(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Store = nil })
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	p := f.send(t, http.MethodPost, "/admin/rules", slower).problem(t, http.StatusNotImplemented, noRuleStore)
	if !strings.Contains(p.Detail, "Admin.RulesFile") {
		t.Errorf("%+v", p)
	}
	if got := f.apply(t, "?dry_run=1", slower); got != "created user" {
		t.Errorf("a dry run: %s", got)
	}
	if !strings.Contains(f.get(t, "/admin/rules"), `"writable":false`) {
		t.Error("writable")
	}
}

// awayStore is a store that does not answer.
type awayStore struct{ rulestore.Store }

func (awayStore) Load(context.Context) (rulestore.Set, error) {
	return rulestore.Set{}, fmt.Errorf("%w: for the test", rulestore.ErrUnavailable)
}

// fullStore is a store that can't save.
type fullStore struct{ rulestore.Store }

func (fullStore) Save(context.Context, rulestore.Set, rulestore.Set) error {
	return errors.New("no space left on device")
}

func TestStoreThatFails(t *testing.T) {
	away := newFixture(t, func(o *Options) { o.Store.Store = awayStore{o.Store.Store} })
	if err := away.load(t, rules); err != nil {
		t.Fatal(err)
	}
	away.send(t, http.MethodPost, "/admin/rules", slower).problem(t, http.StatusServiceUnavailable, storeFailed)
	if rules, _ := away.list(t, ""); len(rules) != 3 {
		t.Errorf("rules: %+v", rules)
	}
	full := newFixture(t, func(o *Options) { o.Store.Store = fullStore{o.Store.Store} })
	p := full.send(t, http.MethodPost, "/admin/rules", slower).problem(t, http.StatusServiceUnavailable, storeFailed)
	if !strings.Contains(p.Detail, "no space left") {
		t.Errorf("%+v", p)
	}
	if n := full.audit.FilterMessage("admin write").Len(); n != 0 {
		t.Errorf("%d writes in the audit log", n)
	}
}

func TestAudit(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, "domain: edge\n"); err != nil {
		t.Fatal(err)
	}
	f.apply(t, "", slower)
	f.apply(t, "", strings.Replace(slower, "3", "4", 1))
	lines := f.audit.FilterMessage("admin write").All()
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	fields := lines[1].ContextMap()
	text, err := json.Marshal(fields["changes"])
	if err != nil {
		t.Fatal(err)
	}
	if fields["who"] != "loopback" || fields["method"] != "POST" || fields["path"] != "/admin/rules" || fields["revision"] != uint64(2) ||
		fields["what"] != "rules" || !strings.HasPrefix(fields["remote"].(string), "127.0.0.1:") {
		t.Errorf("%v", fields)
	}
	expect(t, string(text), `"before":{"key":"user","rate_limit":{"requests_per_unit":3`, `"after":{"key":"user","rate_limit":{"requests_per_unit":4`)
}
