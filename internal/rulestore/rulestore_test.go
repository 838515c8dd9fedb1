package rulestore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/zap/zaptest"
	"pgregory.net/rapid"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/ownfile"
	"github.com/distlimiter/ratelimit/internal/rulestore"
)

func domain(t rapid.TB, yaml string) *config.Domain {
	t.Helper()
	rules, err := rulefile.Parse([]rulefile.Source{{Name: "test", Data: []byte(yaml)}}, rulefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return rules.Domains[0]
}

// perUser is a domain with one rule.
func perUser(limit int) string {
	return fmt.Sprintf("domain: edge\ndescriptors: [{key: user, rate_limit: {unit: minute, requests_per_unit: %d}}]", limit)
}

func put(t rapid.TB, s rulestore.Set, yaml string, replace bool) (rulestore.Set, string) {
	t.Helper()
	next, changes, err := s.Put(domain(t, yaml), replace)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, c := range changes {
		if (c.Before == nil) != (c.Kind == rulestore.Created) || (c.After == nil) != (c.Kind == rulestore.Deleted) {
			t.Errorf("%s %s: before %s, after %s", c.Kind, c.Path, c.Before, c.After)
		}
		texts = append(texts, string(c.Kind)+" "+c.Path)
	}
	return next, strings.Join(texts, ", ")
}

// inForce lists the limits that a store gives the configuration.
func inForce(t rapid.TB, store rulestore.Store) string {
	t.Helper()
	p := &rulestore.Provider{Store: store, Log: zaptest.NewLogger(t.(testing.TB))}
	sources, err := p.Sources(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	rules, err := rulefile.Parse(sources, rulefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return rules.String()
}

func TestEdits(t *testing.T) {
	const two = `
domain: edge
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 6}
    descriptors: [{key: path, value: /x, rate_limit: {unit: second, requests_per_unit: 1}}]
`
	var s rulestore.Set
	for _, step := range []struct {
		yaml     string
		replace  bool
		changes  string
		revision uint64
	}{
		{perUser(5), false, "created user", 1},
		{perUser(5), false, "unchanged user", 1},
		{two, false, "updated user, created user.path_/x", 2},
		{perUser(7), false, "updated user", 3},
		{"domain: inner\ndescriptors: [{key: a, rate_limit: {unlimited: true}}]", true, "created a", 4},
		{perUser(7), true, "unchanged user, deleted user.path_/x", 5},
		{two, true, "updated user, created user.path_/x", 6},
		{"domain: inner", true, "deleted a", 7},
	} {
		before := s
		var changes string
		if s, changes = put(t, s, step.yaml, step.replace); changes != step.changes || s.Revision != step.revision {
			t.Fatalf("%s\ngave revision %d: %s\nwant %d: %s", step.yaml, s.Revision, changes, step.revision, step.changes)
		}
		if (before.Token() == s.Token()) != (before.Revision == s.Revision) {
			t.Errorf("%s: token %s after %s", changes, s.Token(), before.Token())
		}
	}
	if len(s.Domains) != 1 {
		t.Errorf("an empty domain is kept: %s", s.Domains)
	}
	var path string
	for r := range domain(t, two).All() {
		path = r.ID()
	}
	s, change, err := s.Delete(path)
	if err != nil || change == nil || change.Kind != rulestore.Deleted || change.Path != "user.path_/x" || s.Revision != 8 || change.Before == nil {
		t.Fatalf("deleted %+v, error %v, revision %d", change, err, s.Revision)
	}
	if again, change, err := s.Delete(path); err != nil || change != nil || again.Revision != 8 {
		t.Errorf("deleted twice: %+v, error %v, revision %d", change, err, again.Revision)
	}
}

func TestConsumeIsKept(t *testing.T) {
	var s rulestore.Set
	s, _ = put(t, s, "consume: all_or_nothing\n"+perUser(5), false)
	s, _ = put(t, s, perUser(6), false)
	if got := string(s.Domains["edge"]); !strings.Contains(got, "all_or_nothing") {
		t.Errorf("lost: %s", got)
	}
	s, _ = put(t, s, "consume: each\n"+perUser(6), false)
	if got := string(s.Domains["edge"]); !strings.Contains(got, `"each"`) {
		t.Errorf("each does not override a file's all_or_nothing: %s", got)
	}
}

func newFile(t testing.TB) (store *rulestore.File, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "admin.json")
	store, err := rulestore.NewFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return store, path
}

func mustSave(t testing.TB, s rulestore.Store, prev, next rulestore.Set) {
	t.Helper()
	if err := s.Save(context.Background(), prev, next); err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	store, path := newFile(t)
	if got := inForce(t, store); got != "" {
		t.Errorf("without a file: %s", got)
	}
	first, _ := put(t, rulestore.Set{}, perUser(5), false)
	mustSave(t, store, rulestore.Set{}, first)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	again, err := rulestore.NewFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := inForce(t, again); !strings.Contains(got, "requests_per_unit=5") {
		t.Errorf("after a restart: %s", got)
	}
	loaded, err := again.Load(context.Background())
	if err != nil || loaded.Token() != first.Token() {
		t.Fatalf("loaded %+v, error %v", loaded, err)
	}
	if same, changes := put(t, loaded, perUser(5), false); same.Revision != 1 {
		t.Errorf("what was loaded differs from what was saved: %s", changes)
	}
	second, _ := put(t, loaded, perUser(6), false)
	mustSave(t, again, loaded, second)
	if err := store.Save(context.Background(), first, second); !errors.Is(err, rulestore.ErrConflict) {
		t.Errorf("saved over another's change: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, error %v", entries, err)
	}
}

func TestFileThatIsNoSet(t *testing.T) {
	store, path := newFile(t)
	for _, tt := range []struct{ text, want string }{
		{"", "EOF"},
		{`{"revision": 1, "domains": {}`, "unexpected EOF"},
		{`{"revision": 1, "domains": {}} {}`, "something follows"},
		{`{"revision": 1, "rules": {}}`, "unknown field"},
		{`{}`, "not a file of admin rules"},
		{`{"domains": {}}`, "no revision"},
		{"domain: edge\n", "not a file of admin rules"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := (&rulestore.Provider{Store: store, Log: zaptest.NewLogger(t)}).Sources(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: error %v, want one with %q and the path", tt.text, err, tt.want)
		}
		set, _ := put(t, rulestore.Set{}, perUser(5), false)
		if err := store.Save(t.Context(), rulestore.Set{}, set); err == nil {
			t.Errorf("%q was overwritten", tt.text)
		}
	}
	if _, err := rulestore.NewFile(filepath.Join(path, "beneath", "admin.json")); err == nil {
		t.Error("a file in no directory was accepted")
	}
}

func TestFileThatCannotBeWritten(t *testing.T) {
	store, path := newFile(t)
	first, _ := put(t, rulestore.Set{}, perUser(5), false)
	mustSave(t, store, rulestore.Set{}, first)
	second, _ := put(t, first, perUser(6), false)
	// A link is refused for root too.
	kept := path + ".kept"
	if err := errors.Join(os.Rename(path, kept), os.Symlink(kept, path)); err != nil {
		t.Fatal(err)
	}
	if err := store.Save(t.Context(), first, second); err == nil {
		t.Error("saved")
	}
	if err := os.Rename(kept, path); err != nil {
		t.Fatal(err)
	}
	if got := inForce(t, store); !strings.Contains(got, "requests_per_unit=5") {
		t.Errorf("in force: %s", got)
	}
}

func TestFileWatch(t *testing.T) {
	store, path := newFile(t)
	changed := make(chan struct{}, 100)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Watch(ctx, func() { changed <- struct{}{} }) }()
	<-changed // it has begun to look
	text := `{"revision": 3, "domains": {"edge": {"domain": "edge", "descriptors": [{"key": "a", "rate_limit": {"unlimited": true}}]}}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	<-changed
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := inForce(t, store); !strings.Contains(got, "edge.a") {
		t.Errorf("in force: %s", got)
	}
}

// fickle is a store that can be cut off.
type fickle struct {
	rulestore.Store
	gone atomic.Bool
}

func (f *fickle) Load(ctx context.Context) (rulestore.Set, error) {
	set, err := f.Store.Load(ctx)
	if f.gone.Load() {
		err = fmt.Errorf("%w: for the test", rulestore.ErrUnavailable)
	}
	return set, err
}

func TestProviderGoesOnWithWhatIsKnown(t *testing.T) {
	file, _ := newFile(t)
	set, _ := put(t, rulestore.Set{}, perUser(5), false)
	mustSave(t, file, rulestore.Set{}, set)
	store := &fickle{Store: file}
	store.gone.Store(true)
	if got := inForce(t, store); !strings.Contains(got, "requests_per_unit=5") {
		t.Errorf("in force: %s", got)
	}
	p := &rulestore.Provider{Store: store, Log: zaptest.NewLogger(t)}
	sources, err := p.Sources(t.Context())
	if err != nil || len(sources) != 1 || sources[0].Origin != config.FromAdmin {
		t.Errorf("sources %v, error %v", sources, err)
	}
}

// TestEditsAreAsTheGrammarSays edits at random: what a set holds is what a map
// from IDs to rules would.
func TestEditsAreAsTheGrammarSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s rulestore.Set
		want := map[string]string{}
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			revision := s.Revision
			if rapid.Bool().Draw(t, "delete") && len(want) > 0 {
				ids := make([]string, 0, len(want))
				for id := range want {
					ids = append(ids, id)
				}
				slices.Sort(ids)
				id := rapid.SampledFrom(ids).Draw(t, "id")
				next, change, err := s.Delete(id)
				if err != nil || change == nil || string(change.Before) != want[id] {
					t.Fatalf("deleted %+v, error %v", change, err)
				}
				s = next
				delete(want, id)
				if s.Revision != revision+1 {
					t.Fatalf("revision %d after %d", s.Revision, revision)
				}
			} else {
				name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "domain")
				replace := rapid.Bool().Draw(t, "replace")
				yaml := "domain: " + name + "\ndescriptors:\n"
				for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 1, 3, rapid.ID).Draw(t, "keys") {
					yaml += fmt.Sprintf("  - {key: %s, rate_limit: {unit: hour, requests_per_unit: %d}, descriptors: [{key: w, rate_limit: {unlimited: true}}]}\n",
						key, rapid.IntRange(1, 3).Draw(t, "limit"))
				}
				next, changes, err := s.Put(domain(t, yaml), replace)
				if err != nil {
					t.Fatal(err)
				}
				news := false
				for _, c := range changes {
					if string(c.Before) != want[c.ID] {
						t.Fatalf("%s was %s, not %s", c.Path, want[c.ID], c.Before)
					}
					news = news || c.Kind != rulestore.Unchanged
					if want[c.ID] = string(c.After); c.After == nil {
						delete(want, c.ID)
					}
				}
				if news != (next.Revision == revision+1) && !(replace && next.Revision == revision+1) { // their order may be new
					t.Fatalf("revision %d after %d: %+v", next.Revision, revision, changes)
				}
				s = next
			}
			got := 0
			for name := range s.Domains {
				for r := range domain(t, string(s.Domains[name])).All() {
					got++
					if text, _ := json.Marshal(rulefile.Descriptor{Descriptor: r.Descriptor().WithoutChildren()}); want[r.ID()] != string(text) {
						t.Fatalf("%s is %s, want %s", r.Name(), text, want[r.ID()])
					}
				}
			}
			if got != len(want) {
				t.Fatalf("%d rules, want %d", got, len(want))
			}
		}
	})
}

// TestFileOfOthersIsLeftAlone has each thing that is no file of admin rules refused at
// the start, with a reason that names it, and left as it was.
func TestFileOfOthersIsLeftAlone(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"rules":     func(path string) error { return os.WriteFile(path, []byte("domain: edge\n"), 0o600) },
		"json":      func(path string) error { return os.WriteFile(path, []byte(`{"domain": "edge"}`), 0o600) },
		"link":      func(path string) error { return os.Symlink("elsewhere", path) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			store, path := newFile(t) // before it is there
			if err := plant(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := rulestore.NewFile(path); !errors.Is(err, ownfile.ErrForeign) || !strings.Contains(err.Error(), path) {
				t.Errorf("at the start: error %v", err)
			}
			first, _ := put(t, rulestore.Set{}, perUser(5), false)
			if err := store.Save(t.Context(), rulestore.Set{}, first); !errors.Is(err, ownfile.ErrForeign) {
				t.Errorf("saving: error %v", err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) || before.Size() != after.Size() {
				t.Errorf("%v is now %v, error %v", before, after, err)
			}
		})
	}
}
