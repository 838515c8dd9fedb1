package rulestore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/rulestore"
)

// restarted returns what a new process makes of a file.
func restarted(t testing.TB, path string) (*rulestore.Provider, []rulefile.Source, error) {
	t.Helper()
	store, err := rulestore.NewFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := &rulestore.Provider{Store: store, Log: zap.NewNop()}
	sources, err := p.Sources(context.Background())
	return p, sources, err
}

// FuzzWhatIsAcceptedLoadsAgain saves rules of any bytes, as a client would send them
// in JSON and in YAML: they are refused, or a new process has the same rules.
func FuzzWhatIsAcceptedLoadsAgain(f *testing.F) {
	for _, text := range []string{"user", "a\u007f", "\x00", "a\u0085b", "\u2028", "\ufeff", "\ufffe", "\x1b[0m", "<<", "yes", "~", "0x1F", "1e3", " a ", "a: b", "#", "\"", "\\", "a\nb", "é", "\U0001f600", "\xff", "</script>", strings.Repeat("k", 1100)} {
		f.Add(text, text, text, text, true)
		f.Add("edge", text, "", "", false)
	}
	f.Fuzz(func(t *testing.T, name, key, value, meta string, asJSON bool) {
		limit := map[string]any{"unit": "day", "requests_per_unit": 1, "name": value, "raw_body": meta, "replaces": []any{map[string]any{"name": key}}}
		document := map[string]any{"domain": name, "descriptors": []any{map[string]any{
			"key": key, "value": value, "rate_limit": limit, "metadata": map[string]any{meta: []any{key, map[string]any{value: meta}}},
			"descriptors": []any{map[string]any{"key": value + "x", "rate_limit": map[string]any{"unlimited": true}}},
		}}}
		var body []byte
		var err error
		if asJSON {
			body, err = json.Marshal(document)
		} else {
			body, err = yaml.Marshal(document)
		}
		if err != nil {
			t.Skip()
		}
		rules, err := rulefile.Parse([]rulefile.Source{{Name: "body", Data: body, Origin: config.FromAdmin}}, rulefile.Options{})
		if err != nil {
			return
		}
		want, domainName := rules.String(), rules.Domains[0].Name // bytes that are no UTF-8 are others in JSON
		path := filepath.Join(t.TempDir(), "admin.json")
		p, _, err := restarted(t, path)
		if err != nil {
			t.Fatal(err)
		}
		next, _, err := rulestore.Set{}.Put(rules.Domains[0], false)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Save(t.Context(), rulestore.Set{}, next); err != nil {
			if _, err := os.Stat(path); err == nil {
				t.Fatal("refused, but stored")
			}
			return
		}
		again, sources, err := restarted(t, path)
		if err != nil {
			t.Fatalf("accepted, but a new process has: %v", err)
		}
		loaded, err := rulefile.Parse(sources, rulefile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := loaded.String(); got != want {
			t.Fatalf("accepted\n%q\nbut a new process has\n%q", want, got)
		}
		stored, err := again.Load(t.Context())
		if err != nil || stored.Token() != next.Token() {
			t.Fatalf("token %s, want %s; error %v", stored.Token(), next.Token(), err)
		}
		var texts [2]bytes.Buffer
		for i, set := range []rulestore.Set{next, stored} {
			if err := json.Compact(&texts[i], set.Domains[domainName]); err != nil {
				t.Fatal(err)
			}
		}
		if texts[0].String() != texts[1].String() {
			t.Fatalf("stored %q, loaded %q", &texts[0], &texts[1])
		}
	})
}

// TestTheDoorRefusesWhatIsTooLarge adds to a domain until its stored form is over the
// bound: what was there stays.
func TestTheDoorRefusesWhatIsTooLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("it parses megabytes several times")
	}
	store, path := newFile(t)
	p := &rulestore.Provider{Store: store, MaxBytes: 1 << 20, Log: zap.NewNop()}
	body := strings.Repeat("x", 65_000)
	saved := 0
	for i := range 6 {
		prev, err := p.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d := &config.Domain{Name: "edge"}
		for j := range 4 { // 260 KB
			one := domain(t, perUser(1)).Descriptors[0]
			one.Value = fmt.Sprintf("%d-%d", i, j)
			one.Limits[0].RawBody = body
			d.Descriptors = append(d.Descriptors, one)
		}
		next, _, err := prev.Put(d, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Save(t.Context(), prev, next); err == nil {
			saved++
		} else if !errors.Is(err, rulestore.ErrTooLarge) {
			t.Fatal(err)
		}
	}
	if saved != 4 {
		t.Errorf("%d of 260 KB each saved, want 4: the bound is 1 MiB", saved)
	}
	if _, sources, err := restarted(t, path); err != nil || len(sources) != 1 {
		t.Errorf("a new process has %d sources, error %v", len(sources), err)
	}
}

// TestTheDoorAsksTheOthers has the rules of other providers refuse a set.
func TestTheDoorAsksTheOthers(t *testing.T) {
	store, path := newFile(t)
	p := &rulestore.Provider{Store: store, Log: zap.NewNop(), Check: func(sources []rulefile.Source) error {
		if len(sources) != 1 || sources[0].Origin != config.FromAdmin {
			t.Errorf("asked about %v", sources)
		}
		return errors.New("no room beside them")
	}}
	next, _ := put(t, rulestore.Set{}, perUser(5), false)
	if err := p.Save(t.Context(), rulestore.Set{}, next); err == nil || err.Error() != "no room beside them" {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("stored")
	}
}

const twoDomains = `{"revision": 7, "domains": {
	"edge": {"domain": "edge", "descriptors": [{"key": "user", "rate_limit": {"unit": "minute", "requests_per_unit": 5}}]},
	"inner": %s}}`

// TestADamagedDomainIsSetAside damages one of two domains, under a process that has
// loaded them and for one that starts.
func TestADamagedDomainIsSetAside(t *testing.T) {
	good := `{"domain": "inner", "descriptors": [{"key": "a", "rate_limit": {"unlimited": true}}]}`
	for name, bad := range map[string]string{
		"no rules":           `{"domain": "inner", "descriptors": 5}`,
		"a newer grammar":    `{"domain": "inner", "weather": "fine"}`,
		"a character":        "{\"domain\": \"inner\", \"descriptors\": [{\"key\": \"a\u007f\"}]}",
		"of another name":    `{"domain": "edge", "descriptors": []}`,
		"of no domain":       `{}`,
		"something else yet": `"x"`,
	} {
		t.Run(name, func(t *testing.T) {
			store, path := newFile(t)
			write := func(inner string) {
				t.Helper()
				if err := os.WriteFile(path, []byte(strings.Replace(twoDomains, "%s", inner, 1)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(good)
			running := &rulestore.Provider{Store: store, Log: zaptest.NewLogger(t)}
			if sources, err := running.Sources(t.Context()); err != nil || len(sources) != 2 {
				t.Fatalf("%d sources, error %v", len(sources), err)
			}
			write(bad)
			sources, err := running.Sources(t.Context())
			if _, partial := errors.AsType[*reload.Partial](err); !partial || len(sources) != 2 || !strings.Contains(string(sources[1].Data), `"unlimited":true`) {
				t.Errorf("running: %d sources, error %v", len(sources), err)
			}
			started, sources, err := restarted(t, path)
			if _, partial := errors.AsType[*reload.Partial](err); !partial || len(sources) != 1 || !strings.Contains(err.Error(), `"inner"`) {
				t.Errorf("started: %d sources, error %v", len(sources), err)
			}

			// A change of the other domain leaves it alone; one of this mends it.
			set, err := started.Load(t.Context())
			if err != nil || set.Unusable("inner") == nil || set.Unusable("edge") != nil {
				t.Fatalf("error %v, aside %v", err, set.Unusable("inner"))
			}
			next, _ := put(t, set, perUser(6), false)
			mustSave(t, started, set, next)
			if _, sources, err := restarted(t, path); err == nil || len(sources) != 1 || !strings.Contains(string(sources[0].Data), `"requests_per_unit":6`) {
				t.Errorf("%d sources, error %v", len(sources), err)
			}
			set, err = running.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var id string
			for r := range domain(t, good).All() {
				id = r.ID()
			}
			next, change, err := set.Delete(id) // known here to be the last good
			if err != nil || change == nil {
				t.Fatalf("deleted %+v, error %v", change, err)
			}
			mustSave(t, running, set, next)
			if _, sources, err := restarted(t, path); err != nil || len(sources) != 1 {
				t.Errorf("mended: %d sources, error %v", len(sources), err)
			}
		})
	}
}

// TestAFileThatIsNoSetIsReplacedByTheNextChange holds that what was there is kept,
// and that a file of something else is left alone.
func TestAFileThatIsNoSetIsReplacedByTheNextChange(t *testing.T) {
	for _, tt := range []struct {
		text     string
		replaced bool
	}{
		{"", true},
		{"\x00\x00\x00", true},
		{`{"revision": 1, "domains": {`, true},
		{`{"revision": 0, "domains": {}}`, true},
		{`{"revision": 18446744073709551615, "domains": {}}`, true},
		{"domain: edge\ndescriptors: []\n", false},
		{"root:x:0:0:root:/root:/bin/sh\n", false},
	} {
		store, path := newFile(t)
		p := &rulestore.Provider{Store: store, Log: zaptest.NewLogger(t)}
		first, _ := put(t, rulestore.Set{}, perUser(5), false)
		mustSave(t, p, rulestore.Set{}, first)
		if _, err := p.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		known, err := p.Load(t.Context())
		if !errors.Is(err, rulestore.ErrUnusable) || len(known.Domains) != 1 {
			t.Fatalf("%q: known %+v, error %v", tt.text, known, err)
		}
		sources, err := p.Sources(t.Context())
		if _, partial := errors.AsType[*reload.Partial](err); !partial || len(sources) != 1 || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %d sources, error %v", tt.text, len(sources), err)
		}
		next, changes := put(t, known, perUser(5), false)
		if changes != "unchanged user" {
			t.Errorf("%q: %s", tt.text, changes)
		}
		if err := p.Save(t.Context(), known, next); (err == nil) != tt.replaced {
			t.Errorf("%q: saved with error %v", tt.text, err)
		}
		kept := path
		if tt.replaced {
			kept += ".unusable"
			if _, sources, err := restarted(t, path); err != nil || len(sources) != 1 {
				t.Errorf("%q: a new process has %d sources, error %v", tt.text, len(sources), err)
			}
		}
		if text, err := os.ReadFile(kept); err != nil || string(text) != tt.text {
			t.Errorf("%q: kept %q, error %v", tt.text, text, err)
		}
	}
}

// TestRedisHoldsSomethingElseUntilTheNextChange damages what three replicas share, of
// which one is restarted meanwhile and mends it.
func TestRedisHoldsSomethingElseUntilTheNextChange(t *testing.T) {
	for name, damage := range map[string]func(*redistest.Server){
		"cut": func(s *redistest.Server) {
			s.Do("HSET", "test:admin-rules", "set", `{"revision": 3, "dom`, "token", "9-x")
		},
		"without token": func(s *redistest.Server) {
			s.Do("HDEL", "test:admin-rules", "token", "set")
			s.Do("HSET", "test:admin-rules", "x", "y")
		},
		"no hash": func(s *redistest.Server) { s.Do("SET", "test:admin-rules", "garbage") },
		"a bad domain": func(s *redistest.Server) {
			s.Do("HSET", "test:admin-rules", "token", "9-y", "set", "{\"revision\": 9, \"domains\": {\"edge\": {\"domain\": \"edge\", \"descriptors\": [{\"key\": \"a\u007f\"}]}}}")
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, redistest.Config{})
			a, b := start(t, server, ""), start(t, server, "")
			a.change(t, 5)
			a.change(t, 6)
			for _, r := range []*replica{a, b} {
				r.await(t, "requests_per_unit=6")
			}
			damage(server)
			for _, r := range []*replica{a, b} {
				r.awaitState(t, reload.SourceBad)
				if got := r.rules.Rules().String(); !strings.Contains(got, "requests_per_unit=6") {
					t.Errorf("in force are %s", got)
				}
			}
			c := start(t, server, "") // it knows nothing of what was
			c.awaitState(t, reload.SourceBad)
			c.change(t, 7)
			for _, r := range []*replica{a, b, c} {
				r.await(t, "requests_per_unit=7")
				r.awaitState(t, reload.SourceGood)
			}
		})
	}
}

// TestAKeyThatIsDeletedStaysDeleted deletes the key in Redis: no replica undoes that,
// be it cut off meanwhile or restarted with a copy.
func TestAKeyThatIsDeletedStaysDeleted(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	file := filepath.Join(t.TempDir(), "copy.json")
	a, b := start(t, server, ""), start(t, server, file)
	a.change(t, 5)
	a.change(t, 6)
	b.await(t, "requests_per_unit=6")
	b.cut.Store(true)
	server.Do("DEL", "test:admin-rules")
	a.awaitGone(t)
	start(t, server, file).awaitGone(t) // though its copy has them
	b.cut.Store(false)
	b.awaitGone(t)
	if got := server.Text("EXISTS", "test:admin-rules"); got != "0" {
		t.Errorf("the key is back: %s", got)
	}
	set := a.change(t, 8)
	if set.Revision != 3 {
		t.Errorf("revision %d after a deletion, want 3", set.Revision)
	}
	b.await(t, "requests_per_unit=8")
	server.Restart() // all of it is lost: that is no deletion
	start(t, server, "").await(t, "requests_per_unit=8")
}
