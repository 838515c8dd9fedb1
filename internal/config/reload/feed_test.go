package reload_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// verdicts is a provider that remembers its verdicts.
type verdicts struct {
	memory
	told []error
}

func (v *verdicts) Acknowledge(err error) { v.told = append(v.told, err) }

// states returns the state of each source that is not good.
func states(s reload.Status) map[string]reload.SourceState {
	found := map[string]reload.SourceState{}
	for _, source := range s.Sources {
		if source.State != reload.SourceGood {
			found[source.Source] = source.State
		}
	}
	return found
}

// TestEachSourceStandsAlone changes files, admin rules and those of a control plane in
// turn. If one is bad, changes of the others still come into force.
func TestEachSourceStandsAlone(t *testing.T) {
	files := memory{origin: config.FromFile}
	admin := memory{origin: config.FromAdmin}
	plane := verdicts{memory: memory{origin: config.FromXDS}}
	plane.set(reload.ErrWaiting)
	c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&files, &admin, &plane}})
	type bad = map[string]reload.SourceState
	waiting := bad{"xds": reload.SourceWaiting}
	for _, step := range []struct {
		name    string
		change  func()
		outcome reload.Outcome
		inForce string // domains with their first limit
		bad     bad
		verdict string // on the control plane's
		problem string
	}{
		{name: "nothing yet", change: func() {}, outcome: reload.Waiting, bad: waiting, verdict: "no rules yet"},
		{name: "bad files at the start", change: func() { files.set(nil, "domain: [") },
			outcome: reload.Failed, bad: bad{"file": "bad", "xds": "waiting"}, verdict: "no rules yet", problem: "not YAML"},
		{name: "admin rules beside them", change: func() { admin.set(nil, domain("mine", 1)) },
			outcome: reload.Partly, inForce: "mine=1", bad: bad{"file": "bad", "xds": "waiting"}, verdict: "no rules yet", problem: "not YAML"},
		{name: "good files", change: func() { files.set(nil, domain("edge", 1)) },
			outcome: reload.Loaded, inForce: "edge=1 mine=1", bad: waiting, verdict: "no rules yet"},
		{name: "first response is bad", change: func() { plane.set(nil, "domain: gate\nrules: 5") },
			outcome: reload.Failed, inForce: "edge=1 mine=1", bad: bad{"xds": "bad"}, verdict: "unknown key", problem: "unknown key"},
		{name: "a file edit beside it", change: func() { files.set(nil, domain("edge", 2)) },
			outcome: reload.Partly, inForce: "edge=2 mine=1", bad: bad{"xds": "bad"}, verdict: "unknown key", problem: "unknown key"},
		{name: "an admin write beside it", change: func() { admin.set(nil, domain("mine", 2)) },
			outcome: reload.Partly, inForce: "edge=2 mine=2", bad: bad{"xds": "bad"}, verdict: "unknown key", problem: "unknown key"},
		{name: "a response that collides", change: func() { plane.set(nil, domain("edge", 9), domain("gate", 1)) },
			outcome: reload.Failed, inForce: "edge=2 mine=2", bad: bad{"xds": "bad"}, verdict: `"edge" is already given`, problem: `"edge" is already given`},
		{name: "one that does not", change: func() { plane.set(nil, domain("gate", 1)) },
			outcome: reload.Loaded, inForce: "edge=2 gate=1 mine=2"},
		{name: "a file that collides with the control plane", change: func() { files.set(nil, domain("edge", 3), domain("gate", 9)) },
			outcome: reload.Failed, inForce: "edge=2 gate=1 mine=2", bad: bad{"file": "bad"}, problem: `"gate" is already given`},
		{name: "the control plane gives way", change: func() { plane.set(nil) },
			outcome: reload.Loaded, inForce: "edge=3 gate=9 mine=2"},
		{name: "a domain moves over while admin rules are bad", change: func() {
			files.set(nil, domain("edge", 3))
			plane.set(nil, domain("gate", 4))
			admin.set(nil, "domain: mine\ndescriptors: 5")
		}, outcome: reload.Partly, inForce: "edge=3 gate=4 mine=2", bad: bad{"admin": "bad"}, problem: "want a list"},
		{name: "files and admin rules bad, the control plane changes", change: func() {
			files.set(errors.New("disk"), domain("edge", 4))
			plane.set(nil, domain("gate", 5))
		}, outcome: reload.Partly, inForce: "edge=3 gate=5 mine=2", bad: bad{"admin": "bad", "file": "bad"}, problem: "disk"},
		{name: "some admin rules are set aside", change: func() {
			files.set(nil, domain("edge", 4))
			admin.set(&reload.Partial{Problems: []config.Problem{{What: "damaged"}}}, domain("mine", 3))
		}, outcome: reload.Partly, inForce: "edge=4 gate=5 mine=3", bad: bad{"admin": "bad"}, problem: "damaged"},
		{name: "all is well", change: func() { admin.set(nil, domain("mine", 3)) },
			outcome: reload.Unchanged, inForce: "edge=4 gate=5 mine=3"},
	} {
		step.change()
		plane.told = nil
		err := c.Reload(t.Context())
		status := c.Status()
		if got := status.Last.Outcome; got != step.outcome {
			t.Errorf("%s: %s, want %s; %v", step.name, got, step.outcome, err)
		}
		var inForce []string
		if rules := c.Rules(); rules != nil {
			for _, d := range rules.Domains {
				inForce = append(inForce, fmt.Sprintf("%s=%d", d.Name, d.Descriptors[0].Limits[0].RequestsPerUnit))
			}
		}
		slices.Sort(inForce)
		if got := strings.Join(inForce, " "); got != step.inForce {
			t.Errorf("%s: %s in force, want %s", step.name, got, step.inForce)
		}
		if got := states(status); !maps.Equal(got, step.bad) {
			t.Errorf("%s: sources %v, want %v", step.name, got, step.bad)
		}
		if got := fmt.Sprint(plane.told); step.verdict == "" && got != "[<nil>]" || len(plane.told) != 1 || !strings.Contains(got, step.verdict) {
			t.Errorf("%s: the control plane was told %s, want %q", step.name, got, step.verdict)
		}
		if got := strings.Join(status.Last.Problems, "\n"); (got == "") != (step.problem == "") || !strings.Contains(got, step.problem) {
			t.Errorf("%s: problems %q, want %q", step.name, got, step.problem)
		}
		if _, bad := errors.AsType[reload.Failures](err); bad != (step.problem != "") {
			t.Errorf("%s: error %v", step.name, err)
		}
	}
	if s := c.Status(); s.Failures != 10 || s.Successes != 4 {
		t.Errorf("%d failures and %d successes, want 10 and 4: waiting is neither", s.Failures, s.Successes)
	}
}

// TestWhyTheRestOfAPartialSourceIsNotInForce: the unusable sources do not hide the reason.
func TestWhyTheRestOfAPartialSourceIsNotInForce(t *testing.T) {
	files, admin := memory{origin: config.FromFile}, memory{origin: config.FromAdmin}
	files.set(nil, domain("edge", 1))
	c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&files, &admin}})
	admin.set(&reload.Partial{Problems: []config.Problem{{What: "damaged"}}}, "domain: mine\ndescriptors: 5")
	for _, also := range []bool{false, true} { // beside other news, and alone
		if also {
			files.set(nil, domain("edge", 2))
		}
		err := c.Reload(t.Context())
		for _, want := range []string{"damaged", "want a list"} {
			if got := strings.Join(c.Status().Last.Problems, "\n"); !strings.Contains(got, want) || !strings.Contains(err.Error(), want) {
				t.Errorf("problems %q, error %v; want %s, too", got, err, want)
			}
		}
	}
}

// TestFilesWithoutAnyRule empties the rule files while serving.
func TestFilesWithoutAnyRule(t *testing.T) {
	const empty = "domain: edge\ndescriptors:\n"
	for name, step := range map[string]struct {
		allow  bool
		origin config.Origin
		before []string
		after  []string
		want   string // domains in force
		failed bool
	}{
		"every file deleted":                    {before: []string{domain("edge", 1)}, want: "edge", failed: true},
		"a domain without descriptors":          {before: []string{domain("edge", 1)}, after: []string{empty}, want: "edge", failed: true},
		"one of two domains":                    {before: []string{domain("edge", 1), domain("inner", 1)}, after: []string{empty, domain("inner", 1)}, want: "edge inner"},
		"allowed":                               {allow: true, before: []string{domain("edge", 1)}},
		"there were none":                       {before: []string{empty}},
		"a control plane takes them back":       {origin: config.FromXDS, before: []string{domain("edge", 1)}},
		"admin rules are deleted":               {origin: config.FromAdmin, before: []string{domain("edge", 1)}},
		"admin rules are deleted from a domain": {origin: config.FromAdmin, before: []string{domain("edge", 1)}, after: []string{empty}, want: "edge"},
	} {
		m := memory{origin: step.origin}
		m.set(nil, step.before...)
		c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&m}, AllowNoRules: step.allow})
		if err := c.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.set(nil, step.after...)
		err := c.Reload(t.Context())
		if (err != nil) != step.failed || err != nil && !errors.Is(err, reload.ErrNoRulesLeft) {
			t.Errorf("%s: error %v", name, err)
		}
		if got := strings.Join(names(c.Rules()), " "); got != step.want {
			t.Errorf("%s: %q in force, want %q", name, got, step.want)
		}
	}
}

// TestOverriddenRulesCount empties files whose only rule an admin rule overrides.
func TestOverriddenRulesCount(t *testing.T) {
	files, admin := memory{}, memory{origin: config.FromAdmin}
	files.set(nil, domain("edge", 1))
	admin.set(nil, domain("edge", 2))
	c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&files, &admin}})
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	files.set(nil)
	if err := c.Reload(t.Context()); err == nil {
		t.Error("the rule below is lost")
	}
	admin.set(nil)
	if err := c.Reload(t.Context()); err == nil || c.Rules().Domains[0].Descriptors[0].Limits[0].RequestsPerUnit != 1 {
		t.Errorf("error %v; in force %s", err, c.Rules())
	}
}

// TestWhatMayPassIsTriedAgain makes sources unreadable for a while, without a change that a
// provider would see.
func TestWhatMayPassIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		m.set(nil, domain("a", 1))
		core, logs := observer.New(zap.InfoLevel)
		c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&m}, Log: zap.New(core)})
		defer run(t, c)()
		time.Sleep(time.Second)
		synctest.Wait()

		m.set(errors.New("too many open files"))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		reads, _ := m.counts()
		if reads < 10 || reads > 25 { // 1, 2, 4, … 60, 60 seconds
			t.Errorf("read %d times in ten minutes", reads)
		}
		if n := logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 1 {
			t.Errorf("%d errors logged, want one", n)
		}
		if s := c.Status(); len(s.History) != 2 || s.Last.Outcome != reload.Failed {
			t.Errorf("history %+v", s.History)
		}

		m.mu.Lock() // without reporting a change
		m.err, m.sources = nil, []rulefile.Source{{Name: "0.yaml", Data: []byte(domain("a", 2))}}
		m.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := c.Rules().Domains[0].Descriptors[0].Limits[0].RequestsPerUnit; got != 2 {
			t.Errorf("limit %d in force, want 2", got)
		}
		before, _ := m.counts()
		time.Sleep(time.Hour)
		synctest.Wait()
		if after, _ := m.counts(); after > before {
			t.Errorf("read %d times more though all is well", after-before)
		}
	})
}

// TestCheckChangesNothing asks about sources that are good, bad, and bad only
// beside others.
func TestCheckChangesNothing(t *testing.T) {
	files, admin := memory{}, memory{origin: config.FromAdmin}
	files.set(nil, domain("edge", 1))
	c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{&files, &admin}})
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	source := func(origin config.Origin, text string) []rulefile.Source {
		return []rulefile.Source{{Name: "x", Data: []byte(text), Origin: origin}}
	}
	if err := c.Check(config.FromAdmin, source(config.FromAdmin, domain("edge", 2))); err != nil {
		t.Error(err)
	}
	if err := c.Check(config.FromAdmin, source(config.FromAdmin, "domain: [")); err == nil {
		t.Error("bad text passed")
	}
	if err := c.Check(config.FromXDS, nil); err != nil {
		t.Error(err)
	}
	if got := c.Rules().String(); !strings.Contains(got, "requests_per_unit=1") || c.Status().Last.Generation != 1 {
		t.Errorf("in force: %s", got)
	}
	files.set(nil, domain("edge", 5))
	if err := c.Reload(t.Context()); err != nil || !strings.Contains(c.Rules().String(), "requests_per_unit=5") {
		t.Errorf("error %v, in force %s", err, c.Rules())
	}
}
