package backend_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

var (
	errA = errors.New("a is gone")
	errB = errors.New("b is gone")
)

// TestFailure checks the error that Decide returns for the errors of its checks, and
// what a caller reads from it, also through a wrapper.
func TestFailure(t *testing.T) {
	for name, tt := range map[string]struct {
		errs    []error
		partial bool
		says    string
	}{
		"none":                  {[]error{nil, nil}, false, ""},
		"some":                  {[]error{nil, errA, errB, errA}, true, "a is gone\nb is gone"},
		"all":                   {[]error{errA, errA}, false, "a is gone"},
		"all, for many reasons": {[]error{errA, errB}, false, "a is gone\nb is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			err := backend.Failure(tt.errs)
			if tt.says == "" {
				if err != nil {
					t.Errorf("got %v, want none", err)
				}
				return
			}
			var partial *backend.PartialError
			if errors.As(err, &partial) != tt.partial || err.Error() != tt.says {
				t.Errorf("got %#v, %q; want %q, partial %v", err, err, tt.says, tt.partial)
			}
			wrapped := fmt.Errorf("store: %w", err)
			for i, cause := range tt.errs {
				if cause != nil && !errors.Is(wrapped, cause) {
					t.Errorf("%v does not hold %v", wrapped, cause)
				}
				if got := backend.ErrorOf(wrapped, i); (got == nil) != (cause == nil) || !errors.Is(got, cause) {
					t.Errorf("check %d: %v, want %v", i, got, cause)
				}
			}
		})
	}
}

// TestPartReportsToItsPlaces in the request, and leaves alone those of others.
func TestPartReportsToItsPlaces(t *testing.T) {
	p := new(backend.Part)
	for _, at := range []int{1, 3} {
		p.Add(at, backend.Check{})
	}
	p.Out[0].Remaining, p.Out[1].Remaining = 10, 30
	out, errs := make([]algo.Decision, 4), make([]error, 4)
	p.Report(&backend.PartialError{Errs: []error{nil, errA}}, out, errs)
	if want := []algo.Decision{{}, {Remaining: 10}, {}, {}}; !slices.Equal(out, want) || !slices.Equal(errs, []error{nil, nil, nil, errA}) {
		t.Errorf("got %v, %v", out, errs)
	}
	p.Report(nil, out, nil)
	if want := []algo.Decision{{}, {Remaining: 10}, {}, {Remaining: 30}}; !slices.Equal(out, want) {
		t.Errorf("got %v, want %v", out, want)
	}
}

// TestPartsAreDecidedEachInItsPlace, at the same time: each waits for all others.
func TestPartsAreDecidedEachInItsPlace(t *testing.T) {
	checks := make([]backend.Check, 5)
	for i := range checks {
		checks[i].Descriptor = i
	}
	parts := backend.Split(checks, func(i int) int { return i % 3 })
	var at [][]int
	for _, p := range parts {
		at = append(at, p.At)
	}
	if want := [][]int{{0, 3}, {1, 4}, {2}}; !slices.EqualFunc(at, want, slices.Equal) {
		t.Fatalf("split into %v, want %v", at, want)
	}
	var all sync.WaitGroup
	all.Add(len(parts))
	out := make([]algo.Decision, len(checks))
	err := backend.DecideParts(checks, parts, out, func(p *backend.Part) error {
		all.Done()
		all.Wait()
		for i, c := range p.Checks {
			p.Out[i].Remaining = int64(10 * c.Descriptor)
		}
		if p.At[0] == 1 {
			return errA
		}
		return nil
	})
	if want := []algo.Decision{{}, {}, {Remaining: 20}, {Remaining: 30}, {}}; !slices.Equal(out, want) {
		t.Errorf("decided %v, want %v", out, want)
	}
	var partial *backend.PartialError
	if want := []error{nil, errA, nil, nil, errA}; !errors.As(err, &partial) || !slices.Equal(partial.Errs, want) {
		t.Errorf("failed with %v, want %v", err, want)
	}
	if err := backend.DecideParts(checks, parts[:1], out, func(*backend.Part) error { return nil }); err != nil {
		t.Errorf("%v, want no errors", err)
	}
}
