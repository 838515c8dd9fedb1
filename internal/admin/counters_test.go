package admin

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// hit sends n requests for a descriptor.
func (f *fixture) hit(t *testing.T, n int, text string) (passed int) {
	t.Helper()
	var entries descriptor.Entries
	if err := entries.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	for range n {
		r := &limiter.Request{Domain: "edge"}
		r.AddDescriptor(entries...)
		if err := f.limiter.Decide(t.Context(), r, time.Now()); err != nil {
			t.Fatal(err)
		}
		if !r.OverLimit {
			passed++
		}
	}
	return passed
}

type lookedAt struct {
	Rule     *listed
	Counters []struct {
		Counter, Name, Algorithm, Unit string
		Times                          uint32 `json:"unit_multiplier"`
		Window                         string
		Allowed                        bool
		Remaining                      int64
		RequestsPerUnit                uint32   `json:"requests_per_unit"`
		Reset                          float64  `json:"reset_after_seconds"`
		Retry                          *float64 `json:"retry_after_seconds"`
	}
}

func (f *fixture) counters(t *testing.T, text string) (c lookedAt) {
	t.Helper()
	f.send(t, http.MethodGet, "/admin/counters?domain=edge&descriptor="+text, "").into(t, http.StatusOK, &c)
	return c
}

// TestRuleOfACalendar writes a rule by the API. It is listed with its calendar, and its
// counter shows its windows.
func TestRuleOfACalendar(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	f.apply(t, "", `{"domain": "edge", "descriptors": [{"key": "budget", "rate_limit":
		{"requests_per_unit": 5, "window": {"calendar": "quarter", "timezone": "Europe/Berlin"}}}]}`)
	f.hit(t, 2, "budget=acme")
	c := f.counters(t, "budget=acme").Counters[0]
	if c.Counter != "4:edge|6:budget=4:acme|fw:quarter@Europe/Berlin" || c.Unit != "month" || c.Times != 3 ||
		c.Window != "calendar quarter (Europe/Berlin)" || c.Remaining != 3 || c.Reset > (92*24*time.Hour+time.Hour).Seconds() {
		t.Errorf("%+v", c)
	}
	page := f.get(t, "/admin/rules?q=budget")
	for _, want := range []string{`"fixed_window, 5 per calendar quarter (Europe/Berlin)"`, `"window":{"calendar":"quarter","timezone":"Europe/Berlin"}`} {
		if !strings.Contains(page, want) {
			t.Errorf("the list of rules\n%s\nhas no %s", page, want)
		}
	}
	problem := f.send(t, http.MethodPost, "/admin/rules", `{"domain": "edge", "descriptors": [{"key": "budget", "rate_limit":
		{"requests_per_unit": 5, "window": {"calendar": "quarter", "timezone": "Europe/Berln"}}}]}`)
	if problem.status != http.StatusUnprocessableEntity || !strings.Contains(problem.body, "descriptors[0].rate_limit.window.timezone") {
		t.Errorf("status %d, %s", problem.status, problem.body)
	}
}

func TestCounters(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	f.hit(t, 4, "user=alice")
	for range 3 { // looking charges nothing
		c := f.counters(t, "user=alice")
		if len(c.Counters) != 1 || c.Counters[0].Remaining != 6 || !c.Counters[0].Allowed || c.Rule.Path != "user" ||
			c.Counters[0].Counter != "4:edge|4:user=5:alice|fw:1m" || c.Counters[0].Algorithm != "fixed_window" || *c.Counters[0].Retry != 0 {
			t.Fatalf("%+v", c)
		}
	}
	f.hit(t, 8, "user=alice")
	if c := f.counters(t, "user=alice").Counters[0]; c.Allowed || c.Remaining != 0 || *c.Retry <= 0 || *c.Retry > 60 {
		t.Errorf("%+v", c)
	}
	if c := f.counters(t, "user=bob").Counters[0]; c.Remaining != 10 || c.Reset < 0 {
		t.Errorf("never used: %+v", c)
	}
	if c := f.counters(t, "nothing=here"); c.Rule != nil || len(c.Counters) != 0 {
		t.Errorf("no rule: %+v", c)
	}
	f.apply(t, "", "domain: edge\ndescriptors: [{key: blocked, rate_limit: {unit: day, requests_per_unit: 0}}, {key: free, rate_limit: {unlimited: true}}]")
	if c := f.counters(t, "blocked").Counters[0]; c.Allowed || c.Retry != nil {
		t.Errorf("blocked for ever: %+v", c)
	}
	if c := f.counters(t, "free"); c.Rule == nil || len(c.Counters) != 0 {
		t.Errorf("unlimited: %+v", c)
	}
	for _, query := range []string{"", "?domain=edge", "?descriptor=user%3Da", "?domain=edge&descriptor=%3Da", `?domain=edge&descriptor=a%5C`} {
		f.send(t, http.MethodGet, "/admin/counters"+query, "").problem(t, http.StatusBadRequest, "about:blank")
	}
}

func TestReset(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	use := func() {
		f.hit(t, 12, "user=alice")
		f.hit(t, 12, "user=bob")
		f.hit(t, 12, "user=bob,path=/x")
		f.hit(t, 1, "remote_address=10.0.0.1")
	}
	reset := func(body string) int {
		t.Helper()
		var result struct{ Counters int }
		f.send(t, http.MethodPost, "/admin/reset", body).into(t, http.StatusOK, &result)
		return result.Counters
	}
	use()
	if n := reset(`{"domain": "edge", "entries": [{"key": "user", "value": "alice"}]}`); n != 1 {
		t.Errorf("%d counters", n)
	}
	if a, b := f.counters(t, "user=alice").Counters[0].Remaining, f.counters(t, "user=bob").Counters[0].Remaining; a != 10 || b != 0 {
		t.Errorf("alice has %d, bob %d", a, b)
	}
	use()
	if n := reset(`{"rule": "` + f.one(t, "user").Key + `"}`); n != 2 {
		t.Errorf("%d counters of the rule", n)
	}
	if a, b := f.counters(t, "user=alice").Counters[0].Remaining, f.counters(t, "user=bob").Counters[0].Remaining; a != 10 || b != 10 {
		t.Errorf("alice has %d, bob %d", a, b)
	}
	if c := f.counters(t, "user=bob,path=/x").Counters[0]; c.Remaining != 0 {
		t.Errorf("another rule's counter: %+v", c)
	}
	if n := reset(`{"domain": "edge", "entries": [{"key": "user", "value": "nobody"}]}`); n != 0 {
		t.Errorf("%d counters of nobody", n)
	}
	if n := f.audit.FilterMessage("admin write").FilterField(fieldWhat("reset")).Len(); n != 3 {
		t.Errorf("%d lines in the audit log", n)
	}
	for body, status := range map[string]int{
		`{}`:                          http.StatusBadRequest,
		`{"domain": "edge"}`:          http.StatusBadRequest,
		`{"entries": [{"key": "a"}]}`: http.StatusBadRequest,
		`{"domain": "edge", "entries": [{"key": ""}]}`:               http.StatusBadRequest,
		`{"domain": "edge", "entries": [{"key": "a"}], "rule": "b"}`: http.StatusBadRequest,
		`{"rule": "aaaaaaaaaaaaaaaaaaaa"}`:                           http.StatusNotFound,
		`{"domain": "edge", "entries": [{"key": "nothing"}]}`:        http.StatusNotFound,
		`{"domain": "edge", "entries": [{"key": "user"}], "x": 1}`:   http.StatusBadRequest,
		`{"domain": "edge", "entries": [{"key": "user"}]} {}`:        http.StatusBadRequest,
		`{"domain": "edge", "entries": [{"key": "user"}]}}`:          http.StatusBadRequest,
		`{"domain": "edge", "entries": [{"key": "user"}]}] more`:     http.StatusBadRequest,
		`{"domain": "edge", "entries": [{"key": "user"`:              http.StatusBadRequest,
		`{"domain": "` + strings.Repeat("x", maxBody) + `"}`:         http.StatusRequestEntityTooLarge,
	} {
		f.send(t, http.MethodPost, "/admin/reset", body).problem(t, status, "about:blank")
	}
}

func TestWrongJSONIsToldInTheClientsWords(t *testing.T) {
	f := newFixture(t)
	for body, want := range map[string]string{
		``:                          "the body: it is empty: send a JSON object",
		`[]`:                        "the body: want an object, found array",
		`{"domain": 5}`:             "the body: domain: want a string, found number",
		`{"entries": "user"}`:       "the body: entries: want a list, found string",
		`{"entries": [{"key": 1}]}`: "the body: key: want a string, found number",
		`{"hits": 1.5}`:             "the body: hits: want a whole number, found number 1.5",
		`{"x": 1}`:                  `the body: unknown field "x"`,
		`{} {}`:                     "the body: something follows the document",
	} {
		if got := f.send(t, http.MethodPost, "/admin/credit", body, "Content-Type", "application/json").problem(t, http.StatusBadRequest, "about:blank").Detail; got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

// unlisted is a store that can't list its counters, as Redis.
type unlisted struct{ Resetter }

func (unlisted) ResetAll(context.Context, func([]byte) bool) (int, error) { return 0, ErrCannotList }

func TestResetOfARuleThatCannotBe(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Counters = unlisted{o.Counters} })
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	f.send(t, http.MethodPost, "/admin/reset", `{"rule": "`+f.one(t, "user").Key+`"}`).problem(t, http.StatusNotImplemented, cannotReset)
}

func TestExplain(t *testing.T) {
	f := newFixture(t)
	f.send(t, http.MethodPost, "/admin/explain", `{"domain": "edge", "entries": [{"key": "a"}]}`).problem(t, http.StatusServiceUnavailable, "about:blank")
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	explain := func(body string) (x struct {
		Outcome, Reason, Key string
		Levels               []any
	}) {
		t.Helper()
		f.send(t, http.MethodPost, "/admin/explain", body).into(t, http.StatusOK, &x)
		return x
	}
	if x := explain(`{"domain": "edge", "entries": [{"key": "user", "value": "alice"}, {"key": "path", "value": "/x"}]}`); x.Outcome != "matched" ||
		x.Key != f.one(t, "user.path_/x").Key || len(x.Levels) != 2 {
		t.Errorf("%+v", x)
	}
	if x := explain(`{"domain": "edge", "entries": [{"key": "usr", "value": "alice"}]}`); x.Outcome != "no_match" || x.Key != "" || !strings.Contains(x.Reason, "user") {
		t.Errorf("%+v", x)
	}
	if x := explain(`{"domain": "egde", "entries": [{"key": "user"}]}`); x.Outcome != "unknown_domain" {
		t.Errorf("%+v", x)
	}
	f.send(t, http.MethodPost, "/admin/explain", `{"domain": "edge", "entries": []}`).problem(t, http.StatusBadRequest, "about:blank")
}

func TestRuleActivity(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	f.hit(t, 12, "user=alice")
	f.hit(t, 3, "user=bob")
	f.stats.Tick(time.Now())
	type activity struct {
		Key, Path string
		Totals    totals
		Rates     map[string]callRates
		Last      time.Time `json:"last_denied"`
		History   *callHistory
		Hottest   *hottest
	}
	var list struct{ Rules []activity }
	f.send(t, http.MethodGet, "/admin/stats?domain=edge", "").into(t, http.StatusOK, &list)
	user := list.Rules[0]
	if len(list.Rules) != 3 || user.Path != "user" || user.Totals.Allowed != 13 || user.Totals.Denied != 2 || user.Rates["1s"].Denied != 2 ||
		user.Rates["1h"].Allowed != 13 || user.Last.IsZero() || user.History != nil || user.Hottest != nil {
		t.Errorf("%+v", list)
	}
	if quiet := list.Rules[2]; quiet.Totals != (totals{}) || !quiet.Last.IsZero() {
		t.Errorf("%+v", quiet)
	}
	f.send(t, http.MethodGet, "/admin/stats?history=1", "").into(t, http.StatusOK, &list)
	if h := list.Rules[0].History; h == nil || len(h.Denied) != 60 || h.Denied[59] != 2 || h.Allowed[58] != 0 {
		t.Errorf("%+v", h)
	}
	var one activity
	f.send(t, http.MethodGet, "/admin/stats/"+user.Key, "").into(t, http.StatusOK, &one)
	if one.Hottest == nil || len(one.Hottest.Counters) != 2 || one.Hottest.Sampled != 1 {
		t.Fatalf("%+v", one.Hottest)
	}
	if hot := one.Hottest.Counters[0]; hot.Entries[0] != (descriptor.Entry{Key: "user", Value: "alice"}) || hot.Calls != 12 || hot.Error != 0 || hot.Abridged {
		t.Errorf("%+v", hot)
	}
	f.send(t, http.MethodGet, "/admin/stats?domain=nobody", "").into(t, http.StatusOK, &list)
	if len(list.Rules) != 0 {
		t.Errorf("%+v", list)
	}
	f.send(t, http.MethodGet, "/admin/stats/aaaaaaaaaaaaaaaaaaaa", "").problem(t, http.StatusNotFound, "about:blank")
	f.send(t, http.MethodGet, "/admin/stats?history=all", "").problem(t, http.StatusBadRequest, "about:blank")
}

func TestReloads(t *testing.T) {
	f := newFixture(t)
	f.send(t, http.MethodGet, "/admin/reloads", "").into(t, http.StatusOK, new(any))
	if err := f.load(t, rules); err != nil {
		t.Fatal(err)
	}
	_ = f.load(t, "domain: [") // recorded
	f.apply(t, "?dry_run=1", slower)
	var status struct {
		Successes, Failures int
		History             []struct {
			Outcome  string
			Problems []string
		}
	}
	f.send(t, http.MethodGet, "/admin/reloads", "").into(t, http.StatusOK, &status)
	if status.Successes != 1 || status.Failures != 1 || len(status.History) != 2 || status.History[0].Outcome != "failed" || len(status.History[0].Problems) != 1 {
		t.Errorf("%+v", status)
	}
}
