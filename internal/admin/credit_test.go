package admin

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/redis"
	"github.com/distlimiter/ratelimit/internal/backend/redis/redistest"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

const credited = rules + `limits:
  - {name: everything, rate_limit: {unit: day, requests_per_unit: 1000}}
  - {name: budget, match: {user: {}}, count_by: [user], rate_limit: {name: monthly, unit: month, requests_per_unit: 100}}
`

type creditResult struct {
	Counters []struct {
		Counter, Rule, Name string
		Given, Remaining    int64
	}
}

func TestCredit(t *testing.T) {
	f := newFixture(t)
	if err := f.load(t, credited); err != nil {
		t.Fatal(err)
	}
	f.hit(t, 8, "user=alice")
	send := func(body string) reply {
		t.Helper()
		return f.send(t, http.MethodPost, "/admin/credit", body)
	}
	const alice = `"domain": "edge", "entries": [{"key": "user", "value": "alice"}]`
	var result creditResult
	send(`{`+alice+`, "hits": 5}`).into(t, http.StatusOK, &result)
	if c := result.Counters; len(c) != 2 || c[0].Rule != "user" || c[0].Given != 5 || c[0].Remaining != 7 ||
		c[1].Rule != "limits.budget" || c[1].Name != "monthly" || c[1].Given != 5 || c[1].Remaining != 97 {
		t.Errorf("its own counters: %+v", c)
	}
	for limit, want := range map[string]string{"monthly": "limits.budget", "limits.everything": "limits.everything"} {
		result = creditResult{}
		send(`{`+alice+`, "hits": 1, "limit": "`+limit+`"}`).into(t, http.StatusOK, &result)
		if c := result.Counters; len(c) != 1 || c[0].Rule != want || c[0].Given != 1 {
			t.Errorf("%s: %+v", limit, c)
		}
	}
	result = creditResult{}
	send(`{`+alice+`, "hits": 500}`).into(t, http.StatusOK, &result) // more than was used
	if c := result.Counters; c[0].Given != 3 || c[0].Remaining != 10 || c[1].Given != 2 || c[1].Remaining != 100 {
		t.Errorf("beyond full: %+v", c)
	}
	lines := f.audit.FilterMessage("admin write").FilterField(fieldWhat("credit"))
	if lines.Len() != 4 {
		t.Errorf("%d lines in the audit log, want 4", lines.Len())
	}
	if line := lines.All()[0].ContextMap(); line["descriptor"] != "user=alice" || line["domain"] != "edge" || line["hits"] != int64(5) || line["who"] == "" {
		t.Errorf("audit: %v", line)
	}
	if p := send(`{`+alice+`, "hits": 1}`).problem(t, http.StatusConflict, nothingUsed); !strings.Contains(p.Detail, "raise the limit") {
		t.Errorf("ahead: %+v", p)
	}
	for body, status := range map[string]int{
		`{}`:                                           http.StatusBadRequest,
		`{` + alice + `}`:                              http.StatusBadRequest,
		`{` + alice + `, "hits": 0}`:                   http.StatusBadRequest,
		`{` + alice + `, "hits": -3}`:                  http.StatusBadRequest,
		`{` + alice + `, "hits": 4294967296}`:          http.StatusBadRequest,
		`{` + alice + `, "hits": 1, "x": 1}`:           http.StatusBadRequest,
		`{"domain": "edge", "hits": 1}`:                http.StatusBadRequest,
		`{` + alice + `, "hits": 1, "limit": "other"}`: http.StatusNotFound,
		`{"domain": "egde", "entries": [{"key": "user", "value": "alice"}], "hits": 1}`: http.StatusNotFound,
		`{"domain": "edge", "entries": [{"key": "a", "value": "b"}], "hits": 1}`:        http.StatusConflict, // only what all share
	} {
		send(body).problem(t, status, "about:blank")
	}
	f.send(t, http.MethodPost, "/admin/credit?dry_run=1", `{`+alice+`, "hits": 1}`).problem(t, http.StatusBadRequest, "about:blank")
}

// inRedis is a Resetter of a store in Redis.
type inRedis struct{ in backend.Backend }

func (s inRedis) Reset(ctx context.Context, checks []backend.Check) (n int, err error) {
	for _, c := range checks {
		used, err := backend.Reset(ctx, s.in, c)
		if err != nil {
			return n, err
		}
		if used {
			n++
		}
	}
	return n, nil
}

func (inRedis) ResetAll(context.Context, func([]byte) bool) (int, error) { return 0, ErrCannotList }

// TestCountersInRedis are credited, and those of a rule that has one for all descriptors
// are reset by their rule.
func TestCountersInRedis(t *testing.T) {
	var inForce *limiter.Limiter
	f := newFixture(t, func(o *Options) {
		store := redistest.Open(t, redis.New, redis.Options{Addrs: []string{redistest.Start(t, redistest.Config{}).Addr}})
		inForce = limiter.New(limiter.Options{Backend: store, Log: zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel)), Stats: o.Stats})
		o.Limiter, o.Counters = inForce, inRedis{store}
	})
	f.limiter = inForce
	f.rules.Subscribe(inForce.SetRules)
	if err := f.load(t, credited); err != nil {
		t.Fatal(err)
	}
	f.hit(t, 8, "user=alice")
	var result creditResult
	f.send(t, http.MethodPost, "/admin/credit", `{"domain": "edge", "entries": [{"key": "user", "value": "alice"}], "hits": 5}`).into(t, http.StatusOK, &result)
	if c := result.Counters; len(c) != 2 || c[0].Given != 5 || c[0].Remaining != 7 || c[1].Given != 5 || c[1].Remaining != 97 {
		t.Errorf("%+v", c)
	}
	var reset struct{ Counters int }
	f.send(t, http.MethodPost, "/admin/reset", `{"rule": "`+f.one(t, "limits.everything").Key+`"}`).into(t, http.StatusOK, &reset)
	if reset.Counters != 1 {
		t.Errorf("%d counters of the rule were reset, want 1", reset.Counters)
	}
	f.send(t, http.MethodPost, "/admin/reset", `{"rule": "`+f.one(t, "limits.budget").Key+`"}`).problem(t, http.StatusNotImplemented, cannotReset)
	if c := f.counters(t, "a=b").Counters; len(c) != 1 || c[0].Remaining != 1000 {
		t.Errorf("after the reset: %+v", c)
	}
}
