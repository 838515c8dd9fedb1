package limiter_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/stats"
)

const inFlight = `
domain: edge
descriptors:
  - key: user
    rate_limit: {unit: minute, requests_per_unit: 1000}
limits:
  - name: in_flight
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 2}
  - name: requests
    match: {user: {}}
    count_by: [user]
    rate_limit: {unit: minute, requests_per_unit: 100}
  - name: ended
    match: {user: {}, phase: [done]}
    rate_limit: {unit: minute, requests_per_unit: 50}
`

// begins and ends are what Envoy sends when a request begins and when it has ended.
func begins(user string, id int) *ask { return desc(fmt.Sprintf("user=%s,request_id=%d", user, id)) }
func ends(user string, id int) *ask {
	return desc(fmt.Sprintf("user=%s,request_id=%d,phase=done", user, id))
}

// atOnce is what a look finds of a counter of concurrency.
func (f *fixture) of(rule, text string) (remaining int64, held uint16) {
	f.t.Helper()
	_, counters, err := f.Look(context.Background(), "edge", desc(text).entries)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, c := range counters {
		if c.Rule.Path == rule {
			return c.Decision.Remaining, c.Decision.Held
		}
	}
	f.t.Fatalf("%s meets no counter of %s", text, rule)
	return 0, 0
}

func (f *fixture) mustHold(user string, left int64, held uint16) {
	f.t.Helper()
	if l, h := f.of("limits.in_flight", "user="+user); l != left || h != held {
		f.t.Errorf("%s: %d left and %d that hold, want %d and %d", user, l, h, left, held)
	}
}

func TestConcurrency(t *testing.T) {
	f := serve(t, inFlight)
	for id := range 2 {
		if a := f.ask(begins("a", id)); a.OverallCode != ok {
			t.Fatalf("request %d: %+v", id, a)
		}
	}
	a := f.ask(begins("a", 2))
	if s := a.Statuses[0]; a.OverallCode != over || s.CurrentLimit.RequestsPerUnit != 2 || s.CurrentLimit.Unit != config.UnitUnknown || s.DurationUntilReset != time.Second {
		t.Errorf("a third: %+v", a)
	}
	if a := f.ask(begins("b", 3)); a.OverallCode != ok {
		t.Errorf("another user: %+v", a)
	}
	f.ask(ends("a", 2)) // Envoy settles what was refused
	f.mustHold("a", 0, 2)
	f.ask(ends("a", 0))
	f.ask(ends("a", 0))
	f.mustHold("a", 1, 1)
	if a := f.ask(begins("a", 4)); a.OverallCode != ok {
		t.Errorf("after one has ended: %+v", a)
	}
	f.advance(time.Minute)
	f.mustHold("a", 2, 0)
}

// TestARequestTakesOneSlotWhateverItCosts: the hits of a reservation are no slots.
func TestARequestTakesOneSlotWhateverItCosts(t *testing.T) {
	f := serve(t, inFlight)
	for id := range 2 {
		if a := f.ask(withHits(begins("a", id), 40)); a.OverallCode != ok {
			t.Fatalf("request %d: %+v", id, a)
		}
	}
	f.mustHold("a", 0, 2)
	f.ask(ends("a", 0))
	f.mustHold("a", 1, 1)
}

func TestASettlementMeetsItsRuleAndThoseThatNameItsKey(t *testing.T) {
	f := serve(t, inFlight)
	f.ask(begins("a", 1))
	f.ask(ends("a", 1))
	f.ask(ends("a", 1))
	if left, _ := f.of("limits.requests", "user=a"); left != 99 {
		t.Errorf("%d requests left, want 99: a settlement is none", left)
	}
	if left, _ := f.of("limits.ended", "user=a,phase=done"); left != 48 {
		t.Errorf("%d left of the rule that names phase, want 48", left)
	}
	f.ask(desc("user=a,request_id=1,phase=other"))
	if left, _ := f.of("limits.requests", "user=a"); left != 98 {
		t.Errorf("%d requests left, want 98: another phase settles nothing", left)
	}
}

func TestADescriptorThatNamesNoRequestDoesNotMeetTheRule(t *testing.T) {
	f := serve(t, inFlight)
	if n := f.admitted(5, desc("user=a,x=y")); n != 5 {
		t.Errorf("%d of 5 pass", n)
	}
	f.mustHold("a", 2, 0)
	if n := f.admitted(5, desc("user=a,request_id=")); n != 2 { // they share nothing
		t.Errorf("%d of 5 with an empty ID pass, want 2", n)
	}
}

func TestARefusedDescriptorHoldsNothing(t *testing.T) {
	f := serve(t, `
domain: edge
limits:
  - name: in_flight
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 5}
  - name: requests
    match: {user: {}}
    rate_limit: {unit: hour, requests_per_unit: 2}
`)
	for id := range 4 {
		f.ask(begins("a", id))
	}
	f.mustHold("a", 3, 2)
}

const tokens = `
domain: edge
limits:
  - name: tokens
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 5m, settled_by: {phase: done}}
    rate_limits:
      - {unit: hour, requests_per_unit: 1000}
      - {algorithm: concurrency, requests_per_unit: 1}
`

func TestReservations(t *testing.T) {
	f := serve(t, tokens)
	left := func() int64 {
		remaining, _ := f.of("limits.tokens", "user=a")
		return remaining
	}
	f.ask(withHits(begins("a", 1), 3)) // and one slot
	if left() != 997 {
		t.Errorf("%d left", left())
	}
	f.ask(withHits(begins("a", 2), 1)) // and one refuses
	if left() != 997 {
		t.Errorf("%d left after a refusal", left())
	}
	if a := f.ask(withHits(ends("a", 1), 1200)); a.OverallCode != over {
		t.Errorf("a settlement that exceeds the limit: %+v", a)
	}
	if left() != -200 {
		t.Errorf("%d left", left())
	}
	c := f.counts("limits.tokens", "")
	if c.TotalHits() != 1201 || c.Denied != 2 {
		t.Errorf("%+v", c)
	}
}

func TestHoldsAreCounted(t *testing.T) {
	f := serve(t, inFlight)
	for id := range 4 {
		f.ask(begins("a", id))
	}
	for id := range 4 {
		if id != 1 {
			f.ask(ends("a", id))
		}
	}
	f.advance(61 * time.Second)
	f.ask(begins("a", 9))
	for _, r := range f.stats.Rules() {
		if r.Name.Path != "limits.in_flight" {
			continue
		}
		if h, _ := r.Holds(); h != (stats.Holds{Granted: 3, Settled: 1, Unheld: 2, Expired: 1}) {
			t.Errorf("%+v", h)
		}
		if c := r.Counts(); c.WithinLimit != 3 || c.Denied != 2 {
			t.Errorf("%+v", c)
		}
	}
}

func TestHoldsSurviveAReload(t *testing.T) {
	f := serve(t, inFlight)
	f.ask(begins("a", 1))
	f.ask(begins("a", 2))
	f.load(`
domain: edge
limits:
  - name: in_flight
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 10s, settled_by: {phase: over}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 1}
`)
	f.mustHold("a", -1, 2)
	f.ask(desc("user=a,request_id=1,phase=over"))
	f.mustHold("a", 0, 1)
	f.load("domain: edge\nlimits: [{name: other, rate_limit: {unit: hour, requests_per_unit: 9}}]\n") // the rule is gone
	if a := f.ask(ends("a", 2)); a.OverallCode != ok {
		t.Errorf("%+v", a)
	}
}

func TestHoldsInAllOrNothingAndShadow(t *testing.T) {
	f := serve(t, `
domain: edge
consume: all_or_nothing
limits:
  - name: in_flight
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 3}
  - name: rehearsed
    shadow_mode: true
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 1}
  - name: requests
    match: {path: {}}
    rate_limit: {unit: hour, requests_per_unit: 1}
`)
	if a := f.ask(begins("a", 1), desc("path=/")); a.OverallCode != ok {
		t.Errorf("%+v", a)
	}
	if a := f.ask(begins("a", 2), desc("path=/")); a.OverallCode != over {
		t.Errorf("%+v", a)
	}
	f.mustHold("a", 2, 1)
	if a := f.ask(begins("a", 3)); a.OverallCode != ok {
		t.Errorf("a limit in shadow mode refuses: %+v", a)
	}
	f.mustHold("a", 1, 2)
	if left, held := f.of("limits.rehearsed", "user=a"); left != 0 || held != 1 {
		t.Errorf("%d left and %d held in shadow mode", left, held)
	}
}

// What a request was granted goes back when it is answered with an error, and what the
// store did not take expires.
func TestHoldsWhileTheStoreIsAway(t *testing.T) {
	var store *partly
	f := serve(t, `
domain: edge
limits:
  - name: in_flight
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 2}
  - {name: error, match: {error: {}}, rate_limit: {unit: second, requests_per_unit: 9}}
  - name: short
    match: {short: {}}
    hold: {by: request_id, expires: 5s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 2, on_backend_error: local}
`, func(o *limiter.Options) {
		store = &partly{Backend: o.Backend}
		o.Backend, o.Local = store, o.Backend
	})
	store.dead.Store(true)
	if _, err := f.decide(t.Context(), "edge", desc("user=a,request_id=1,error=")); failureOf(err) != backendFailed {
		t.Errorf("it was answered: %v", err)
	}
	f.Close() // what goes back has gone
	f.mustHold("a", 2, 0)
	if n := f.admitted(3, desc("short=,request_id=1")); n != 3 { // asking thrice holds once
		t.Errorf("%d of 3 pass", n)
	}
	if n := f.admitted(3, desc("short=,request_id=2")); n != 3 {
		t.Errorf("%d of 3 pass", n)
	}
	if n := f.admitted(3, desc("short=,request_id=3")); n != 0 {
		t.Errorf("%d pass beyond the limit", n)
	}
	f.ask(desc("short=,request_id=1,phase=done"))
	if n := f.admitted(3, desc("short=,request_id=3")); n != 3 {
		t.Errorf("%d of 3 pass when one has ended", n)
	}
}
