package reload

import (
	"context"
	"errors"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/rulefile"
)

// Provider is a place that rules come from.
type Provider interface {
	// Origin is the kind of place. A coordinator has at most one provider of each.
	Origin() config.Origin
	// Sources returns the rules as they are now. If it returns an error, they don't
	// come into force: the last good ones of this provider stay. The error is
	// reported together with the problems of the sources that it returns. Sources is
	// called again after a while. Two errors are exceptions: ErrWaiting is no
	// failure, and the sources returned with a *Partial come into force.
	Sources(ctx context.Context) ([]rulefile.Source, error)
	// Watch calls changed whenever Sources may return something else, and at
	// least once after it has begun to look. It returns when ctx is done, or with
	// an error when it can't watch any more; it is called again after a while.
	Watch(ctx context.Context, changed func()) error
}

// Acknowledger is a Provider that learns the outcome of each attempt. Its bad sources stay bad
// until it sees a change, so the coordinator does not retry them before.
type Acknowledger interface {
	// Acknowledge is called after each attempt: with nil if the sources that Sources
	// returned last are in force, otherwise with the reason why they are not.
	Acknowledge(err error)
}

// Reader is a Provider that names what it reads, for the error of a read that does not end.
type Reader interface {
	// Reading returns the path that is being read, or that was read last; empty if it is
	// not known. It is called while Sources runs.
	Reading() string
}

// ErrWaiting is the error of a provider that has no rules yet. It will see a change when
// they come.
var ErrWaiting = errors.New("no rules yet")

// ErrNoRulesLeft refuses files without any rule where there were some before.
// [Options.AllowNoRules] accepts them.
var ErrNoRulesLeft = errors.New("the files have no rules any more, but had some before; put the rules back")

// Partial is the error of a provider some of whose sources can't be used. The provider
// returns it together with the other sources, or with older ones in their place. The
// coordinator also uses it for files whose adjustments are not in force for all rules.
type Partial struct {
	Problems []config.Problem // never empty
}

// Error returns one line per problem.
func (e *Partial) Error() string { return (&config.Invalid{Problems: e.Problems}).Error() }

// invalid returns the problems as an error; nil when there are none.
func invalid(problems []config.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return &config.Invalid{Problems: problems}
}

// allOf returns the problems of all errors as one, nil when there are none.
func allOf(errs ...error) error {
	var problems []config.Problem
	for _, err := range errs {
		if bad, ok := errors.AsType[*config.Invalid](err); ok {
			problems = append(problems, bad.Problems...)
		} else if partial, ok := errors.AsType[*Partial](err); ok {
			problems = append(problems, partial.Problems...)
		} else if err != nil {
			problems = append(problems, config.Problem{What: err.Error()})
		}
	}
	return invalid(problems)
}

// Adjusted returns a Load that applies the default and then the rules' adjustments.
func Adjusted(load Load, d config.Default) Load {
	overlay := config.NewOverlay(d)
	return func(sources []rulefile.Source) (*config.Rules, error) {
		rules, err := load(sources)
		if err != nil {
			return nil, err
		}
		return overlay.Apply(rules)
	}
}

// Load parses sources into rules. Its error is a *config.Invalid if the sources are to
// blame. Domains that have not changed may be the same as before.
type Load func(sources []rulefile.Source) (*config.Rules, error)
