package backendtest

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

const (
	stepsVariable = "BACKENDTEST_STEPS"
	seedVariable  = "BACKENDTEST_SEED"

	defaultSteps = 10_000
	// episodeSteps is how many requests share a handful of counters. It is short
	// so that a failure has a short history.
	episodeSteps = 200
	// showSteps is how much of that history a failure prints.
	showSteps = 12
)

// testRandom compares the backend with the reference over episodes of random
// requests. Each episode has a seed, counters and limits of its own.
func testRandom(t *testing.T, factory Factory) {
	steps := int(setting(t, stepsVariable, defaultSteps))
	seed := setting(t, seedVariable, time.Now().UnixNano()/1e6)
	fixture := factory(t)
	asks, settlements := 0, 0
	for left := steps; left > 0; left -= episodeSteps {
		e := newEpisode(seed, fixture)
		if err := e.run(min(left, episodeSteps)); err != nil {
			t.Fatalf("replay this with %s=%d %s=%d\n%v\nthe last requests, newest last:\n%s",
				seedVariable, seed, stepsVariable, episodeSteps, err, strings.Join(e.history, "\n"))
		}
		asks, settlements = asks+e.asks, settlements+e.settlements
		seed++
	}
	t.Logf("%d requests; %d checks asked for a hold, %d settled one", steps, asks, settlements)
}

func setting(t *testing.T, name string, otherwise int64) int64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q: write a whole number that is not negative", name, text)
	}
	return n
}

// episode is a random sequence of requests that is wholly determined by its seed.
type episode struct {
	rng       *rand.Rand
	seed      int64
	fixture   Fixture
	reference *Reference
	now       int64
	latest    int64 // the highest that now has been
	counters  []*testCounter
	requests  []uint64 // that hold; 0 for none
	history   []string

	asks, settlements int // checks that ask for a hold, or settle one
}

// testCounter is a key with the limits that may apply to it in turn, as a reload
// or requests that bring limits would change them: of one algorithm and, if it has
// windows, one window, because a key names these.
type testCounter struct {
	name    string
	renewed int // how often its key was changed
	limits  []*algo.Limit
	current int
}

func (c *testCounter) key() []byte { return fmt.Appendf(nil, "%s#%d", c.name, c.renewed) }
func (c *testCounter) limit() *algo.Limit {
	return c.limits[c.current]
}

func newEpisode(seed int64, fixture Fixture) *episode {
	e := &episode{rng: rand.New(rand.NewPCG(uint64(seed), 0)), seed: seed, fixture: fixture}
	e.reference = NewReference(func() int64 { return e.now })
	e.setClock(1_500_000_000e6 + e.rng.Int64N(1e15))
	e.requests = []uint64{0, 1, math.MaxUint64, 0x0101010101010101}
	for range e.rng.IntN(8) {
		e.requests = append(e.requests, e.rng.Uint64())
	}
	for i := range 1 + e.rng.IntN(6) {
		padding := bytes.Repeat([]byte{byte(e.rng.UintN(256))}, e.rng.IntN(40))
		if e.rng.IntN(20) == 0 {
			padding = bytes.Repeat(padding, 50)
		}
		c := &testCounter{name: fmt.Sprintf("%d/%d/%s", seed, i, padding)}
		family := e.params()
		for range 3 {
			c.limits = append(c.limits, e.vary(family))
		}
		e.counters = append(e.counters, c)
	}
	return e
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// params returns the parameters that a key names.
func (e *episode) params() algo.Params {
	p := algo.Params{Algorithm: algo.Algorithm(e.rng.IntN(len(algo.Algorithms()))), Window: e.window()}
	if p.Algorithm.Takes(algo.TakesCalendar) && e.rng.IntN(2) == 0 {
		p.Window, p.Calendar = 0, e.calendar()
		return p // a hold has no place around it
	}
	if _, can := p.Algorithm.CanHold(); can && !p.Algorithm.AlwaysHolds() && e.rng.IntN(3) == 0 {
		p.Hold = e.window()
	}
	return p
}

func (e *episode) calendar() algo.Calendar {
	c := algo.Calendar{
		Every: pick(e.rng, algo.EveryDay, algo.EveryWeek, algo.EveryMonth, algo.EveryQuarter, algo.EveryYear),
		Zone: pick(e.rng, "UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "America/Havana",
			"Australia/Lord_Howe", "Asia/Kathmandu", "Asia/Beirut", "Pacific/Kiritimati"),
	}
	switch c.Every {
	case algo.EveryWeek:
		c.Starts = 1 + e.rng.IntN(7)
	case algo.EveryMonth:
		c.Starts = 1 + e.rng.IntN(28)
	}
	return c
}

func (e *episode) window() time.Duration {
	return pick(e.rng,
		time.Millisecond, 7*time.Millisecond, time.Second, 1_000_003*time.Microsecond,
		time.Minute, 90*time.Second, time.Hour, 24*time.Hour, 30*24*time.Hour, algo.MaxWindow)
}

// vary fills in the rest, which a reload may change.
func (e *episode) vary(p algo.Params) *algo.Limit {
	if _, windowed := p.Algorithm.Tag(); !windowed && e.rng.IntN(2) == 0 {
		p.Window = e.window()
	}
	if p.Algorithm.Takes(algo.TakesStrict) && e.rng.IntN(2) == 0 {
		p.Strict = true
		p.SubWindows = pick(e.rng, 0, 1, 2, 7, algo.MaxSubWindows)
	}
	if p.Algorithm.Takes(algo.TakesRefill) && e.rng.IntN(2) == 0 {
		p.Refill.Per = e.window()
	}
	if p.Hold != 0 && e.rng.IntN(2) == 0 {
		p.Hold = e.window()
	}
	p.DeniedHits = algo.DeniedHits(e.rng.IntN(int(algo.Drain) + 1))
	for {
		p.Limit = e.amount()
		if p.Algorithm == algo.SlidingLog || p.Algorithm == algo.Concurrency {
			p.Limit = min(p.Limit, 1000)
		}
		if p.Refill.Per != 0 {
			p.Refill.Hits = max(e.amount(), 1)
		}
		if p.Algorithm.Takes(algo.TakesBurst) {
			p.Burst = pick(e.rng, 0, e.amount())
		}
		// What is refused is a bucket that takes too long to fill.
		if l, err := algo.New(p); err == nil {
			return l
		}
	}
}

// amount returns a number of hits as limits have them.
func (e *episode) amount() uint32 {
	switch e.rng.IntN(10) {
	case 0:
		return e.rng.Uint32()
	case 1:
		return pick[uint32](e.rng, 0, math.MaxUint32, 700_000, 10_000)
	default:
		return 1 + e.rng.Uint32N(20)
	}
}

// run decides a request in each step. The error is the first difference.
func (e *episode) run(steps int) error {
	for step := range steps {
		e.moveClock()
		if e.rng.IntN(10) == 0 {
			c := pick(e.rng, e.counters...)
			c.current = e.rng.IntN(len(c.limits))
		}
		if err := e.compare(e.request()); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	return nil
}

func (e *episode) setClock(now int64) {
	now = min(now, 1<<52) // the last time that limits know, in 2112: years of a calendar come to it
	e.now, e.latest = now, max(now, e.latest)
	e.fixture.SetClock(now)
}

func (e *episode) moveClock() {
	l := pick(e.rng, e.counters...).limit()
	window := l.Params().Length().Microseconds()
	switch e.rng.IntN(16) {
	case 0, 1, 2: // about one hit's worth
		e.setClock(e.now + e.rng.Int64N(window/int64(max(l.Params().Limit, 1))+2))
	case 3, 4:
		e.setClock(e.now + e.rng.Int64N(window))
	case 5: // around the start of an aligned window, or one of a calendar
		start := e.now - e.now%window + window
		if !l.Params().Calendar.IsZero() {
			_, d := l.Step(nil, e.now, 0)
			start = e.now + d.ResetAfter.Microseconds()
		}
		e.setClock(start + e.rng.Int64N(3) - 1)
	case 6:
		e.setClock(e.now + e.rng.Int64N(4*window))
	case 7:
		e.stepBack(pick(e.rng, 1, e.rng.Int64N(window), e.rng.Int64N(4*window)))
	case 8: // to the end of a wait
		_, d := l.Step(nil, e.now, 1)
		e.setClock(e.now + d.ResetAfter.Microseconds())
	}
}

// stepBack sets the clock back. A store may have forgotten a key since it
// expired, or may not have: such keys are not used again.
func (e *episode) stepBack(by int64) {
	for _, c := range e.counters {
		if !e.reference.holds(string(c.key()), e.latest) {
			c.renewed++
		}
	}
	e.setClock(max(e.now-by, 1_400_000_000e6))
}

// request makes up a request of one to a few descriptors.
func (e *episode) request() *backend.Request {
	req := &backend.Request{AllOrNothing: e.rng.IntN(3) == 0}
	descriptors := 1
	if e.rng.IntN(2) == 0 {
		descriptors = e.rng.IntN(6)
	}
	for d := range descriptors {
		role := pick(e.rng, backend.Required, backend.Required, backend.Shadow, backend.Quota)
		hits := int64(0)
		limits := 1
		if e.rng.IntN(3) == 0 {
			limits = 1 + e.rng.IntN(4)
		}
		for i := range limits {
			c := pick(e.rng, e.counters...)
			if i == 0 || e.rng.IntN(8) == 0 { // the checks of one descriptor mostly charge the same
				hits = e.hits(c.limit())
			}
			check := backend.Check{Key: c.key(), Limit: c.limit(), Hits: hits, Descriptor: d, Role: role}
			if e.rng.IntN(4) == 0 {
				check.Role = backend.Shadow // a limit of its own in shadow mode
			}
			if check.Limit.Holds() {
				check.Hold = algo.Hold{ID: e.requests[e.rng.IntN(len(e.requests))], Settles: e.rng.IntN(3) == 0}
			}
			req.Checks = append(req.Checks, check)
		}
	}
	return req
}

func (e *episode) hits(l *algo.Limit) int64 {
	p := l.Params()
	full := int64(max(p.Burst, p.Limit))
	switch e.rng.IntN(12) {
	case 0, 1:
		return 0
	case 2:
		return -1 - e.rng.Int64N(full+3)
	case 3:
		return 1 + e.rng.Int64N(full+3)
	case 4:
		return max(0, full+e.rng.Int64N(3)-1)
	case 5:
		return pick[int64](e.rng, math.MaxUint32, 2*math.MaxUint32, 1<<53, math.MaxInt64, -math.MaxUint32, -math.MaxInt64, math.MinInt64)
	case 6, 7:
		return 1 + e.rng.Int64N(3)
	default:
		return 1
	}
}

// compare lets both decide the request. It overwrites the keys afterwards, because a
// backend must have copied what it keeps.
func (e *episode) compare(req *backend.Request) error {
	want := make([]algo.Decision, len(req.Checks))
	got := make([]algo.Decision, len(req.Checks))
	if err := e.reference.Decide(context.Background(), req, want); err != nil {
		return err
	}
	err := e.fixture.Backend.Decide(context.Background(), req, got)
	e.record(req, want)
	e.count(req)
	if err != nil {
		return fmt.Errorf("the backend failed: %w", err)
	}
	for i := range want {
		if got[i] != want[i] {
			return fmt.Errorf("check %d:\n got %s\nwant %s", i, describe(got[i]), describe(want[i]))
		}
	}
	for _, c := range req.Checks {
		for i := range c.Key {
			c.Key[i] = 0xff
		}
	}
	return nil
}

// count counts what concerns holds.
func (e *episode) count(req *backend.Request) {
	for _, c := range req.Checks {
		switch {
		case c.Hold.Settles:
			e.settlements++
		case c.Limit.Holds() && c.Hold.ID != 0 && c.Hits > 0:
			e.asks++
		}
	}
}

func (e *episode) record(req *backend.Request, decisions []algo.Decision) {
	var b strings.Builder
	fmt.Fprintf(&b, "now=%d all_or_nothing=%t", e.now, req.AllOrNothing)
	for i, c := range req.Checks {
		at := slices.IndexFunc(e.counters, func(k *testCounter) bool { return bytes.Equal(k.key(), c.Key) })
		fmt.Fprintf(&b, "\n\tcheck %d: descriptor %d %s, counter %d#%d, hits %d%s, %s\n\t\t%s",
			i, c.Descriptor, roleNames[c.Role], at, e.counters[at].renewed, c.Hits, describeHold(c), describeParams(c.Limit), describe(decisions[i]))
	}
	e.history = append(e.history, b.String())
	if len(e.history) > showSteps {
		e.history = e.history[1:]
	}
}

var roleNames = map[backend.Role]string{backend.Required: "required", backend.Shadow: "shadow", backend.Quota: "quota"}

func describeHold(c backend.Check) string {
	switch {
	case !c.Limit.Holds():
		return ""
	case c.Hold.Settles:
		return fmt.Sprintf(" to settle request %x", c.Hold.ID)
	}
	return fmt.Sprintf(" for request %x", c.Hold.ID)
}

func describeParams(l *algo.Limit) string {
	p := l.Params()
	s := fmt.Sprintf("%s %d per %v denied=%s", p.Algorithm, p.Limit, p.Window, l.DeniedHits())
	if !p.Calendar.IsZero() {
		s = fmt.Sprintf("%s %d per %s denied=%s", p.Algorithm, p.Limit, p.Calendar, l.DeniedHits())
	}
	if p.Burst != 0 {
		s += fmt.Sprintf(" burst=%d", p.Burst)
	}
	if p.Refill != (algo.Rate{}) {
		s += fmt.Sprintf(" refill=%d/%v", p.Refill.Hits, p.Refill.Per)
	}
	if p.Strict {
		s += fmt.Sprintf(" strict=%d", p.SubWindows)
	}
	if p.Hold != 0 {
		s += fmt.Sprintf(" hold=%v", p.Hold)
	}
	return s
}

func describe(d algo.Decision) string {
	s := fmt.Sprintf("{Allowed:%t Remaining:%d ResetAfter:%dµs RetryAfter:%dµs",
		d.Allowed, d.Remaining, d.ResetAfter.Microseconds(), d.RetryAfter.Microseconds())
	if d.Held != 0 || d.Expired != 0 || d.Settled {
		s += fmt.Sprintf(" Held:%d Expired:%d Settled:%t", d.Held, d.Expired, d.Settled)
	}
	return s + "}"
}
