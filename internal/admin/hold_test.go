package admin

import (
	"net/http"
	"testing"
)

const heldRules = `domain: edge
limits:
  - name: in_flight
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {algorithm: concurrency, requests_per_unit: 3}
`

func TestCountersOfHolds(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, heldRules); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"1", "2", "3"} {
		f.hit(t, 1, "user=alice,request_id="+id)
	}
	held := func(text string) (remaining int64, held int) {
		t.Helper()
		var c struct {
			Counters []struct {
				Remaining int64
				Held      *int
				Unit      string
			}
		}
		f.send(t, http.MethodGet, "/admin/counters?domain=edge&descriptor="+text, "").into(t, http.StatusOK, &c)
		if len(c.Counters) != 1 || c.Counters[0].Held == nil || c.Counters[0].Unit != "unknown" {
			t.Fatalf("%+v", c)
		}
		return c.Counters[0].Remaining, *c.Counters[0].Held
	}
	reset := func(entries string) int {
		t.Helper()
		var result struct{ Counters int }
		f.send(t, http.MethodPost, "/admin/reset", `{"domain": "edge", "entries": [`+entries+`]}`).into(t, http.StatusOK, &result)
		return result.Counters
	}
	var all struct {
		Rules []struct {
			Holds *struct{ Granted, Settled int }
		}
	}
	f.send(t, http.MethodGet, "/admin/stats", "").into(t, http.StatusOK, &all)
	if h := all.Rules[0].Holds; h == nil || h.Granted != 3 || h.Settled != 0 {
		t.Errorf("statistics: %+v", h)
	}
	const alice, second = `{"key": "user", "value": "alice"}`, `{"key": "request_id", "value": "2"}`
	for _, text := range []string{"user=alice", "user=alice,request_id=2,phase=done"} { // looking settles nothing
		if left, n := held(text); left != 0 || n != 3 {
			t.Errorf("%s: %d left, %d hold", text, left, n)
		}
	}
	if n := reset(alice + ", " + second); n != 1 {
		t.Errorf("%d given back of the second request", n)
	}
	if left, n := held("user=alice"); left != 1 || n != 2 {
		t.Errorf("without the second: %d left, %d hold", left, n)
	}
	if n := reset(alice + ", " + second); n != 0 {
		t.Errorf("%d given back of what held nothing", n)
	}
	if n := reset(alice); n != 1 {
		t.Errorf("%d counters", n)
	}
	if left, n := held("user=alice"); left != 3 || n != 0 {
		t.Errorf("after a reset: %d left, %d hold", left, n)
	}
}

// TestCreditGivesBackWhatReservationsUsed, and neither what requests hold nor places under
// a limit on what is held at once.
func TestCreditGivesBackWhatReservationsUsed(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, heldRules+`  - name: tokens
    match: {user: {}}
    count_by: [user]
    hold: {by: request_id, expires: 60s, settled_by: {phase: done}}
    rate_limit: {unit: hour, requests_per_unit: 100}
`); err != nil {
		t.Fatal(err)
	}
	const alice = `"domain": "edge", "entries": [{"key": "user", "value": "alice"}]`
	f.hit(t, 1, "user=alice,request_id=1")
	f.hit(t, 1, "user=alice,request_id=1,phase=done") // one token is used
	f.hit(t, 1, "user=alice,request_id=2")            // one is held
	var result creditResult
	f.send(t, http.MethodPost, "/admin/credit", `{`+alice+`, "hits": 20}`).into(t, http.StatusOK, &result)
	if c := result.Counters; len(c) != 1 || c[0].Rule != "limits.tokens" || c[0].Given != 1 || c[0].Remaining != 99 {
		t.Errorf("%+v", c)
	}
	f.send(t, http.MethodPost, "/admin/credit", `{`+alice+`, "hits": 20}`).problem(t, http.StatusConflict, nothingUsed)
	// Neither does the request's own ID reach what it holds.
	f.send(t, http.MethodPost, "/admin/credit", `{"domain": "edge", "entries": [{"key": "user", "value": "alice"}, {"key": "request_id", "value": "2"}], "hits": 20}`).problem(t, http.StatusConflict, nothingUsed)
	f.send(t, http.MethodPost, "/admin/credit", `{`+alice+`, "hits": 1, "limit": "limits.in_flight"}`).problem(t, http.StatusConflict, "about:blank")
}
