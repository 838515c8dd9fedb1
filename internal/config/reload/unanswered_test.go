package reload_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/reload"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// unanswered is a provider on a disk that does not answer until it is released.
type unanswered struct {
	memory
	released chan struct{}
}

func (u *unanswered) Reading() string { return "/rules/edge.yaml" }

func (u *unanswered) Sources(ctx context.Context) ([]rulefile.Source, error) {
	sources, err := u.memory.Sources(ctx)
	<-u.released
	return sources, err
}

func (u *unanswered) Watch(_ context.Context, changed func()) error {
	changed()
	<-u.released // whatever the context says
	return errors.New("released")
}

func TestADiskThatDoesNotAnswerHoldsUpNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, api := &unanswered{released: make(chan struct{})}, &memory{origin: config.FromAdmin}
		disk.set(nil, domain("old", 1))
		api.set(nil, domain("api", 1))
		c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{disk, api}})

		began := time.Now()
		if err := c.Reload(t.Context()); !errors.Is(err, reload.ErrNoAnswer) || time.Since(began) != 30*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		} else if !strings.HasPrefix(err.Error(), "/rules/edge.yaml: reading takes too long") {
			t.Errorf("the file is not named: %v", err)
		}
		api.set(nil, domain("api", 1), domain("api2", 1))
		began = time.Now()
		if err := c.Reload(t.Context()); !errors.Is(err, reload.ErrNoAnswer) || time.Since(began) != 0 {
			t.Errorf("the second attempt: %v after %v", err, time.Since(began))
		}
		if got := names(c.Rules()); !slices.Equal(got, []string{"api", "api2"}) {
			t.Errorf("in force: %q", got)
		}
		if reads, _ := disk.counts(); reads != 1 {
			t.Errorf("the disk was read %d times at once", reads)
		}

		// The read that ends in the end is out of date, so the disk is read again.
		disk.set(nil, domain("new", 1))
		stop := run(t, c)
		synctest.Wait()
		close(disk.released)
		time.Sleep(5 * time.Second)
		if got := names(c.Rules()); !slices.Equal(got, []string{"new", "api", "api2"}) {
			t.Errorf("in force after the disk has answered: %q", got)
		}
		if s := c.Status().Sources[0]; s.State != reload.SourceGood {
			t.Errorf("%+v", s)
		}
		stop()
	})
}

func TestADiskThatDoesNotAnswerHoldsUpNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &unanswered{released: make(chan struct{})}
		defer close(disk.released)
		c := reload.New(reload.Options{Load: rulefile.NewParser(rulefile.Options{}).Parse, Providers: []reload.Provider{disk}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Reload(ctx); !errors.Is(err, context.DeadlineExceeded) { // as at the start
			t.Error(err)
		}
		stop := run(t, c)
		time.Sleep(time.Minute)
		began := time.Now()
		stop()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
