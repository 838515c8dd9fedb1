package persecond_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
	"github.com/distlimiter/ratelimit/internal/backend/memory"
	"github.com/distlimiter/ratelimit/internal/backend/persecond"
)

const now = int64(1_700_000_000_000_000) // µs

func store(t *testing.T) *memory.Store {
	s := memory.New(memory.Options{Clock: func() int64 { return now }})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func check(t *testing.T, descriptor int, key string, window time.Duration) backend.Check {
	t.Helper()
	limit, err := algo.New(algo.Params{Limit: 10, Window: window})
	if err != nil {
		t.Fatal(err)
	}
	return backend.Check{Key: []byte(key), Limit: limit, Hits: int64(descriptor) + 1, Descriptor: descriptor}
}

// TestPlaces finds out which store has a counter by what is left in each.
func TestPlaces(t *testing.T) {
	joint := func(c backend.Check) backend.Check {
		c.Joint = true
		return c
	}
	ofOne := func(c backend.Check) backend.Check {
		c.Descriptor = 0
		return c
	}
	for name, tt := range map[string]struct {
		checks []backend.Check
		place  string // S or O, for each check
	}{
		"seconds only": {[]backend.Check{check(t, 0, "a", time.Second)}, "S"},
		"others only":  {[]backend.Check{check(t, 0, "a", time.Minute)}, "O"},
		"mixed": {[]backend.Check{
			check(t, 0, "a", time.Minute), check(t, 1, "b", time.Second), check(t, 2, "c", time.Hour), check(t, 3, "d", time.Second),
		}, "OSOS"},
		"of one descriptor":                  {[]backend.Check{check(t, 0, "a", time.Second), ofOne(check(t, 1, "b", time.Hour))}, "SO"},
		"of a domain that is all or nothing": {[]backend.Check{joint(check(t, 0, "a", time.Second)), joint(check(t, 0, "b", time.Hour))}, "OO"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &persecond.Backend{Seconds: store(t), Others: store(t)}
			out := make([]algo.Decision, len(tt.checks))
			if err := b.Decide(context.Background(), &backend.Request{Checks: tt.checks}, out); err != nil {
				t.Fatal(err)
			}
			for i, c := range tt.checks {
				left := 10 - c.Hits
				if out[i].Remaining != left || !out[i].Allowed {
					t.Errorf("check %d: %+v, want %d left", i, out[i], left)
				}
				c.Hits = 0
				for place, in := range map[string]backend.Backend{"S": b.Seconds, "O": b.Others} {
					want := int64(10)
					if strings.HasPrefix(tt.place[i:], place) {
						want = left
					}
					look := make([]algo.Decision, 1)
					if err := in.Decide(context.Background(), &backend.Request{Checks: []backend.Check{c}}, look); err != nil || look[0].Remaining != want {
						t.Errorf("check %d in %s: %+v, error %v; want %d left", i, place, look[0], err, want)
					}
				}
			}
		})
	}
}

// A descriptor with limits in both stores is charged in all of them or in none, as in one store.
func TestOneDescriptorInBothStores(t *testing.T) {
	drop := func(n uint32, window time.Duration) *algo.Limit {
		l, err := algo.New(algo.Params{Limit: n, Window: window, DeniedHits: algo.Drop})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	count := func(n uint32, window time.Duration) *algo.Limit {
		l, err := algo.New(algo.Params{Limit: n, Window: window})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	const s, d = time.Second, 24 * time.Hour
	for name, checks := range map[string][]backend.Check{
		"the second refuses":           {{Limit: drop(2, s)}, {Limit: drop(9, d)}},
		"the day refuses":              {{Limit: drop(9, s)}, {Limit: drop(2, d)}},
		"the day refuses, all counted": {{Limit: count(9, s)}, {Limit: count(2, d)}},
		"a candidate per second":       {{Limit: drop(1, s), Role: backend.Shadow}, {Limit: drop(3, d)}},
		"two candidates per second":    {{Limit: drop(1, s), Role: backend.Shadow}, {Limit: drop(4, s), Role: backend.Shadow}, {Limit: drop(3, d)}},
		"a candidate per day":          {{Limit: drop(2, s)}, {Limit: drop(1, d), Role: backend.Shadow}, {Limit: drop(3, d)}},
		"a rehearsal":                  {{Limit: drop(2, s), Role: backend.Shadow}, {Limit: drop(3, d), Role: backend.Shadow}},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range checks {
				checks[i].Key, checks[i].Hits = []byte{byte(i)}, 1
			}
			b, one := &persecond.Backend{Seconds: store(t), Others: store(t)}, store(t)
			for call := range 5 {
				got, want := make([]algo.Decision, len(checks)), make([]algo.Decision, len(checks))
				err := errors.Join(b.Decide(context.Background(), &backend.Request{Checks: checks}, got),
					one.Decide(context.Background(), &backend.Request{Checks: checks}, want))
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("call %d: %+v, error %v; in one store %+v", call, got, err, want)
				}
			}
		})
	}
}

var errDown = errors.New("down")

type down struct{}

func (down) Decide(context.Context, *backend.Request, []algo.Decision) error { return errDown }

// TestOneStoreDown: the decisions of the other store stand. Each check of the store
// that is down gets an error. A request that does not need that store gets none.
func TestOneStoreDown(t *testing.T) {
	seconds, others := check(t, 0, "a", time.Second), check(t, 1, "b", time.Minute)
	both := []backend.Check{seconds, others}
	for name, b := range map[string]*persecond.Backend{"seconds": {Seconds: down{}, Others: store(t)}, "others": {Seconds: store(t), Others: down{}}} {
		out := make([]algo.Decision, len(both))
		err := b.Decide(context.Background(), &backend.Request{Checks: both}, out)
		if !errors.Is(err, errDown) {
			t.Errorf("%s: error %v", name, err)
		}
		for i := range both {
			isDown := b.Of(&both[i]) == (down{})
			if got := backend.ErrorOf(err, i); isDown && !errors.Is(got, errDown) || !isDown && (got != nil || !out[i].Allowed || out[i].Remaining != 10-both[i].Hits) {
				t.Errorf("%s: check %d: %+v, error %v", name, i, out[i], got)
			}
		}
	}
	b := &persecond.Backend{Seconds: down{}, Others: store(t)}
	if err := b.Decide(context.Background(), &backend.Request{Checks: both[1:]}, make([]algo.Decision, 1)); err != nil {
		t.Errorf("a store that is not needed: %v", err)
	}
	b.Others = down{}
	err := b.Decide(context.Background(), &backend.Request{Checks: both}, make([]algo.Decision, 2))
	if partial := (*backend.PartialError)(nil); errors.As(err, &partial) || !errors.Is(err, errDown) {
		t.Errorf("both are down: %v, want an error of the request", err)
	}
}

// partlyDown fails for some counters, as a cluster does.
type partlyDown struct {
	backend.Backend
	key string
}

func (p partlyDown) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	errs, well := make([]error, len(req.Checks)), backend.Part{}
	for i, c := range req.Checks {
		if string(c.Key) == p.key {
			errs[i] = errDown
		} else {
			well.Add(i, c)
		}
	}
	err := p.Backend.Decide(ctx, &well.Request, well.Out)
	well.Report(err, out, errs)
	return backend.Failure(errs)
}

// TestAStoreThatIsDownInPart: descriptors with limits in both stores are charged in all
// of them or in none, whatever became of other descriptors.
func TestAStoreThatIsDownInPart(t *testing.T) {
	limit := func(n uint32, window time.Duration) *algo.Limit {
		l, err := algo.New(algo.Params{Limit: n, Window: window, DeniedHits: algo.Drop})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	b := &persecond.Backend{Seconds: store(t), Others: partlyDown{store(t), "dead"}}
	checks := []backend.Check{
		{Key: []byte("a second"), Limit: limit(1, time.Second), Hits: 1}, {Key: []byte("a day"), Limit: limit(9, 24*time.Hour), Hits: 1},
		{Key: []byte("b second"), Limit: limit(9, time.Second), Hits: 1, Descriptor: 1}, {Key: []byte("dead"), Limit: limit(9, 24*time.Hour), Hits: 1, Descriptor: 1},
	}
	out := make([]algo.Decision, len(checks))
	for call := range 3 {
		err := b.Decide(context.Background(), &backend.Request{Checks: checks}, out)
		for i := range checks {
			if failed := backend.ErrorOf(err, i); (failed != nil) != (i == 3) {
				t.Errorf("call %d: check %d: error %v", call, i, failed)
			}
		}
	}
	if out[0].Allowed || out[1].Remaining != 8 {
		t.Errorf("%+v, want the day charged once, for the second refuses", out[:2])
	}
	if !out[2].Allowed || out[2].Remaining != 6 {
		t.Errorf("%+v, want what was decided to stand as it is", out[2])
	}
}

// away is a store that is gone.
type away struct{ *memory.Store }

func (away) Healthy() bool { return false }

// TestResetGoesToTheStoreOfTheCounter, and both must be there to be healthy.
func TestResetGoesToTheStoreOfTheCounter(t *testing.T) {
	seconds, others := store(t), store(t)
	b := &persecond.Backend{Seconds: seconds, Others: others}
	second, hour := check(t, 0, "second", time.Second), check(t, 1, "hour", time.Hour)
	req := backend.Request{Checks: []backend.Check{second, hour}}
	if err := b.Decide(t.Context(), &req, make([]algo.Decision, 2)); err != nil {
		t.Fatal(err)
	}
	if used, err := b.Reset(t.Context(), second); err != nil || !used || seconds.Len() != 0 || others.Len() != 1 {
		t.Errorf("used %v, %v: %d and %d counters are left, want those of the other store", used, err, seconds.Len(), others.Len())
	}
	if !b.Healthy() {
		t.Error("not healthy while both stores are")
	}
	for _, b := range []*persecond.Backend{{Seconds: away{seconds}, Others: others}, {Seconds: seconds, Others: away{others}}} {
		if b.Healthy() {
			t.Error("healthy without one of the stores")
		}
	}
}

// remembers is a store that answers from remembered decisions.
type remembers struct{ *memory.Store }

func (r remembers) Decide(ctx context.Context, req *backend.Request, out []algo.Decision) error {
	err := r.Store.Decide(ctx, req, out)
	for i := range out {
		out[i].Remembered = true
	}
	return err
}

// TestWhatOneOfTwoStoresRemembers: only decisions that a store remembers are marked.
func TestWhatOneOfTwoStoresRemembers(t *testing.T) {
	b := &persecond.Backend{Seconds: remembers{store(t)}, Others: store(t)}
	req := backend.Request{Checks: []backend.Check{check(t, 0, "second", time.Second), check(t, 1, "hour", time.Hour)}}
	out := make([]algo.Decision, 2)
	if err := b.Decide(t.Context(), &req, out); err != nil {
		t.Fatal(err)
	}
	if !out[0].Remembered || out[1].Remembered {
		t.Errorf("%+v: want the first remembered and not the second", out)
	}
}
