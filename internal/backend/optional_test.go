package backend_test

import (
	"context"
	"errors"
	"testing"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/backend"
)

// bare is a store that can only decide.
type bare struct{}

func (bare) Decide(context.Context, *backend.Request, []algo.Decision) error { return nil }

// gone is a store that reports that it cannot decide.
type gone struct{ bare }

func (gone) Healthy() bool { return false }

func TestAStoreThatCanOnlyDecide(t *testing.T) {
	if _, err := backend.Reset(t.Context(), bare{}, backend.Check{}); !errors.Is(err, backend.ErrCannotReset) {
		t.Errorf("reset: %v, want ErrCannotReset", err)
	}
	if !backend.Healthy(bare{}) || backend.Healthy(gone{}) {
		t.Error("a store is healthy unless it reports that it is not")
	}
}
