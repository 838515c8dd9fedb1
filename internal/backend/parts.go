package backend

import (
	"errors"
	"sync"

	"github.com/distlimiter/ratelimit/internal/algo"
)

// PartialError is the error of a Decide that decided some checks of a request and
// failed to decide others. A store that is in one place never needs it.
type PartialError struct {
	// Errs has one element for each check of the request: nil where out holds a
	// decision, otherwise why there is none and nothing can be said of what was
	// charged.
	Errs []error
}

// Error implements error. It says each cause once.
func (e *PartialError) Error() string { return errors.Join(e.Unwrap()...).Error() }

// Unwrap returns the causes, each once.
func (e *PartialError) Unwrap() (causes []error) {
	known := map[string]bool{}
	for _, err := range e.Errs {
		if err != nil && !known[err.Error()] {
			known[err.Error()] = true
			causes = append(causes, err)
		}
	}
	return causes
}

// Failure returns what Decide returns for the errors of its checks: nil if all were
// decided, a *PartialError if some were, and all their causes if none was.
func Failure(errs []error) error {
	failed := 0
	for _, err := range errs {
		if err != nil {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	partial := &PartialError{Errs: errs}
	if failed == len(errs) {
		return errors.Join(partial.Unwrap()...)
	}
	return partial
}

// ErrorOf returns the error of the i-th check of a request for which Decide
// returned err, nil if that check was decided.
func ErrorOf(err error, i int) error {
	if partial := (*PartialError)(nil); errors.As(err, &partial) {
		return partial.Errs[i]
	}
	return err
}

// Split returns the checks of a request by where they live, each part in the order of
// the request; place is asked for each check once, in that order too.
func Split[Place comparable](checks []Check, place func(i int) Place) (parts []*Part) {
	at := map[Place]*Part{}
	for i := range checks {
		where := place(i)
		p := at[where]
		if p == nil {
			p = new(Part)
			at[where] = p
			parts = append(parts, p)
		}
		p.Add(i, checks[i])
	}
	return parts
}

// DecideParts has the parts of a request decided at the same time, and hands their
// decisions to out, which has an element for each check of the request. It returns
// the errors of the checks, for Failure: nil if there are none.
func DecideParts(parts []*Part, out []algo.Decision, decide func(p *Part) error) (errs []error) {
	failures := make([]error, len(parts))
	var others sync.WaitGroup
	for i, p := range parts[1:] {
		others.Go(func() { failures[i+1] = decide(p) })
	}
	failures[0] = decide(parts[0])
	others.Wait()
	for i, p := range parts {
		if failures[i] != nil && errs == nil {
			errs = make([]error, len(out))
		}
		p.Report(failures[i], out, errs)
	}
	return errs
}

// Part is those checks of a request that one of several stores decides.
type Part struct {
	Request
	At  []int           // where each check is in the request
	Out []algo.Decision // of each check
}

// Add adds a check, which is the at-th of the request.
func (p *Part) Add(at int, c Check) {
	p.Checks, p.At, p.Out = append(p.Checks, c), append(p.At, at), append(p.Out, algo.Decision{})
}

// Report hands on what became of the part: err is what Decide returned for it, out
// gets the decisions and errs the errors of the request's checks. Without err errs
// is left alone.
func (p *Part) Report(err error, out []algo.Decision, errs []error) {
	for i, at := range p.At {
		if failed := ErrorOf(err, i); failed != nil {
			errs[at] = failed
		} else {
			out[at] = p.Out[i]
		}
	}
}
