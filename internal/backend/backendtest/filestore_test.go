package backendtest_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/backendtest"
)

// fileStore keeps each counter in a file. It is the worked example of
// docs/adding-a-backend.md: a store that can read and write whole states, and
// that has a lock, or transactions, or a way to compare and swap.
type fileStore struct {
	dir   string
	clock func() int64 // µs since the epoch

	mu sync.Mutex // what a transaction would be in a database
}

// Decide implements [backend.Backend].
func (f *fileStore) Decide(_ context.Context, req *backend.Request, out []algo.Decision) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := transaction{store: f, now: f.clock(), states: map[string]algo.State{}, changed: map[string]*algo.Limit{}}
	descriptors := split(req.Checks, out)
	refused, quotas, quotasRefused := false, 0, 0
	for _, d := range descriptors {
		passes := t.decide(d)
		switch backend.RoleOf(d.checks) {
		case backend.Required:
			refused = refused || !passes
		case backend.Quota:
			quotas++
			if !passes {
				quotasRefused++
			}
		}
	}
	if req.AllOrNothing && (refused || quotas > 0 && quotas == quotasRefused) {
		t.states = map[string]algo.State{} // as they were
		for _, d := range descriptors {
			t.deny(d)
			t.report(d)
		}
	}
	return t.commit()
}

// descriptor is the checks of one, with their decisions.
type descriptor struct {
	checks []backend.Check
	out    []algo.Decision
}

func split(checks []backend.Check, out []algo.Decision) (all []descriptor) {
	for from, to := range backend.Descriptors(checks) {
		all = append(all, descriptor{checks[from:to], out[from:to]})
	}
	return all
}

// transaction is one request on its way: the states that it has seen, as it has
// left them so far, and the limits of those that may have changed.
type transaction struct {
	store   *fileStore
	now     int64
	states  map[string]algo.State
	changed map[string]*algo.Limit
	err     error
}

// decide charges the checks if all of them fit, and reports whether they do.
func (t *transaction) decide(d descriptor) (passes bool) {
	before := maps.Clone(t.states) // a state is never changed in place
	for i := range d.checks {
		c := &d.checks[i]
		t.keep(c, c.Try(t.state(c), t.now, &d.out[i]))
	}
	if passes = backend.Passes(d.checks, d.out); !passes {
		t.states = before
	}
	for i := range d.checks { // beside those that pass there may be some in shadow mode that do not fit
		if !passes || !d.out[i].Allowed {
			t.deny(descriptor{d.checks[i : i+1], d.out[i : i+1]})
		}
	}
	t.report(d)
	return passes
}

// deny charges the checks of a denied call.
func (t *transaction) deny(d descriptor) {
	for i := range d.checks {
		c := &d.checks[i]
		t.keep(c, c.Deny(t.state(c), t.now, &d.out[i]))
	}
}

// report reads the answers off the states that the descriptor left.
func (t *transaction) report(d descriptor) {
	for i := range d.checks {
		c := &d.checks[i]
		d.out[i] = c.Report(t.state(c), t.now, &d.out[i])
	}
}

// state returns a copy of the counter's state, settled to now.
func (t *transaction) state(c *backend.Check) algo.State {
	key := string(c.Key)
	s, known := t.states[key]
	if !known {
		s = t.load(key)
		t.states[key] = s
	}
	return c.Limit.Settle(slices.Clone(s), t.now, nil)
}

func (t *transaction) keep(c *backend.Check, s algo.State) {
	if !c.Looks() { // they leave everything as it is
		t.states[string(c.Key)], t.changed[string(c.Key)] = s, c.Limit
	}
}

// file returns where a counter is kept. Keys are of any bytes and length.
func (t *transaction) file(key string) string {
	return filepath.Join(t.store.dir, fmt.Sprintf("%x.json", sha256.Sum256([]byte(key))))
}

func (t *transaction) load(key string) (s algo.State) {
	text, err := os.ReadFile(t.file(key))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil && !os.IsNotExist(err) {
		t.err = err
	}
	return s
}

// commit writes what has changed, and removes states that equal no state.
func (t *transaction) commit() error {
	for key, limit := range t.changed {
		if t.err != nil {
			break
		}
		path, s := t.file(key), t.states[key]
		if limit.Expiry(s) <= t.now {
			if err := os.Remove(path); !os.IsNotExist(err) {
				t.err = err
			}
			continue
		}
		text, err := json.Marshal(s)
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		t.err = err
	}
	return t.err
}

// TestFileStore is all that a store needs to show that it is one.
func TestFileStore(t *testing.T) {
	if os.Getenv("BACKENDTEST_STEPS") == "" {
		t.Setenv("BACKENDTEST_STEPS", "1000") // files are slow
	}
	backendtest.Run(t, func(t testing.TB) backendtest.Fixture {
		var now int64
		return backendtest.Fixture{
			Backend:  &fileStore{dir: t.TempDir(), clock: func() int64 { return now }},
			SetClock: func(micros int64) { now = micros },
		}
	})
}

// TestDocumentedFileStore holds the code in the documentation to this file.
func TestDocumentedFileStore(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	code := read("filestore_test.go")
	for i, block := range strings.Split(read("../../../docs/adding-a-backend.md"), "```go\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if !strings.Contains(code, block) {
			t.Errorf("block %d of docs/adding-a-backend.md is not in filestore_test.go:\n%s", i+1, block)
		}
	}
}
