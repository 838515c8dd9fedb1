package persecond_test

import (
	"context"
	"errors"
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

// TestPlaces shows where counters are by what each store has left of them.
func TestPlaces(t *testing.T) {
	together := func(c backend.Check) backend.Check {
		c.Shard = 1
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
		"decided together": {[]backend.Check{together(check(t, 0, "a", time.Second)), together(check(t, 0, "b", time.Hour))}, "OO"},
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

var errDown = errors.New("down")

type down struct{}

func (down) Decide(context.Context, *backend.Request, []algo.Decision) error { return errDown }

func TestOneStoreDown(t *testing.T) {
	seconds, others := check(t, 0, "a", time.Second), check(t, 1, "b", time.Minute)
	decide := func(b *persecond.Backend, checks ...backend.Check) error {
		return b.Decide(context.Background(), &backend.Request{Checks: checks}, make([]algo.Decision, len(checks)))
	}
	for _, b := range []*persecond.Backend{{Seconds: down{}, Others: store(t)}, {Seconds: store(t), Others: down{}}} {
		if err := decide(b, seconds, others); !errors.Is(err, errDown) {
			t.Errorf("both asked: error %v", err)
		}
	}
	if err := decide(&persecond.Backend{Seconds: down{}, Others: store(t)}, others); err != nil {
		t.Errorf("a store that is not needed: %v", err)
	}
}
