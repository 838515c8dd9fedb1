package backendtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// epoch is when the scenarios and the concurrent tests begin: the start of a
// minute and of an hour, in microseconds since the Unix epoch.
const epoch = 1_699_999_200e6

// The limits of the scenarios are named for their size and for what denied hits
// do; each is per minute.
var (
	drop1  = bucket(1, algo.Drop)
	drop2  = bucket(2, algo.Drop)
	drop5  = bucket(5, algo.Drop)
	drain3 = bucket(3, algo.Drain)
	drain5 = bucket(5, algo.Drain)
	count1 = window(1)
	count2 = window(2)
	count5 = window(5)
	blocks = bucket(0, algo.Drop)

	count300k  = window(300_000)
	plain9     = sliding(9, 0)
	strict9    = sliding(9, 10)
	strict9in2 = sliding(9, 2)

	slots2   = mustLimit(algo.Params{Algorithm: algo.Concurrency, Limit: 2, Window: time.Minute})
	reserve9 = mustLimit(algo.Params{Algorithm: algo.TokenBucket, Limit: 9, Window: time.Minute, Hold: time.Minute})
)

func bucket(n uint32, denied algo.DeniedHits) *algo.Limit {
	return mustLimit(algo.Params{Algorithm: algo.TokenBucket, Limit: n, Window: time.Minute, DeniedHits: denied})
}

func bucketPer(n uint32, window time.Duration) *algo.Limit {
	return mustLimit(algo.Params{Algorithm: algo.TokenBucket, Limit: n, Window: window})
}

// sliding is strict unless there are no parts.
func sliding(n uint32, parts int) *algo.Limit {
	return mustLimit(algo.Params{Algorithm: algo.SlidingWindow, Limit: n, Window: time.Minute, Strict: parts > 0, SubWindows: parts})
}

// hybrid has the window of l, and a bucket of the same size.
func hybrid(l *algo.Limit) *algo.Limit {
	p := l.Params()
	p.Algorithm = algo.Hybrid
	return mustLimit(p)
}

func window(n uint32) *algo.Limit {
	return mustLimit(algo.Params{Algorithm: algo.FixedWindow, Limit: n, Window: time.Minute})
}

// mustLimit is for parameters written down in this package.
func mustLimit(p algo.Params) *algo.Limit {
	l, err := algo.New(p)
	if err != nil {
		panic(err)
	}
	return l
}

// call is one request of a scenario with what it must answer.
type call struct {
	at           time.Duration // since epoch
	allOrNothing bool
	checks       []backend.Check
	want         []answer
}

// answer is the part of a decision that a scenario is about.
type answer struct {
	allowed   bool
	remaining int64
}

// one is a request descriptor with one limit.
func one(descriptor int, role backend.Role, key string, l *algo.Limit, hits int64) backend.Check {
	return backend.Check{Key: []byte(key), Limit: l, Hits: hits, Descriptor: descriptor, Role: role}
}

func required(descriptor int, key string, l *algo.Limit, hits int64) backend.Check {
	return one(descriptor, backend.Required, key, l, hits)
}

func shadow(descriptor int, key string, l *algo.Limit, hits int64) backend.Check {
	return one(descriptor, backend.Shadow, key, l, hits)
}

func quota(descriptor int, key string, l *algo.Limit, hits int64) backend.Check {
	return one(descriptor, backend.Quota, key, l, hits)
}

// asks is one that holds, and settles the end of its request.
func asks(descriptor int, key string, l *algo.Limit, hits int64, request uint64) backend.Check {
	c := required(descriptor, key, l, hits)
	c.Hold.ID = request
	return c
}

func settles(descriptor int, key string, l *algo.Limit, hits int64, request uint64) backend.Check {
	c := asks(descriptor, key, l, hits, request)
	c.Hold.Settles = true
	return c
}

func checks(c ...backend.Check) []backend.Check { return c }
func want(a ...answer) []answer                 { return a }

// scenarios are worked out by hand, so that they test the reference too.
var scenarios = []struct {
	name  string
	calls []call
}{
	{"a request without checks", []call{{}}},
	{"descriptors are charged each on its own", []call{
		{checks: checks(required(0, "a", drop1, 1), required(1, "b", drop5, 1)), want: want(answer{true, 0}, answer{true, 4})},
		{checks: checks(required(0, "a", drop1, 1), required(1, "b", drop5, 1)), want: want(answer{false, 0}, answer{true, 3})},
	}},
	{"the limits of one descriptor are charged all or none", []call{
		{checks: checks(required(0, "a", drop5, 1), required(0, "b", drop1, 1)), want: want(answer{true, 4}, answer{true, 0})},
		{checks: checks(required(0, "a", drop5, 1), required(0, "b", drop1, 1)), want: want(answer{true, 4}, answer{false, 0})},
		{checks: checks(required(0, "b", drop1, 1), required(0, "a", drop5, 1)), want: want(answer{false, 0}, answer{true, 4})},
	}},
	{"a limit that counts denied hits counts them when another refuses", []call{
		{checks: checks(required(0, "a", count5, 1), required(0, "b", drop1, 1)), want: want(answer{true, 4}, answer{true, 0})},
		{checks: checks(required(0, "a", count5, 1), required(0, "b", drop1, 1)), want: want(answer{true, 3}, answer{false, 0})},
	}},
	{"only the limit that refuses drains", []call{
		{checks: checks(required(0, "a", drain5, 4), required(0, "b", drain3, 4)), want: want(answer{true, 5}, answer{false, 0})},
	}},
	{"a shadow charges what it would charge if it were enforced", []call{
		{checks: checks(shadow(0, "a", count1, 1)), want: want(answer{true, 0})},
		{checks: checks(shadow(0, "a", count1, 1)), want: want(answer{false, -1})},
		{checks: checks(shadow(0, "b", drain3, 4)), want: want(answer{false, 0})},
		{checks: checks(shadow(0, "c", count5, 1), shadow(0, "a", count1, 1)), want: want(answer{true, 4}, answer{false, -2})},
		{checks: checks(shadow(0, "d", drop5, 1), shadow(0, "a", count1, 1)), want: want(answer{true, 5}, answer{false, -3})},
	}},
	{"a refusal in shadow mode foretells those to come", []call{
		{checks: checks(shadow(0, "a", count300k, 200_000)), want: want(answer{true, 100_000})},
		{checks: checks(shadow(0, "a", count300k, 150_000)), want: want(answer{false, -50_000})},
		{checks: checks(shadow(0, "a", count300k, 20_000)), want: want(answer{false, -70_000})},
	}},
	{"a limit in shadow mode beside one that is enforced", []call{
		{checks: checks(required(0, "live", drop5, 1), shadow(0, "candidate", drop1, 1)), want: want(answer{true, 4}, answer{true, 0})},
		{checks: checks(required(0, "live", drop5, 1), shadow(0, "candidate", drop1, 1)), want: want(answer{true, 3}, answer{false, 0})},
		{checks: checks(shadow(0, "candidate", drop1, 1), required(0, "live", drop5, 3)), want: want(answer{false, 0}, answer{true, 0})},
		// What the live one refuses is a denied call for the candidate too.
		{checks: checks(required(0, "live", drop5, 1), shadow(0, "counting", count5, 1)), want: want(answer{false, 0}, answer{true, 4})},
		{checks: checks(required(0, "live", drop5, 1), shadow(0, "dropping", drop5, 1)), want: want(answer{false, 0}, answer{true, 5})},
		{checks: checks(quota(0, "p", drop1, 1), shadow(0, "draining", drain3, 4)), want: want(answer{true, 0}, answer{false, 0})},
	}},
	{"all or nothing passes over a limit in shadow mode", []call{
		{allOrNothing: true, checks: checks(required(0, "a", drop5, 1), shadow(0, "b", drop1, 1), required(1, "c", drop2, 1)), want: want(answer{true, 4}, answer{true, 0}, answer{true, 1})},
		{allOrNothing: true, checks: checks(required(0, "a", drop5, 1), shadow(0, "b", drop1, 1), required(1, "c", drop2, 1)), want: want(answer{true, 3}, answer{false, 0}, answer{true, 0})},
		{allOrNothing: true, checks: checks(required(0, "a", drop5, 1), shadow(0, "b", drop1, 1), required(1, "c", drop2, 1)), want: want(answer{true, 3}, answer{false, 0}, answer{false, 0})},
	}},
	{"all or nothing charges none when one refuses", []call{
		{allOrNothing: true, checks: checks(required(0, "a", drop5, 1), required(1, "b", drop1, 1)), want: want(answer{true, 4}, answer{true, 0})},
		{allOrNothing: true, checks: checks(required(0, "a", drop5, 1), required(1, "b", drop1, 1)), want: want(answer{true, 4}, answer{false, 0})},
		{allOrNothing: true, checks: checks(required(0, "b", drop1, 1), required(1, "a", drop5, 1)), want: want(answer{false, 0}, answer{true, 4})},
	}},
	{"all or nothing counts denied hits where they count", []call{
		{allOrNothing: true, checks: checks(required(0, "a", count5, 2), required(1, "b", drop1, 2)), want: want(answer{true, 3}, answer{false, 1})},
		{allOrNothing: true, checks: checks(shadow(0, "c", count5, 2), required(1, "b", drop1, 2)), want: want(answer{true, 3}, answer{false, 1})},
	}},
	{"all or nothing passes over the refusal of a shadow", []call{
		{allOrNothing: true, checks: checks(required(0, "a", drop5, 1), shadow(1, "b", drop1, 1)), want: want(answer{true, 4}, answer{true, 0})},
		{allOrNothing: true, checks: checks(required(0, "a", drop5, 1), shadow(1, "b", drop1, 1)), want: want(answer{true, 3}, answer{false, 0})},
	}},
	{"all or nothing refuses when all quotas do", []call{
		{allOrNothing: true, checks: checks(required(0, "a", drop5, 1), quota(1, "p", drop1, 1), quota(2, "q", drop2, 1)), want: want(answer{true, 4}, answer{true, 0}, answer{true, 1})},
		{allOrNothing: true, checks: checks(required(0, "a", drop5, 1), quota(1, "p", drop1, 1), quota(2, "q", drop2, 1)), want: want(answer{true, 3}, answer{false, 0}, answer{true, 0})},
		{allOrNothing: true, checks: checks(required(0, "a", drop5, 1), quota(1, "p", drop1, 1), quota(2, "q", drop2, 1)), want: want(answer{true, 3}, answer{false, 0}, answer{false, 0})},
		{checks: checks(required(0, "a", drop5, 1), quota(1, "p", drop1, 1), quota(2, "q", drop2, 1)), want: want(answer{true, 2}, answer{false, 0}, answer{false, 0})},
	}},
	{"a key twice in a request sees its own charges", []call{
		{checks: checks(required(0, "a", drop5, 3), required(1, "a", drop5, 3)), want: want(answer{true, 2}, answer{false, 2})},
		{allOrNothing: true, checks: checks(required(0, "b", drop5, 3), required(1, "b", drop5, 3)), want: want(answer{true, 5}, answer{false, 5})},
		{allOrNothing: true, checks: checks(required(0, "b", drop5, 3), required(1, "b", drop5, 2)), want: want(answer{true, 2}, answer{true, 0})},
		{checks: checks(required(0, "c", drop5, 3), required(0, "c", drop5, 3)), want: want(answer{true, 5}, answer{false, 5})},
	}},
	{"hits given back are given back whatever else is refused", []call{
		{checks: checks(required(0, "a", drop5, 3), required(1, "b", drop1, 1)), want: want(answer{true, 2}, answer{true, 0})},
		{allOrNothing: true, checks: checks(required(0, "a", drop5, -1), required(1, "b", drop1, 1)), want: want(answer{true, 3}, answer{false, 0})},
		{checks: checks(shadow(0, "a", drop5, -1), shadow(0, "b", drop1, 1)), want: want(answer{true, 4}, answer{false, 0})},
		{checks: checks(required(0, "a", drop5, -100)), want: want(answer{true, 5})},
		{checks: checks(required(0, "never used", count5, -3)), want: want(answer{true, 5})},
		{checks: checks(required(0, "never used", count5, 5)), want: want(answer{true, 0})},
	}},
	{"looks leave everything as it is", []call{
		{checks: checks(required(0, "a", drop1, 0)), want: want(answer{true, 1})},
		{checks: checks(required(0, "a", drop1, 1)), want: want(answer{true, 0})},
		{checks: checks(required(0, "a", drop1, 0)), want: want(answer{false, 0})},
		{checks: checks(required(0, "b", count1, 1)), want: want(answer{true, 0})},
		{checks: checks(required(0, "b", count1, 0)), want: want(answer{true, 0})}, // not exceeded yet
		{checks: checks(required(0, "b", count1, 1)), want: want(answer{false, -1})},
		{checks: checks(required(0, "b", count1, 0)), want: want(answer{false, -1})},
	}},
	{"a look that finds no room refuses a request that is all or nothing", []call{
		{checks: checks(required(0, "a", drop1, 1)), want: want(answer{true, 0})},
		{allOrNothing: true, checks: checks(required(0, "a", drop1, 0), required(1, "b", drop5, 1)), want: want(answer{false, 0}, answer{true, 5})},
	}},
	{"what was used stays used when the limit changes", []call{
		{checks: checks(required(0, "a", count5, 3)), want: want(answer{true, 2})},
		{checks: checks(required(0, "a", count2, 1)), want: want(answer{false, -2})},
		{checks: checks(required(0, "a", count5, 1)), want: want(answer{true, 0})},
		{checks: checks(required(0, "b", drop5, 5)), want: want(answer{true, 0})},
		{checks: checks(required(0, "b", drop2, 1)), want: want(answer{false, -3})},
		{checks: checks(required(0, "b", drop5, 0)), want: want(answer{false, 0})},
		{checks: checks(required(0, "b", bucketPer(1000, time.Hour), 1)), want: want(answer{true, 994})},
		{checks: checks(required(0, "b", drop5, 1)), want: want(answer{false, -1})},
	}},
	{"a sliding window keeps its hits when it becomes strict, and back", []call{
		{checks: checks(required(0, "a", plain9, 4)), want: want(answer{true, 5})},
		{checks: checks(required(0, "a", strict9, 1)), want: want(answer{true, 4})},
		{at: 20 * time.Second, checks: checks(required(0, "a", strict9, 1)), want: want(answer{true, 3})},
		{at: 20 * time.Second, checks: checks(required(0, "a", strict9in2, 1)), want: want(answer{true, 2})},
		{at: 20 * time.Second, checks: checks(required(0, "a", plain9, 0)), want: want(answer{true, 2})},
		{at: 20 * time.Second, checks: checks(required(0, "a", plain9, 1)), want: want(answer{true, 1})},
		{checks: checks(required(0, "h", hybrid(plain9), 4)), want: want(answer{true, 5})},
		{checks: checks(required(0, "h", hybrid(strict9), 1)), want: want(answer{true, 4})},
		{checks: checks(required(0, "h", hybrid(plain9), 1)), want: want(answer{true, 3})},
	}},
	{"a limit of 0 passes nothing and forgets nothing", []call{
		{checks: checks(required(0, "a", blocks, 1)), want: want(answer{false, 0})},
		{checks: checks(required(0, "a", blocks, 0)), want: want(answer{false, 0})},
		{checks: checks(required(0, "a", blocks, -1)), want: want(answer{true, 0})},
		{checks: checks(required(0, "a", drop5, 3)), want: want(answer{true, 2})},
		{checks: checks(required(0, "a", blocks, 0)), want: want(answer{false, -3})},
		{checks: checks(required(0, "a", blocks, 1)), want: want(answer{false, -3})},
		{checks: checks(required(0, "a", blocks, -1)), want: want(answer{true, -2})},
		{checks: checks(required(0, "a", drop5, 1)), want: want(answer{true, 2})},
		{allOrNothing: true, checks: checks(required(0, "a", blocks, 1), required(1, "b", drop5, 1)), want: want(answer{false, -3}, answer{true, 5})},
		{checks: checks(required(0, "a", drop5, 1)), want: want(answer{true, 1})},
		{checks: checks(required(0, "w", window(0), 0)), want: want(answer{false, 0})},
		{checks: checks(required(0, "s", plain9, 9)), want: want(answer{true, 0})},
		{checks: checks(required(0, "s", sliding(0, 0), 1)), want: want(answer{false, -9})},
		{checks: checks(required(0, "s", plain9, 1)), want: want(answer{false, 0})},
		{checks: checks(required(0, "l", log60k, 9)), want: want(answer{true, 59_991})},
		{checks: checks(required(0, "l", mustLimit(algo.Params{Algorithm: algo.SlidingLog, Window: time.Minute}), 1)), want: want(answer{false, -9})},
		{checks: checks(required(0, "l", log60k, 1)), want: want(answer{true, 59_990})},
	}},
	{"counters fade", []call{
		{checks: checks(required(0, "a", count5, 5), required(1, "b", drop5, 5)), want: want(answer{true, 0}, answer{true, 0})},
		{at: 12 * time.Second, checks: checks(required(0, "a", count5, 0), required(1, "b", drop5, 0)), want: want(answer{true, 0}, answer{true, 1})},
		{at: time.Minute, checks: checks(required(0, "a", count5, 1), required(1, "b", drop5, 1)), want: want(answer{true, 4}, answer{true, 4})},
	}},
	{"a clock that steps back forgives nothing and locks nobody out", []call{
		{at: time.Hour, checks: checks(required(0, "a", count5, 5), required(1, "b", drop5, 5)), want: want(answer{true, 0}, answer{true, 0})},
		{checks: checks(required(0, "a", count5, 1), required(1, "b", drop5, 1)), want: want(answer{false, -1}, answer{false, 0})},
		{at: time.Minute, checks: checks(required(0, "a", count5, 1), required(1, "b", drop5, 1)), want: want(answer{true, 4}, answer{true, 4})},
	}},
	{"a request holds until it settles", []call{
		{checks: checks(asks(0, "a", slots2, 1, 7)), want: want(answer{true, 1})},
		{checks: checks(asks(0, "a", slots2, 1, 7)), want: want(answer{true, 1})}, // it holds once
		{checks: checks(asks(0, "a", slots2, 1, 8)), want: want(answer{true, 0})},
		{checks: checks(asks(0, "a", slots2, 1, 9)), want: want(answer{false, 0})},
		{checks: checks(settles(0, "a", slots2, 1, 9)), want: want(answer{true, 0})}, // it held nothing
		{checks: checks(settles(0, "a", slots2, 1, 7)), want: want(answer{true, 1})},
		{checks: checks(settles(0, "a", slots2, 1, 7)), want: want(answer{true, 1})}, // twice
		{at: time.Minute, checks: checks(asks(0, "a", slots2, 0, 0)), want: want(answer{true, 2})},
	}},
	{"a reservation is settled at its cost", []call{
		{checks: checks(asks(0, "a", reserve9, 8, 7)), want: want(answer{true, 1})},
		{checks: checks(asks(0, "a", reserve9, 2, 8)), want: want(answer{false, 1})},
		{checks: checks(settles(0, "a", reserve9, 3, 7)), want: want(answer{true, 6})},
		{checks: checks(settles(0, "a", reserve9, 8, 8)), want: want(answer{false, -2})}, // without a hold, and beyond the limit
		{at: time.Hour, checks: checks(asks(0, "a", reserve9, 9, 9)), want: want(answer{true, 0})},
	}},
	{"what is refused elsewhere holds nothing", []call{
		{checks: checks(asks(0, "a", slots2, 1, 7), required(0, "b", blocks, 1)), want: want(answer{true, 2}, answer{false, 0})},
		{allOrNothing: true, checks: checks(asks(0, "a", slots2, 1, 7), required(1, "b", blocks, 1)), want: want(answer{true, 2}, answer{false, 0})},
		{checks: checks(asks(0, "a", slots2, 1, 7), shadow(0, "b", blocks, 1)), want: want(answer{true, 1}, answer{false, 0})},
		// What it held before it keeps.
		{checks: checks(asks(0, "a", slots2, 2, 7), required(0, "b", blocks, 1)), want: want(answer{true, 1}, answer{false, 0})},
	}},
	{"a settlement is done whatever else is refused, and refuses nothing", []call{
		{checks: checks(asks(0, "a", reserve9, 9, 7)), want: want(answer{true, 0})},
		{allOrNothing: true, checks: checks(settles(0, "a", reserve9, 12, 7), required(1, "b", drop1, 2)), want: want(answer{false, -3}, answer{false, 1})},
		{allOrNothing: true, checks: checks(settles(0, "a", reserve9, 1, 7), required(0, "b", drop5, 1)), want: want(answer{false, -4}, answer{true, 4})},
		{checks: checks(settles(0, "a", reserve9, 0, 7), settles(0, "c", slots2, 0, 7), required(1, "b", drop5, 1)), want: want(answer{false, -4}, answer{true, 2}, answer{true, 3})},
	}},
	{"keys of any bytes and length", []call{
		{checks: checks(required(0, "\x00\xff\n", drop5, 1)), want: want(answer{true, 4})},
		{checks: checks(required(0, "\x00\xff", drop5, 1)), want: want(answer{true, 4})},
		{checks: checks(required(0, strings.Repeat("k", 20_000), drop5, 1)), want: want(answer{true, 4})},
		{checks: checks(required(0, strings.Repeat("k", 20_001), drop5, 1)), want: want(answer{true, 4})},
		{checks: checks(required(0, strings.Repeat("k", 20_000), drop5, 1)), want: want(answer{true, 3})},
	}},
	{"many checks", []call{manyChecks(300, 4), manyChecks(300, 3)}},
	{"a log grows and is given back", []call{
		{checks: checks(required(0, "a", log60k, 1)), want: want(answer{true, 59_999})},
		{checks: checks(required(0, "a", log60k, 59_000)), want: want(answer{true, 999})},
		{at: 30 * time.Second, checks: checks(required(0, "a", log60k, 1000)), want: want(answer{false, 999})},
		{at: 30 * time.Second, checks: checks(required(0, "a", log60k, 999)), want: want(answer{true, 0})},
		{at: 60 * time.Second, checks: checks(required(0, "a", log60k, -998)), want: want(answer{true, 59_999})},
		{at: 90 * time.Second, checks: checks(required(0, "a", log60k, 0)), want: want(answer{true, 60_000})},
	}},
}

var log60k = mustLimit(algo.Params{Algorithm: algo.SlidingLog, Limit: 60_000, Window: time.Minute})

// manyChecks is a request of n descriptors that leaves each the same.
func manyChecks(n int, remaining int64) call {
	var c call
	for i := range n {
		c.checks = append(c.checks, required(i, fmt.Sprint("key ", i), drop5, 1))
		c.want = append(c.want, answer{true, remaining})
	}
	return c
}

func testScenarios(t *testing.T, factory Factory) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			f := factory(t)
			for i, c := range s.calls {
				f.SetClock(epoch + c.at.Microseconds())
				out := make([]algo.Decision, len(c.checks))
				req := backend.Request{Checks: c.checks, AllOrNothing: c.allOrNothing}
				if err := f.Backend.Decide(context.Background(), &req, out); err != nil {
					t.Fatalf("call %d: %v", i, err)
				}
				var got []answer
				for _, d := range out {
					got = append(got, answer{d.Allowed, d.Remaining})
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("call %d: got %v, want %v", i, got, c.want)
				}
			}
		})
	}
}

// testExpired lets a hold expire. Only the request that finds it expired reports it, even
// if the clock steps back to that time after a request that found nothing.
func testExpired(t *testing.T, factory Factory) {
	f := factory(t)
	asksAs := func(descriptor int, role backend.Role, request uint64) backend.Check {
		c := asks(descriptor, "a", slots2, 1, request)
		c.Role = role
		return c
	}
	for i, c := range []struct {
		at     time.Duration
		checks []backend.Check
		want   uint16 // expired, as the last check says
	}{
		{0, checks(asksAs(0, backend.Required, 7)), 0},
		{time.Minute, checks(settles(0, "a", slots2, 0, 8)), 1},
		{time.Minute, checks(settles(0, "a", slots2, 0, 8)), 1}, // at the same moment
		{time.Minute + time.Microsecond, checks(asksAs(0, backend.Quota, 9), quota(0, "b", blocks, 1), asksAs(1, backend.Shadow, 0)), 0},
		{time.Minute, checks(settles(0, "a", slots2, 0, 8)), 0},
	} {
		f.SetClock(epoch + c.at.Microseconds())
		out := make([]algo.Decision, len(c.checks))
		if err := f.Backend.Decide(context.Background(), &backend.Request{Checks: c.checks}, out); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		if got := out[len(out)-1].Expired; got != c.want {
			t.Errorf("call %d: %d have expired, want %d", i, got, c.want)
		}
	}
}
