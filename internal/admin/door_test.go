package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/rulestore"
)

// TestAControlCharacterIsStoredSoThatItLoads writes keys that YAML takes only when
// they are escaped, and starts anew with them.
func TestAControlCharacterIsStoredSoThatItLoads(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{`a\u007f`, `b\u0085c`, `d\u009f`, `e\ufeff`, `f\u0000`, `g\uffff`} {
		body := `{"domain":"edge","descriptors":[{"key":"` + key + `","rate_limit":{"unit":"day","requests_per_unit":1}}]}`
		var result writeResult
		f.send(t, http.MethodPost, "/admin/rules", body).into(t, http.StatusOK, &result)
		if !result.InForce {
			t.Errorf("%s: %+v", key, result)
		}
	}
	store, err := rulestore.NewFile(filepath.Join(filepath.Dir(f.file), "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&reload.Files{Paths: []string{f.file}}, &rulestore.Provider{Store: store}}})
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := c.Rules().String(), f.rules.Rules().String(); got != want {
		t.Errorf("after a restart:\n%q\nbefore:\n%q", got, want)
	}
}

// TestAliasesDoNotExpand sends 100 KB of YAML of which aliases would make 68 MB.
func TestAliasesDoNotExpand(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"a value": "domain: edge\ndescriptors:\n  - {key: k, rate_limit: {unit: day, requests_per_unit: 1, raw_body: &b " + strings.Repeat("x", 65_000) + "}}\n" +
			strings.Repeat("  - {key: k, value: v%d, rate_limit: {unit: day, requests_per_unit: 1, raw_body: *b}}\n", 1_050),
		"a limit": "domain: edge\ndescriptors:\n  - {key: k, rate_limit: &l {unit: day, requests_per_unit: 1, raw_body: " + strings.Repeat("x", 65_000) + "}}\n" +
			strings.Repeat("  - {key: k, value: v%d, rate_limit: *l}\n", 1_050),
		"a key of metadata": "domain: edge\ndescriptors:\n  - {key: k, metadata: {? &m " + strings.Repeat("x", 65_000) + " : 1}, rate_limit: {unlimited: true}}\n" +
			strings.Repeat("  - {key: k, value: v%d, metadata: {? *m : 1}, rate_limit: {unlimited: true}}\n", 1_050),
	} {
		numbers := make([]any, 1_050)
		for i := range numbers {
			numbers[i] = i
		}
		body = fmt.Sprintf(body, numbers...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p := f.send(t, http.MethodPost, "/admin/rules", body).problem(t, http.StatusUnprocessableEntity, invalidRules)
		runtime.ReadMemStats(&after)
		if !strings.Contains(p.Detail, "aliases expand to more than 16777216 bytes of text") {
			t.Errorf("%s: %s", name, p.Detail)
		}
		if grown := (after.TotalAlloc - before.TotalAlloc) >> 20; grown > 60 {
			t.Errorf("%s: %d MB allocated", name, grown)
		}
	}
}

// TestAnAuditLineIsBounded writes many rules, large rules, and long names.
func TestAnAuditLineIsBounded(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	many := "domain: many\ndescriptors:\n"
	for i := range 5_000 {
		many += fmt.Sprintf("  - {key: k%d, rate_limit: {unlimited: true}}\n", i)
	}
	for body, omitted := range map[string]bool{
		many: true,
		"domain: " + strings.Repeat("d", 100_000) + "\ndescriptors: [{key: " + strings.Repeat("k", 100_000) + ", rate_limit: {unit: day, requests_per_unit: 1, raw_body: " + strings.Repeat("x", 60_000) + "}}]\n": false,
	} {
		f.apply(t, "", body)
		lines := f.audit.FilterMessage("admin write").TakeAll()
		_ = f.audit.TakeAll()
		if len(lines) != 1 {
			t.Fatalf("%d lines", len(lines))
		}
		fields := lines[0].ContextMap()
		text, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 100_000 {
			t.Errorf("%d bytes in a line", len(text))
		}
		if _, some := fields["changes_omitted"]; some != omitted || !strings.Contains(string(text), `"change":"created"`) {
			t.Errorf("omitted %v: %.500s", fields["changes_omitted"], text)
		}
	}
}

// TestWritesTakeNoUnknownParameter misspells the parameter that prevents a write.
func TestWritesTakeNoUnknownParameter(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	f.apply(t, "", slower)
	key := f.one(t, "user").Key
	reset := `{"domain":"edge","entries":[{"key":"user","value":"a"}]}`
	for _, tt := range []struct{ method, path, body, want string }{
		{http.MethodPost, "/admin/rules?dryrun=1", slower, `unknown parameter "dryrun": use dry_run, replace`},
		{http.MethodPost, "/admin/rules?DRY_RUN=1", slower, "DRY_RUN"},
		{http.MethodPost, "/admin/rules?dry_run", slower, "dry_run has no value"},
		{http.MethodPost, "/admin/rules?dry_run=", slower, "dry_run has no value"},
		{http.MethodPost, "/admin/rules?dry_run=true", slower, "dry_run=true: use 0 or 1"},
		{http.MethodPost, "/admin/rules?dry_run=0&dry_run=1", slower, "dry_run is given 2 times"},
		{http.MethodPost, "/admin/rules?replace=1;dry_run=1", slower, "semicolon"},
		{http.MethodPost, "/admin/rules?dry_run=%zz", slower, "%zz"},
		{http.MethodDelete, "/admin/rules/" + key + "?dryrun=1", "", `unknown parameter "dryrun": use dry_run`},
		{http.MethodDelete, "/admin/rules/" + key + "?replace=1", "", "replace"},
		{http.MethodPost, "/admin/reset?dry_run=1", reset, `unknown parameter "dry_run": there are none`},
	} {
		p := f.send(t, tt.method, tt.path, tt.body).problem(t, http.StatusBadRequest, "about:blank")
		if !strings.Contains(p.Detail, tt.want) {
			t.Errorf("%s %s: %s, want %q", tt.method, tt.path, p.Detail, tt.want)
		}
	}
	if got := f.one(t, "user"); got.Source != "admin" {
		t.Errorf("in force is %+v", got)
	}
	for _, path := range []string{"/admin/rules?dryrun=1", "/admin/rules/" + key + "?x", "/admin/stats?x=1", "/admin/reloads?x", "/healthcheck?x", "/metrics?x", "/rules/status?x"} {
		if r := f.send(t, http.MethodGet, path, ""); r.status == http.StatusBadRequest {
			t.Errorf("%s: %s", path, r.body)
		}
	}
}

// TestTheAPIMendsWhatIsStored damages the store of a running service. Reads go on from
// memory, and each kind of write repairs the store.
func TestTheAPIMendsWhatIsStored(t *testing.T) {
	const bad = `{"revision": 9, "domains": {"edge": {"domain": "edge", "descriptors": [{"key": "a"}], "weather": "fine"}, "inner": {"domain": "inner", "descriptors": [{"key": "b", "rate_limit": {"unlimited": true}}]}}}`
	for name, damaged := range map[string]string{"a domain": bad, "all of it": bad[:60], "nothing": ""} {
		if testing.Short() && name != "a domain" {
			continue
		}
		for way, write := range map[string]func(*fixture, string) reply{
			"POST": func(f *fixture, _ string) reply { return f.send(t, http.MethodPost, "/admin/rules", slower) },
			"replace": func(f *fixture, _ string) reply {
				return f.send(t, http.MethodPost, "/admin/rules?replace=1", slower)
			},
			"DELETE": func(f *fixture, key string) reply { return f.send(t, http.MethodDelete, "/admin/rules/"+key, "") },
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				f := newFixture(t)
				if err := f.load(t, rules); err != nil {
					t.Fatal(err)
				}
				f.apply(t, "", slower)
				f.apply(t, "", "domain: inner\ndescriptors: [{key: b, rate_limit: {unlimited: true}}]")
				key := f.one(t, "user").Key
				if err := os.WriteFile(filepath.Join(filepath.Dir(f.file), "admin.json"), []byte(damaged), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := f.rules.Reload(t.Context()); err == nil {
					t.Error("nobody has noticed")
				}
				if got := f.one(t, "user"); got.Source != "admin" {
					t.Errorf("in force is %+v", got)
				}
				expect(t, f.get(t, "/metrics"), `ratelimit_config_source_last_load_successful{source="admin"} 0`)
				var result writeResult
				write(f, key).into(t, http.StatusOK, &result)
				if !result.InForce || len(result.Problems) != 0 {
					t.Errorf("%+v", result)
				}
				expect(t, f.get(t, "/metrics"), `ratelimit_config_source_last_load_successful{source="admin"} 1`)
				if source := f.one(t, "user").Source; (source == "file") != (way == "DELETE") {
					t.Errorf("in force is the rule of %s", source)
				}
				if source := f.one(t, "b").Source; source != "admin" {
					t.Errorf("the other domain is lost: %s", source)
				}
			})
		}
	}
}
