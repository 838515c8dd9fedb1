package limiter_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
)

// partly is a store in two places: of windows shorter than a minute, which may be
// dead, and of others. It answers as backend.Backend requires of such a store, and
// charges the checks that it decides.
type partly struct {
	backend.Backend
	dead    atomic.Bool
	ends    bool   // windows, as soon as a request is decided in part
	returns func() // called before hits are given back; may be nil
}

var errDead = errors.New("its server is dead")

func (p *partly) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	if p.returns != nil && req.Checks[0].Hits < 0 {
		p.returns()
	}
	if !p.dead.Load() {
		return p.Backend.Decide(ctx, req, out)
	}
	if req.AllOrNothing {
		return errDead
	}
	well, errs := backend.Part{}, make([]error, len(req.Checks))
	for i, c := range req.Checks {
		if errs[i] = errDead; c.Limit.Params().Window >= time.Minute {
			errs[i] = nil
			well.Add(i, c)
		}
	}
	if len(well.At) > 0 {
		if err := p.Backend.Decide(ctx, &well.Request, well.Out); err != nil {
			return err
		}
		for i := range well.Out {
			if p.ends {
				well.Out[i].ResetAfter = time.Nanosecond
			}
		}
		well.Report(nil, out, errs)
	}
	return backend.Failure(errs)
}

// outage is a service whose store has one dead place. Its rules for the other place are
// used up, have room, or count denied hits; those for the dead place differ in
// on_backend_error.
type outage struct {
	*fixture
	store *partly
}

const outageRules = `
domain: edge
descriptors:
  - {key: full, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: room, rate_limit: {unit: hour, requests_per_unit: 9, on_backend_error: allow}}
  - {key: count, rate_limit: {unit: hour, requests_per_unit: 9}}
  - {key: log, rate_limit: {algorithm: sliding_log, unit: hour, requests_per_unit: 9}}
  - {key: bucket, rate_limit: {algorithm: token_bucket, unit: hour, requests_per_unit: 9}}
  - {key: error, rate_limit: {unit: second, requests_per_unit: 4, on_backend_error: error}}
  - {key: allow, rate_limit: {unit: second, requests_per_unit: 4, on_backend_error: allow}}
  - {key: deny, rate_limit: {unit: second, requests_per_unit: 4, on_backend_error: deny}}
  - {key: local, rate_limit: {unit: second, requests_per_unit: 2, on_backend_error: local}}
  - {key: both_error, rate_limits: [{unit: second, requests_per_unit: 4, denied_hits: drop}, {unit: hour, requests_per_unit: 2, denied_hits: drop}]}
  - {key: both_allow, rate_limits: [{unit: second, requests_per_unit: 4, on_backend_error: allow, denied_hits: drop}, {unit: hour, requests_per_unit: 2, denied_hits: drop}]}
  - {key: both_deny, rate_limits: [{unit: second, requests_per_unit: 4, on_backend_error: deny, denied_hits: drop}, {unit: hour, requests_per_unit: 9, denied_hits: drop}]}
  - {key: both_deny_count, rate_limits: [{unit: second, requests_per_unit: 4, on_backend_error: deny}, {unit: hour, requests_per_unit: 9, denied_hits: count}]}
  - {key: both_local, rate_limits: [{unit: second, requests_per_unit: 2, on_backend_error: local, denied_hits: drop}, {unit: hour, requests_per_unit: 9, denied_hits: drop}]}
  - {key: local_full, rate_limits: [{unit: second, requests_per_unit: 2, on_backend_error: local, denied_hits: drop}, {unit: hour, requests_per_unit: 0, denied_hits: drop}]}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: second, requests_per_unit: 4}}
  - {key: shadow_room, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 9}}
  - {key: shadows, rate_limits: [{unit: second, requests_per_unit: 4, shadow_mode: true}, {window: 10s, requests_per_unit: 4, shadow_mode: true}]}
  - {key: candidate, rate_limits: [{unit: hour, requests_per_unit: 9, on_backend_error: allow}, {unit: second, requests_per_unit: 4, shadow_mode: true}]}
  - {key: quota_dead, quota_mode: true, rate_limit: {unit: second, requests_per_unit: 4}}
  - {key: quota_full, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: quota_room, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 9}}
`

func serveOutage(t *testing.T, set ...func(*limiter.Options)) *outage {
	t.Helper()
	o := &outage{store: new(partly)}
	o.fixture = serve(t, outageRules, append([]func(*limiter.Options){func(options *limiter.Options) {
		var now atomic.Int64
		now.Store(noon)
		o.store.Backend, options.Backend, options.Local = options.Backend, o.store, store(t, &now)
	}}, set...)...)
	o.store.dead.Store(true)
	return o
}

// hit asks once; the code is that of an error, if it is one.
func (o *outage) hit(texts ...string) (code, failure) {
	o.t.Helper()
	var ds []*ask
	for _, text := range texts {
		ds = append(ds, desc(text+"=a"))
	}
	resp, err := o.decide(context.Background(), "edge", ds...)
	o.Close() // what is given back is given back now
	return resp.OverallCode, failureOf(err)
}

// left returns what the store has left of the rule's limit per hour.
func (o *outage) left(text string) int64 {
	o.t.Helper()
	o.store.dead.Store(false)
	defer o.store.dead.Store(true)
	_, counters, err := o.Look(context.Background(), "edge", []descriptor.Entry{{Key: text, Value: "a"}})
	if err != nil {
		o.t.Fatal(err)
	}
	for _, c := range counters {
		if c.Limit.Algo.Params().Window == time.Hour {
			return c.Decision.Remaining
		}
	}
	o.t.Fatalf("%s has no limit per hour", text)
	return 0
}

// TestRefusalErrorOK tests the precedence of the decisions and errors of one request.
func TestRefusalErrorOK(t *testing.T) {
	const failed = backendFailed
	for name, tt := range map[string]struct {
		ask  string
		code code
		err  failure
	}{
		"a decided refusal outweighs an error":                    {"full error", over, none},
		"in whichever order":                                      {"error full", over, none},
		"a descriptor may be both in part":                        {"both_error", 0, failed},
		"and its decided part refuses":                            {"both_error both_error both_error", over, none},
		"a stand-in's refusal outweighs an error":                 {"error deny", over, none},
		"an error outweighs OK":                                   {"room error", 0, failed},
		"a refusal outweighs allow":                               {"allow full", over, none},
		"allow lifts the failed limit alone":                      {"allow room", ok, none},
		"deny refuses for the failed limit":                       {"deny room", over, none},
		"local stands in for the failed limit":                    {"local room", ok, none},
		"a quota that failed is no refusal":                       {"quota_dead quota_full", 0, failed},
		"nor is it a quota that passes":                           {"quota_dead quota_room", 0, failed},
		"quotas that all refuse outweigh an error":                {"quota_full error", over, none},
		"a refusal outweighs a quota that failed":                 {"quota_dead quota_room full", over, none},
		"a rehearsal fails nobody":                                {"shadow", ok, none},
		"nor does it beside others":                               {"shadow room", ok, none},
		"nor does it hide a refusal":                              {"shadow full", over, none},
		"nor an error":                                            {"shadow error", 0, failed},
		"limits that are all in shadow mode fail nobody":          {"shadows", ok, none},
		"a candidate fails nobody whose other limits are decided": {"candidate", ok, none},
	} {
		t.Run(name, func(t *testing.T) {
			if code, err := serveOutage(t).hit(strings.Fields(tt.ask)...); code != tt.code || err != tt.err {
				t.Errorf("%v, error %v; want %v, error %v", code, err, tt.code, tt.err)
			}
		})
	}
}

// TestHealthyLimitRefusesBesideADeadOne of the same descriptor: allow lifts only the
// one that failed, and error fails only what the other would let pass.
func TestHealthyLimitRefusesBesideADeadOne(t *testing.T) {
	o := serveOutage(t)
	for i, want := range []code{ok, ok, over, over} {
		if code, err := o.hit("both_allow"); code != want || err != none {
			t.Errorf("allow, request %d: %v, error %v; want %v", i, code, err, want)
		}
	}
	o.store.dead.Store(false)
	o.hit("both_error")
	o.hit("both_error")
	o.store.dead.Store(true)
	if code, err := o.hit("both_error"); code != over || err != none {
		t.Errorf("error, used up: %v, error %v; want a refusal", code, err)
	}
}

// TestNothingIsChargedForAnError in the places that work, whatever the algorithm and the
// role, and even if denied hits count.
func TestNothingIsChargedForAnError(t *testing.T) {
	o := serveOutage(t)
	for _, healthy := range []string{"room", "count", "log", "bucket", "shadow_room", "quota_room"} {
		for range 3 {
			if _, err := o.hit(healthy, "error"); err != backendFailed {
				t.Fatalf("%s: error %v", healthy, err)
			}
		}
		if left := o.left(healthy); left != 9 {
			t.Errorf("%s: %d left of 9 after errors", healthy, left)
		}
	}
	o.hit("both_error")
	if left := o.left("both_error"); left != 2 {
		t.Errorf("of the same descriptor: %d left of 2 after an error", left)
	}
	for range 3 {
		o.hit("local", "error")
	}
	if got := o.admitted(3, desc("local=a")); got != 2 {
		t.Errorf("the local stand-in: %d pass after errors, want 2", got)
	}
}

// TestRefusedHitsThatCountAreGivenBackForAnError, because they were charged, too.
func TestRefusedHitsThatCountAreGivenBackForAnError(t *testing.T) {
	o := serveOutage(t)
	if _, err := o.decide(context.Background(), "edge",
		withHits(desc("shadow_room=a"), 12), desc("error=a"),
	); failureOf(err) != backendFailed {
		t.Fatal(err)
	}
	o.Close()
	if left := o.left("shadow_room"); left != 9 {
		t.Errorf("%d left of 9", left)
	}
}

// TestADescriptorInTwoPlacesIsChargedAllOrNone also when a stand-in decides for one.
func TestADescriptorInTwoPlacesIsChargedAllOrNone(t *testing.T) {
	o := serveOutage(t)
	for rule, want := range map[string]int64{
		"both_deny":       9,
		"both_deny_count": 6, // as any refused call under denied_hits: count
		"both_local":      7, // of three calls the local limit lets two pass
	} {
		for range 3 {
			o.hit(rule)
		}
		if left := o.left(rule); left != want {
			t.Errorf("%s: %d left after three calls, want %d", rule, left, want)
		}
	}
	for range 5 {
		o.hit("local_full")
	}
	o.load(strings.ReplaceAll(outageRules, "{unit: hour, requests_per_unit: 0, denied_hits: drop}", "{unit: hour, requests_per_unit: 9, denied_hits: drop}"))
	if got := o.admitted(3, desc("local_full=a")); got != 2 {
		t.Errorf("the local stand-in: %d pass after calls that the store refused, want 2", got)
	}
}

// TestOtherDescriptorsStayChargedWhenAStandInRefuses, as when the store does, unless
// a refused request charges nothing.
func TestOtherDescriptorsStayChargedWhenAStandInRefuses(t *testing.T) {
	for want, drop := range map[int64]bool{8: false, 9: true} {
		o := serveOutage(t, func(options *limiter.Options) { options.DropRefused, options.Spread = drop, true })
		o.hit("bucket", "deny")
		if left := o.left("bucket"); left != want {
			t.Errorf("drop %v: %d left, want %d", drop, left, want)
		}
	}
}

// TestLocalStandInOfARequestThatIsAllOrNothing charges nothing for a request that
// another stand-in refuses.
func TestLocalStandInOfARequestThatIsAllOrNothing(t *testing.T) {
	o := serveOutage(t)
	o.load(`
domain: edge
consume: all_or_nothing
descriptors:
  - {key: local, rate_limit: {unit: second, requests_per_unit: 2, denied_hits: drop, on_backend_error: local}}
  - {key: one, rate_limit: {unit: second, requests_per_unit: 1, denied_hits: drop, on_backend_error: local}}
  - {key: deny, rate_limit: {unit: second, requests_per_unit: 2, on_backend_error: deny}}
`)
	o.hit("local", "deny")
	o.hit("one", "local")
	o.hit("one", "local")
	if got := o.admitted(3, desc("local=a")); got != 1 {
		t.Errorf("%d pass, want the second: refused requests charge nothing", got)
	}
}

// TestRehearsalsNeverFail, whatever the store's state: shadow mode of a rule, of a
// limit, and of the service.
func TestRehearsalsNeverFail(t *testing.T) {
	whole := func(o *limiter.Options) { o.Backend = broken{} }
	everything := func(o *limiter.Options) { o.ShadowMode = true }
	for name, o := range map[string]*outage{
		"a part of the store is dead": serveOutage(t), "all of it is": serveOutage(t, whole),
	} {
		for _, rule := range []string{"shadow", "shadow_room", "shadows", "candidate"} {
			if code, err := o.hit(rule); code != ok || err != none {
				t.Errorf("%s: %s: %v, error %v", name, rule, code, err)
			}
		}
	}
	for name, o := range map[string]*outage{
		"a part of the store is dead": serveOutage(t, everything), "all of it is": serveOutage(t, everything, whole),
	} {
		for _, ask := range []string{"error", "error full room", "deny", "local", "both_error", "quota_dead quota_full", "shadow"} {
			if code, err := o.hit(strings.Fields(ask)...); code != ok || err != none {
				t.Errorf("shadow mode for all, %s: %s: %v, error %v", name, ask, code, err)
			}
		}
	}
}

// TestGivingBackHoldsUpNoAnswer, because no time may be left for it.
func TestGivingBackHoldsUpNoAnswer(t *testing.T) {
	o := serveOutage(t)
	answered := make(chan struct{})
	o.store.returns = func() { <-answered }
	if _, err := o.decide(context.Background(), "edge", desc("room=a"), desc("error=a")); failureOf(err) != backendFailed {
		t.Fatal(err)
	}
	o.ask(desc("room=another")) // may use what the first request was made of
	close(answered)
	o.Close()
	if left := o.left("room"); left != 9 {
		t.Errorf("%d left of 9 when the service has stopped", left)
	}
}

// TestHitsOfAWindowThatEndedStay: giving them back would add room to the next window. A
// bucket has no windows.
func TestHitsOfAWindowThatEndedStay(t *testing.T) {
	for rule, want := range map[string]int64{"room": 8, "bucket": 9} {
		o := serveOutage(t)
		o.store.ends = true
		o.hit(rule, "error")
		if left := o.left(rule); left != want {
			t.Errorf("%s: %d left of 9, want %d", rule, left, want)
		}
	}
}

// TestWhatFailedIsCounted for the rules that failed, and not for the others.
func TestWhatFailedIsCounted(t *testing.T) {
	o := serveOutage(t)
	o.hit("room", "both_allow", "allow")
	if n := o.stats.BackendErrors.Load(); n != 1 {
		t.Errorf("%d requests that failed, want 1", n)
	}
	for rule, want := range map[string]uint64{"room": 0, "both_allow": 1, "allow": 1} {
		if c := o.counts(rule, ""); c.Errors != want || c.Allowed != 1 {
			t.Errorf("%s: %+v, want %d errors", rule, c, want)
		}
	}
}

// TestTheErrorNamesTheCause of the check that failed.
func TestTheErrorNamesTheCause(t *testing.T) {
	_, err := serveOutage(t).decide(context.Background(), "edge", desc("room=a"), desc("error=a"))
	if failureOf(err) != backendFailed || !strings.Contains(err.Error(), errDead.Error()) {
		t.Errorf("%v", err)
	}
}
