package limiter_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
	"github.com/distlimiter/ratelimit/internal/descriptor"
	"github.com/distlimiter/ratelimit/internal/limiter"
	"github.com/distlimiter/ratelimit/internal/stats"
)

// code is the verdict on a request or on one of its descriptors.
type code int

const (
	ok code = iota + 1
	over
)

func (c code) String() string { return [...]string{"no verdict", "OK", "OVER_LIMIT"}[c] }

func codeOf(overLimit bool) code {
	if overLimit {
		return over
	}
	return ok
}

// failure is the kind of an error.
type failure string

const (
	none          failure = ""
	badRequest    failure = "the request's fault"
	backendFailed failure = "the backend's fault"
	clientLeft    failure = "the client has left"
)

func failureOf(err error) failure {
	var request *limiter.RequestError
	var failed *limiter.BackendError
	switch {
	case err == nil:
		return none
	case errors.As(err, &request):
		return badRequest
	case errors.As(err, &failed):
		return backendFailed
	case errors.Is(err, context.Canceled):
		return clientLeft
	}
	return failure(err.Error())
}

// answer is a verdict, copied out of the request.
type answer struct {
	OverallCode code
	Statuses    []status
	Minimum     int // index in Statuses; -1: none
}

type status struct {
	Code               code
	CurrentLimit       *limiter.Limit
	LimitRemaining     uint32
	DurationUntilReset time.Duration
}

// ask is a descriptor of a request.
type ask struct {
	entries  []descriptor.Entry
	hits     uint64
	hasHits  bool
	negative bool
	override *limiter.Override
}

// desc reads "user=alice,path=/x".
func desc(text string) *ask {
	d := new(ask)
	for e := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(e, "=")
		d.entries = append(d.entries, descriptor.Entry{Key: key, Value: value})
	}
	return d
}

func withHits(d *ask, n uint64) *ask {
	d.hits, d.hasHits = n, true
	return d
}

func negative(d *ask) *ask {
	d.negative = true
	return d
}

func override(d *ask, n uint32, unit config.Unit) *ask {
	d.override = &limiter.Override{RequestsPerUnit: n, Unit: unit}
	return d
}

func times(d *ask, multiplier uint32) *ask {
	d.override.UnitMultiplier, d.override.HasMultiplier = multiplier, true
	return d
}

// fixture is a limiter on a memory store whose clock the test moves.
type fixture struct {
	*limiter.Limiter
	stats *stats.Stats
	now   *atomic.Int64 // µs
	hits  uint32        // of requests
	t     testing.TB
}

func serve(t testing.TB, yaml string, set ...func(*limiter.Options)) *fixture {
	t.Helper()
	f := &fixture{stats: stats.New(0), now: new(atomic.Int64), t: t}
	f.now.Store(noon)
	o := limiter.Options{Backend: store(t, f.now), Log: logger(t), Stats: f.stats}
	for _, s := range set {
		s(&o)
	}
	f.Limiter = limiter.New(o)
	f.load(yaml)
	return f
}

// decide decides one request.
func (f *fixture) decide(ctx context.Context, domain string, descriptors ...*ask) (answer, error) {
	r := &limiter.Request{Domain: domain, Hits: f.hits}
	for _, d := range descriptors {
		added := r.AddDescriptor(d.entries...)
		added.Hits, added.HasHits, added.Negative, added.Override = d.hits, d.hasHits, d.negative, d.override
	}
	if err := f.Decide(ctx, r, time.Now()); err != nil {
		return answer{}, err
	}
	a := answer{OverallCode: codeOf(r.OverLimit), Minimum: -1}
	for i := range r.Descriptors {
		st := &r.Descriptors[i].Status
		if st == r.Minimum {
			a.Minimum = i
		}
		a.Statuses = append(a.Statuses, status{codeOf(st.OverLimit), st.Limit, st.Remaining, st.PassesAfter})
	}
	return a, nil
}

// ask sends one request that must be decided.
func (f *fixture) ask(descriptors ...*ask) answer {
	f.t.Helper()
	a, err := f.decide(context.Background(), "edge", descriptors...)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

// noon is aligned to every unit up to a day but 12 hours, in µs.
const noon = int64(1_700_000_000/86400*86400+43200) * 1e6

func logger(t testing.TB) *zap.Logger {
	if _, is := t.(*testing.T); !is { // a fuzzer must not log to the whole
		return zap.NewNop()
	}
	return zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel))
}

func store(t testing.TB, now *atomic.Int64) *memory.Store {
	s := memory.New(memory.Options{Clock: now.Load})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func want(t testing.TB, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func rules(t testing.TB, yaml string) *config.Rules {
	t.Helper()
	r, err := rulefile.Parse([]rulefile.Source{{Name: "test.yaml", Data: []byte(yaml)}}, rulefile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (f *fixture) load(yaml string) {
	f.t.Helper()
	if err := f.SetRules(rules(f.t, yaml)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) advance(d time.Duration) { f.now.Add(d.Microseconds()) }

// admitted asks n times and returns how many were OK.
func (f *fixture) admitted(n int, descriptors ...*ask) (passed int) {
	f.t.Helper()
	for range n {
		if f.ask(descriptors...).OverallCode == ok {
			passed++
		}
	}
	return passed
}

const perUser = `
domain: edge
descriptors:
  - key: user
    rate_limit: {name: per_user, unit: minute, requests_per_unit: 2}
`

// left returns how many hits the look-up of a descriptor finds in its first counter.
func (f *fixture) left(text string) int64 {
	f.t.Helper()
	_, counters, err := f.Look(context.Background(), "edge", desc(text).entries)
	if err != nil || len(counters) == 0 {
		f.t.Fatalf("%s: %d counters, %v", text, len(counters), err)
	}
	return counters[0].Decision.Remaining
}

// counts returns the counts of a rule, or of a candidate of it.
func (f *fixture) counts(path, limit string) stats.Counts {
	f.t.Helper()
	all := f.stats.Rules()
	if limit != "" {
		all = f.stats.Candidates()
	}
	for _, r := range all {
		if r.Name.Path == path && r.Name.Limit == limit {
			c := r.Counts()
			c.LastDenied = time.Time{}
			return c
		}
	}
	f.t.Fatalf("nothing counts %s %s", path, limit)
	return stats.Counts{}
}
