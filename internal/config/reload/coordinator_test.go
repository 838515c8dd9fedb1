package reload_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// memory is a provider whose sources the test sets.
type memory struct {
	origin   config.Origin
	mu       sync.Mutex
	sources  []rulefile.Source
	err      error
	watchErr error
	changed  func()
	reads    int
	watches  int
}

func (m *memory) set(err error, documents ...string) {
	m.mu.Lock()
	m.sources, m.err = nil, err
	for i, d := range documents {
		m.sources = append(m.sources, rulefile.Source{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(d), Origin: m.origin})
	}
	changed := m.changed
	m.mu.Unlock()
	if changed != nil {
		changed()
	}
}

func (m *memory) Origin() config.Origin { return m.origin }

func (m *memory) Sources(context.Context) ([]rulefile.Source, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	return m.sources, m.err
}

// counts returns how often sources were read and watching was begun.
func (m *memory) counts() (reads, watches int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads, m.watches
}

func (m *memory) Watch(ctx context.Context, changed func()) error {
	m.mu.Lock()
	m.watches++
	err := m.watchErr
	m.changed = changed
	m.mu.Unlock()
	if err != nil {
		return err
	}
	changed()
	<-ctx.Done()
	return nil
}

func domain(name string, limits ...int) string {
	text := "domain: " + name + "\ndescriptors: ["
	for i, n := range limits {
		text += fmt.Sprintf("{key: k%d, rate_limit: {unit: day, requests_per_unit: %d}},", i, n)
	}
	return text + "]\n"
}

func names(rules *config.Rules) (names []string) {
	if rules != nil {
		for _, d := range rules.Domains {
			names = append(names, d.Name)
		}
	}
	return names
}

// TestReload walks a coordinator through all outcomes of a reload.
func TestReload(t *testing.T) {
	var a memory
	b := memory{origin: config.FromXDS}
	core, logs := observer.New(zap.InfoLevel)
	var hooked []reload.Attempt
	c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse,
		Providers:    []reload.Provider{&a, &b},
		Log:          zap.New(core),
		OnReload:     func(r reload.Attempt) { hooked = append(hooked, r) },
		AllowNoRules: true,
	})
	var applied [][]string
	c.Subscribe(func(r *config.Rules) error { applied = append(applied, names(r)); return nil })

	for _, step := range []struct {
		name       string
		change     func()
		outcome    reload.Outcome
		rules      []string // domains in force afterwards
		generation uint64
		applied    bool
		err        string
	}{
		{name: "bad from the start", change: func() { a.set(nil, "domain: [") }, outcome: reload.Failed, err: "0.yaml:2:1: not YAML"},
		{name: "first rules", change: func() { a.set(nil, domain("a", 1)) }, outcome: reload.Loaded, rules: []string{"a"}, generation: 1, applied: true},
		{name: "the same", change: func() {}, outcome: reload.Unchanged, rules: []string{"a"}, generation: 1},
		{name: "another provider", change: func() { b.set(nil, domain("b", 1, 2)) }, outcome: reload.Loaded, rules: []string{"a", "b"}, generation: 2, applied: true},
		{name: "same bytes shared out otherwise", change: func() { a.set(nil, domain("a", 1), domain("b", 1, 2)); b.set(nil) }, outcome: reload.Loaded, rules: []string{"a", "b"}, generation: 3, applied: true},
		{name: "bad", change: func() { a.set(nil, domain("c", 1), "domain: x\ndescriptors: 5") }, outcome: reload.Failed, rules: []string{"a", "b"}, generation: 3, err: "1.yaml:2:14: descriptors: want a list"},
		{name: "the old ones again", change: func() { a.set(nil, domain("a", 1), domain("b", 1, 2)) }, outcome: reload.Unchanged, rules: []string{"a", "b"}, generation: 3},
		{name: "unread and bad", change: func() { b.set(errors.New("no answer"), "domain: y") }, outcome: reload.Failed, rules: []string{"a", "b"}, generation: 3, err: "no answer"},
		{name: "unread alone", change: func() { b.set(errors.New("no answer")) }, outcome: reload.Failed, rules: []string{"a", "b"}, generation: 3, err: "no answer"},
		{name: "duplicate over providers", change: func() { b.set(nil, domain("a", 1)) }, outcome: reload.Failed, rules: []string{"a", "b"}, generation: 3, err: "already given"},
		{name: "none", change: func() { a.set(nil); b.set(nil) }, outcome: reload.Loaded, generation: 4, applied: true},
	} {
		step.change()
		before := len(applied)
		err := c.Reload(t.Context())
		status := c.Status()
		if (err == nil) != (step.err == "") || err != nil && !strings.Contains(err.Error(), step.err) {
			t.Errorf("%s: error %v, want %q", step.name, err, step.err)
		}
		if got := status.Last; got.Outcome != step.outcome || got.Generation != step.generation {
			t.Errorf("%s: %s in generation %d, want %s in %d", step.name, got.Outcome, got.Generation, step.outcome, step.generation)
		}
		if got := names(c.Rules()); !slices.Equal(got, step.rules) {
			t.Errorf("%s: rules of %v, want %v", step.name, got, step.rules)
		}
		if got := len(applied) > before; got != step.applied {
			t.Errorf("%s: subscribers called: %t, want %t", step.name, got, step.applied)
		}
		if got := status.InForceSince.Equal(status.Last.Time); got != step.applied {
			t.Errorf("%s: rules came into force now: %t, want %t", step.name, got, step.applied)
		}
		if step.outcome == reload.Failed && (len(status.Last.Problems) == 0 || !strings.Contains(strings.Join(status.Last.Problems, "\n"), step.err)) {
			t.Errorf("%s: problems %q, want %q", step.name, status.Last.Problems, step.err)
		}
		if last := hooked[len(hooked)-1]; !reflect.DeepEqual(last, status.Last) {
			t.Errorf("%s: the hook got %+v, want %+v", step.name, last, status.Last)
		}
	}

	status := c.Status()
	if status.Successes != 6 || status.Failures != 5 {
		t.Errorf("%d successes and %d failures, want 6 and 5", status.Successes, status.Failures)
	}
	var history []reload.Outcome
	for _, r := range status.History {
		history = append(history, r.Outcome)
	}
	want := []reload.Outcome{"loaded", "failed", "failed", "failed", "unchanged", "failed", "loaded", "loaded", "loaded", "failed"}
	if !slices.Equal(history, want) {
		t.Errorf("history %v, want %v", history, want)
	}
	if !status.LastSuccess.Equal(status.Last.Time) {
		t.Errorf("last success %v, want %v", status.LastSuccess, status.Last.Time)
	}
	if got := logs.FilterLevelExact(zap.ErrorLevel).Len(); got != 5 {
		t.Errorf("%d failures logged, want 5", got)
	}
	if got := logs.FilterMessage("rules loaded").Len(); got != 4 {
		t.Errorf("%d loads logged, want 4", got)
	}
	if _, err := json.Marshal(status); err != nil {
		t.Errorf("the status as JSON: %v", err)
	}
}

// TestReloadWarnings checks that warnings are kept, but not without bound.
func TestReloadWarnings(t *testing.T) {
	var m memory
	text := "domain: a\ndescriptors:\n"
	for i := range 150 {
		text += fmt.Sprintf("  - {key: k%d, rate_limit: {unit: day}}\n", i)
	}
	m.set(nil, text)
	c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&m}})
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := c.Status().Last
	if len(last.Warnings) != 100 || last.Omitted != 50 || last.Rules != 150 {
		t.Errorf("%d warnings, %d omitted, %d rules, want 100, 50 and 150", len(last.Warnings), last.Omitted, last.Rules)
	}
}

// TestSubscriberRefuses checks that rules do not come into force anywhere if one
// subscriber refuses them.
func TestSubscriberRefuses(t *testing.T) {
	var m memory
	c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&m}})
	var first, third [][]string
	refuse := false
	c.Subscribe(func(r *config.Rules) error { first = append(first, names(r)); return nil })
	c.Subscribe(func(*config.Rules) error {
		if refuse {
			return errors.New("no room")
		}
		return nil
	})
	c.Subscribe(func(r *config.Rules) error { third = append(third, names(r)); return nil })

	m.set(nil, domain("a"))
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	refuse = true
	m.set(nil, domain("b"))
	if err := c.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("error %v, want no room", err)
	}
	if want := [][]string{{"a"}, {"b"}, {"a"}}; !reflect.DeepEqual(first, want) {
		t.Errorf("the first subscriber got %v, want %v", first, want)
	}
	if want := [][]string{{"a"}}; !reflect.DeepEqual(third, want) {
		t.Errorf("the third subscriber got %v, want %v", third, want)
	}
	if got := names(c.Rules()); !slices.Equal(got, []string{"a"}) {
		t.Errorf("rules of %v in force, want a", got)
	}
	refuse = false
	if err := c.Reload(t.Context()); err != nil {
		t.Errorf("after a refusal the same sources must be tried again: %v", err)
	}
	if got := names(c.Rules()); !slices.Equal(got, []string{"b"}) {
		t.Errorf("rules of %v in force, want b", got)
	}
}

// TestHistoryIsBounded makes more reloads fail than the history holds.
func TestHistoryIsBounded(t *testing.T) {
	var m memory
	c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&m}})
	for i := range 60 {
		m.set(nil, domain("a", i))
		if err := c.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	history := c.Status().History
	if len(history) != 50 || history[0].Generation != 60 || history[49].Generation != 11 {
		t.Errorf("%d reloads from generation %d to %d, want the last 50", len(history), history[0].Generation, history[len(history)-1].Generation)
	}
}

// TestReloadStopped checks that a cancelled reload is no failure of the rules.
func TestReloadStopped(t *testing.T) {
	var m memory
	m.set(nil, domain("a"))
	c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&m}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Reload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if s := c.Status(); c.Rules() != nil || s.Failures != 0 || s.Successes != 0 {
		t.Errorf("a cancelled reload left %+v", s)
	}
}

// run starts a coordinator inside a synctest bubble; the function it returns
// stops it and waits.
func run(t *testing.T, c *reload.Coordinator) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// TestCoalesce counts reads while changes come faster than the delay.
func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 100 * time.Millisecond
		var m memory
		m.set(nil, domain("a", 0))
		c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&m}, Delay: delay})
		defer run(t, c)()
		time.Sleep(delay) // the bubble's clock: no time passes outside
		synctest.Wait()
		if got := names(c.Rules()); !slices.Equal(got, []string{"a"}) {
			t.Fatalf("rules of %v, want a: what changed before watching began was missed", got)
		}

		before, _ := m.counts()
		for i := range 5 { // a burst, then quiet
			m.set(nil, domain("b", i))
			time.Sleep(delay / 2)
		}
		synctest.Wait()
		if reads, _ := m.counts(); reads != before {
			t.Errorf("read %d times before the changes had stopped for the delay", reads-before)
		}
		time.Sleep(delay)
		synctest.Wait()
		if reads, _ := m.counts(); reads != before+1 {
			t.Errorf("read %d times after a burst, want once", reads-before)
		}
		if got := c.Rules().Domains[0].Descriptors[0].Limits[0].RequestsPerUnit; got != 4 {
			t.Errorf("limit %d, want the last one, 4", got)
		}

		before, _ = m.counts()
		for i := range 50 { // changes that never stop: 2.5 s
			m.set(nil, domain("c", i))
			time.Sleep(delay / 2)
		}
		synctest.Wait()
		if reads, _ := m.counts(); reads != before+2 {
			t.Errorf("read %d times during 25 delays of steady changes, want one every ten", reads-before)
		}
	})
}

// TestWatchFails checks that a provider which can't watch is asked again.
func TestWatchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory{watchErr: errors.New("no more watches")}
		m.set(nil, domain("a"))
		core, logs := observer.New(zap.InfoLevel)
		c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&m}, Log: zap.New(core)})
		defer run(t, c)()
		synctest.Wait()
		if c.Rules() != nil || logs.FilterField(zap.Error(m.watchErr)).Len() != 1 {
			t.Fatalf("rules %v and log %v, want no rules and one error", c.Rules(), logs.All())
		}
		m.mu.Lock()
		m.watchErr = nil
		m.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, watches := m.counts(); watches != 2 || c.Rules() == nil {
			t.Errorf("asked to watch %d times, want twice; rules %v", watches, c.Rules())
		}
	})
}
